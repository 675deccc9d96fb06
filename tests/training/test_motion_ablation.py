"""The comparison of designs: its task, its equal costs, and that it goes on where it was broken off."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "motion_ablation.py"
    spec = importlib.util.spec_from_file_location("motion_ablation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["motion_ablation"] = module
    spec.loader.exec_module(module)
    return module


def test_the_blob_moves_as_its_label_says_and_starts_anywhere(ablation: ModuleType) -> None:
    clips, labels = ablation.make_batch(0, 0, 400)
    assert clips.shape == (400, 3, ablation.FRAMES, ablation.SIDE, ablation.SIDE)
    assert float(clips.abs().max()) <= 1
    angle = 2 * np.pi * np.arange(ablation.SIDE) / ablation.SIDE
    contrast = (clips - clips.mean(2, keepdim=True)).abs().mean(1).numpy()  # (b, t, h, w)
    moved = []
    for axis in (2, 3):  # mean place on the ring, along y and x
        phase = np.angle((contrast.sum(5 - axis) * np.exp(1j * angle)).sum(-1))
        moved.append(np.angle(np.exp(1j * (phase[:, -1] - phase[:, 0]))))
    directions = np.array(ablation.DIRECTIONS)[labels.numpy()]
    along = (np.stack(moved, 1) * directions).sum(1)
    assert (along > 0).mean() > 0.95
    first = clips[:, :, 0].std((1, 2, 3)).numpy()
    assert all(abs(first[labels.numpy() == k].mean() - first.mean()) < 0.03 for k in range(4))


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
