"""Each setting of a training acts, and a start that fails leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vidcls.errors import ConfigError, DependencyError, UsageError
from vidcls.training.trainer import train
from vidcls.training.validate import Scores

SETTINGS: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.9},
    "layer_decay": {"optimizer": {"layer_decay": 0.3}},
    "precision": {"precision": "bf16"},
    "freeze": {"freeze": ["backbone"]},
    "lora": {"lora": 2},
    "sampler": {"sampler": "balanced"},
    "clip_grad": {"clip_grad": 1e-3},
    "label_smoothing": {"label_smoothing": 0.2},
    "mixup": {"mixup": 0.4},
    "seed": {"seed": 1},
    "flip": {"augment": {"flip": 1.0, "directions_matter": False}},
    "clips_per_epoch": {"clips_per_epoch": 4},
}


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, torch.Tensor]]:
    return {}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_acts(
    name: str, recipe: Any, tmp_path: Path, weights: dict[str, dict[str, torch.Tensor]]
) -> None:
    if not weights:
        plan = recipe(schedule={"epochs": 1})
        weights.update(load_file(train(plan, tmp_path / "plain", device="cpu", quiet=True).weights))  # type: ignore[arg-type]
    plan = recipe(schedule={"epochs": 1}, **SETTINGS[name])
    found = load_file(train(plan, tmp_path / "run", device="cpu", quiet=True).weights)
    assert found.keys() == weights.keys()
    assert any(not torch.equal(tensor, weights[key]) for key, tensor in found.items())  # type: ignore[arg-type]


def test_the_best_epoch_goes_by_the_figure_that_is_named() -> None:
    now, before = {"top1": 0.5, "top5": 0.9, "loss": 0.8}, {"top1": 0.6, "top5": 0.9, "loss": 1.0}
    scores = Scores(now, ())
    assert not scores.better(before, None)
    assert not scores.better(before, "top1")
    assert scores.better(before, "loss")
    assert scores.better(before, "top5")  # equal, and the loss is lower
    assert scores.better(None, "loss")
    assert not Scores({"map": 0.4, "top1": 0.9, "loss": 0.1}, ()).better({"map": 0.5, "loss": 0.2}, None)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": "gone"}, UsageError),
        ({"config": {"num_heads": 5}}, ConfigError),
        ({"freeze": ["x"]}, UsageError),
    ],
)
def test_an_aborted_start_leaves_no_folder(
    recipe: Any, tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        train(recipe(**changes), tmp_path / "new" / "run", device="cpu", quiet=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(error):
        train(recipe(**changes), tmp_path / "old", device="cpu", quiet=True)
    assert (tmp_path / "old").is_dir()


def test_a_service_that_cannot_be_started_is_an_error_in_one_line(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator, tracking

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("no such server\nand more")

    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [tracking.LoggerType.WANDB])
    monkeypatch.setattr(Accelerator, "init_trackers", fail)
    with pytest.raises(
        DependencyError, match=r"tracker=wandb: cannot be started \(RuntimeError: no such server\);"
    ):
        train(recipe(), tmp_path / "run", device="cpu", quiet=True, tracker="wandb")
