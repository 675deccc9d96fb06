"""The comparison of designs: its task, its equal costs, and that it goes on where it was broken off."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.scripts import load_script


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    module: ModuleType = load_script("benchmarks/motion_ablation.py")
    return module


def test_the_blob_moves_as_its_label_says(ablation: ModuleType) -> None:
    clips, labels = ablation.make_batch(0, 0, 400)
    assert clips.shape == (400, 3, ablation.FRAMES, ablation.SIDE, ablation.SIDE)
    assert float(clips.abs().max()) <= 1
    # What changes over time is the blob's alone: the background stands still.
    blob = (clips - clips.amin(2, keepdim=True)).mean(1).numpy()  # (b, t, h, w)
    places = np.arange(ablation.SIDE)
    centers = np.stack([(blob.sum(5 - axis) * places).sum(-1) / blob.sum((2, 3)) for axis in (2, 3)], -1)
    moved = centers[:, -1] - centers[:, 0]  # (b, 2), (y, x) pixels
    along = (moved * np.array(ablation.DIRECTIONS)[labels.numpy()]).sum(1)
    assert (along > 2).all()
    assert (np.abs(moved).sum(1) - along).max() < 1  # nothing across


def test_a_single_picture_tells_nothing(ablation: ModuleType) -> None:
    clips, labels = ablation.make_batch(0, 0, 4000)
    light = clips.mean(1)  # (b, t, h, w)
    for name, kept in (("frames", light.mean(1)), ("squares", light.square().mean(1))):
        means = np.stack([kept[labels == k].mean(0).numpy() for k in range(4)])
        error = kept.std(0).numpy() / np.sqrt(1000)  # of each mean, were all pictures of one kind
        apart = np.abs(means - means.mean(0)) / error
        assert apart.max() < 5, name
    first = np.stack([light[labels == k, 0].mean(0).numpy() for k in range(4)])
    assert np.abs(first - first.mean(0)).max() > 0.05  # together with its time a picture does tell


def test_costs_are_nearly_equal(ablation: ModuleType) -> None:
    budget = ablation.Setting().mmacs
    for architecture in ("vit-frames", "vivit-fe", "timesformer-divided", "vtn"):
        design = next(d for d in ablation.DESIGNS if d.architecture == architecture)
        cost = ablation.count_mmacs(ablation.make_model(design, ablation.fit_width(design, budget)))
        assert cost == pytest.approx(budget, rel=0.12), architecture


def test_what_has_figures_is_not_trained_again(
    ablation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "TEST_CLIPS", 16)
    monkeypatch.setattr(ablation, "fit_width", lambda design, mmacs: 16)
    trained: list[str] = []
    train = ablation.train

    def note(design: object, setting: object) -> object:
        trained.append(design.architecture)  # type: ignore[attr-defined]
        return train(design, setting)

    monkeypatch.setattr(ablation, "train", note)
    options = ["x", "--out", str(tmp_path), "--steps", "2", "--batch", "4", "--models"]
    for models in (["vit-frames"], ["vit-frames", "vivit-fe"]):
        monkeypatch.setattr(sys, "argv", [*options, *models])
        ablation.main()
    assert trained == ["vit-frames", "vivit-fe"]
    saved = json.loads((tmp_path / "motion-ablation.json").read_text())
    assert list(saved["results"]) == trained
    page = (tmp_path / "motion-ablation.md").read_text()
    assert "| ViT on each frame, averaged | `vit-frames` | 16 |" in page
    assert (tmp_path / "motion-ablation.png").stat().st_size > 1000
