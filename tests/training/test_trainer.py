"""The training loop: exact resumption, errors put into words, and that it learns."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.moving import make_folder
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import DependencyError, DeviceError, OutputError, UsageError
from vidcls.training import checkpointing
from vidcls.training.logs import read_metrics
from vidcls.training.prepare import Prepared
from vidcls.training.recipe_file import plan_run, recipe_text
from vidcls.training.runtime import TrainingError
from vidcls.training.trainer import Trainer, train

# Everything that draws at random while training: dropout, stochastic depth, mixup, crops, color; and the mean.
RANDOM: dict[str, Any] = {
    "config": {"dropout": 0.1, "drop_path_rate": 0.2},
    "mixup": 0.2,
    "ema": 0.9,
    "label_smoothing": 0.1,
    "augment": {"color": {}, "randaugment": {"layers": 1, "magnitude": 8}, "scale_jitter": [0.9, 1.33]},
    "save_every": 2,
}
TIMES = ("clips_per_s", "data_wait")


def figures(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what the clock says."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run / "metrics.jsonl")]


def assert_same_run(one: Path, other: Path) -> None:
    for name in (checkpointing.BEST, checkpointing.LAST):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), key
    assert figures(one) == figures(other)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"root": tmp_path_factory.mktemp("runs")}


def test_a_run_broken_off_after_every_step_ends_like_the_unbroken_one(
    recipe: Any, folder: Path, tmp_path: Path
) -> None:
    plan = recipe(**RANDOM, val=str(folder))
    whole = train(plan, tmp_path / "whole", device="cpu", quiet=True)
    assert whole.steps == 6
    stop = threading.Event()
    stop.set()
    for _ in range(whole.steps):
        trainer = Trainer(
            plan, tmp_path / "broken", resume=(tmp_path / "broken").exists(), device="cpu", quiet=True
        )
        with pytest.raises(KeyboardInterrupt):
            trainer.run(stop)
    rest = train(plan, tmp_path / "broken", resume=True, device="cpu", quiet=True)
    assert rest.steps == whole.steps
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from vidcls.training.prepare import Prepared
from vidcls.training.recipe_file import plan_run
from vidcls.training.trainer import train
out = Path(sys.argv[2])
recipe, resuming = plan_run(out, sys.argv[1], {}, [], True)
train(recipe, out, resume=resuming, device="cpu")
"""


def start_run(config: Path, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(config), str(out)], env=environment)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_any_moment_and_resumed_gives_the_same_weights(recipe: Any, tmp_path: Path) -> None:
    config, out = tmp_path / "recipe.yaml", tmp_path / "killed"
    plan = recipe(**RANDOM, schedule={"epochs": 4}, workers=1)
    config.write_text(recipe_text(plan))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(plan, tmp_path / "whole", device="cpu", quiet=True)
    finally:
        torch.set_num_threads(threads)
    state, kills = out / checkpointing.STATE, 0
    # The first kill hits between the first save and the next, the second while files of an epoch's end are written.
    for watched in (state, out / checkpointing.BEST):
        process = start_run(config, out)
        seen = watched.stat().st_mtime_ns if watched.exists() else 0
        while process.poll() is None and not (watched.exists() and watched.stat().st_mtime_ns != seen):
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 2
    process = start_run(config, out)
    assert process.wait() == 0
    assert_same_run(tmp_path / "whole", out)


def test_checkpoints_say_themselves_what_they_are(recipe: Any, tmp_path: Path) -> None:
    plan = recipe(schedule={"epochs": 1})
    result = train(plan, tmp_path / "run", device="cpu", quiet=True)
    checkpoint = read_checkpoint(result.weights)
    assert checkpoint.labels == ("down", "left", "right")
    assert checkpoint.architecture == "vivit-fe"
    assert checkpoint.input is not None
    assert (checkpoint.input["num_frames"], checkpoint.input["stride"]) == (4, 1)
    assert load_checkpoint(result.weights).num_classes == 3
    assert (tmp_path / "run" / "labels.txt").read_text().split() == ["down", "left", "right"]
    assert (tmp_path / "run" / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_accumulated_parts_move_the_weights_as_one_batch(recipe: Any, tmp_path: Path) -> None:
    weights = {}
    for name, part in (("whole", None), ("parts", 1), ("uneven", 3)):
        plan = recipe(schedule={"epochs": 1}, micro_batch=part, optimizer={"name": "sgd", "lr": 0.1})
        weights[name] = load_file(train(plan, tmp_path / name, device="cpu", quiet=True).weights)
    for key, tensor in weights["whole"].items():
        torch.testing.assert_close(weights["parts"][key], tensor, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(weights["uneven"][key], tensor, atol=2e-6, rtol=1e-5)
    assert any((tensor != 0).any() for key, tensor in weights["whole"].items() if key.startswith("head"))


def test_a_loss_that_is_no_number_stops_with_the_last_good_state(recipe: Any, tmp_path: Path) -> None:
    plan = recipe(optimizer={"name": "sgd", "lr": 1e30}, schedule={"warmup_epochs": 1}, save_every=1)
    with pytest.raises(TrainingError, match=r"last save is in place.*lower the learning rate"):
        train(plan, tmp_path / "run", device="cpu", quiet=True)
    state = checkpointing.load_state(tmp_path / "run")
    assert state is not None
    assert state["position"]["step"] >= 1


def test_a_full_disk_stops_with_the_last_good_state(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, save, count = recipe(save_every=1), torch.save, [0]

    def full(content: Any, path: Path) -> None:
        count[0] += 1
        if count[0] == 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match=r"the disk is full \(the last good one is in place\).*resume=True"):
        train(plan, tmp_path / "run", device="cpu", quiet=True)
    monkeypatch.undo()
    state = checkpointing.load_state(tmp_path / "run")
    assert state is not None
    assert state["position"]["step"] == 2
    train(plan, tmp_path / "run", resume=True, device="cpu", quiet=True)
    assert not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_running_out_of_memory_is_said_in_one_line(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from vidcls.models.vivit import FactorizedEncoderViViT

    def forward(*_: Any) -> None:
        raise error

    monkeypatch.setattr(FactorizedEncoderViViT, "forward", forward)
    with pytest.raises(DeviceError, match="set a smaller micro_batch=N"):
        train(recipe(), tmp_path / "run", device="cpu", quiet=True)


def test_bad_clips_are_skipped_counted_and_listed(
    recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "set", 3)
    broken = folder / "left" / "broken.mp4"
    broken.write_bytes(b"this is no video at all")
    plan = recipe(data=str(folder), val=str(folder), schedule={"epochs": 1}, batch_size=10)
    result = train(plan, tmp_path / "run", device="cpu")
    assert result.bad_clips == 1
    assert str(broken) in (tmp_path / "run" / "bad-clips.csv").read_text()
    row = figures(tmp_path / "run")[-1]
    assert row["bad_clips"] == 1
    said = capsys.readouterr().err
    assert said.count(f"skipped {broken}") == 1
    assert "1 bad clips skipped" in said


def test_a_set_of_bad_clips_only_is_an_error(recipe: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.mp4").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="in a row cannot be read"):
        train(recipe(data=str(tmp_path / "set")), tmp_path / "run", device="cpu", quiet=True)


def test_a_run_is_not_overwritten(recipe: Any, tmp_path: Path) -> None:
    train(recipe(schedule={"epochs": 1}), tmp_path / "run", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="already holds a run; continue it with resume=True"):
        train(recipe(schedule={"epochs": 1}), tmp_path / "run", device="cpu", quiet=True)


def test_a_finished_run_says_so_and_can_be_lengthened(
    recipe: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    config = tmp_path / "recipe.yaml"
    config.write_text(recipe_text(recipe(val=str(folder), schedule={"epochs": 1})))
    first = train(plan_run(out, str(config), {}, [], False)[0], out, device="cpu", quiet=True)
    weights = load_file(first.weights)
    capsys.readouterr()
    again = train(plan_run(out, None, {}, [], True)[0], out, resume=True, device="cpu")
    assert (
        "already finished (1 of 1 epochs); train further with resume=True and epochs=2"
        in capsys.readouterr().err
    )
    assert (again.steps, again.scores) == (first.steps, first.scores)
    assert all(torch.equal(weights[key], value) for key, value in load_file(again.weights).items())
    longer, resuming = plan_run(out, None, {"schedule": {"epochs": 3}}, [], True)
    assert resuming
    assert train(longer, out, resume=True, device="cpu", quiet=True).steps == 3 * first.steps
    assert plan_run(out, None, {}, [], True)[0].schedule.epochs == 3
    assert [row["epoch"] for row in figures(out)] == [1, 2, 3]


def test_a_run_that_lost_patience_says_so(
    recipe: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = recipe(val=str(folder), schedule={"epochs": 9}, patience=1, optimizer={"name": "sgd", "lr": 1e-30})
    assert train(plan, tmp_path / "run", device="cpu").steps == 6
    assert "stopping early: no better validation in the last 1 epochs" in capsys.readouterr().err
    assert train(plan, tmp_path / "run", resume=True, device="cpu").steps == 6
    assert "train further with resume=True and settings='patience=2'" in capsys.readouterr().err


def test_fine_tuning_says_that_the_head_is_new(
    recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(recipe(schedule={"epochs": 1}), tmp_path / "one", device="cpu", quiet=True)
    two = make_folder(tmp_path / "set", 2, directions={"down": (2, 0), "up": (-2, 0)})
    capsys.readouterr()
    pytest.importorskip("vidcls.zoo.weights")
    plan = recipe(
        data=str(two), init={"from": str(first.weights)}, schedule={"epochs": 1}, freeze=["backbone"]
    )
    second = train(plan, tmp_path / "two", device="cpu")
    assert "new head for 2 classes: down, up" in capsys.readouterr().err
    old, new = load_file(first.weights), load_file(second.weights)
    assert all(torch.equal(old[key], new[key]) for key in old if not key.startswith("head"))
    assert new["head.weight"].shape[0] == 2


def test_a_balanced_run_can_be_resumed(recipe: Any, tmp_path: Path) -> None:
    plan = recipe(sampler="balanced", class_weights="balanced", schedule={"epochs": 1})
    train(plan, tmp_path / "whole", device="cpu", quiet=True)
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        Trainer(plan, tmp_path / "broken", device="cpu", quiet=True).run(stop)
    train(plan, tmp_path / "broken", resume=True, device="cpu", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    plain = train(recipe(schedule={"epochs": 1}), tmp_path / "plain", device="cpu", quiet=True)
    assert (
        load_file(plain.weights)["head.bias"]
        .ne(load_file(tmp_path / "whole" / checkpointing.BEST)["head.bias"])
        .any()
    )


@pytest.mark.parametrize("given", [{}, {"directions_matter": False}])
def test_clips_of_directions_are_not_mirrored_unasked(
    recipe: Any, given: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    """The classes are called down, left and right."""
    plan = recipe()
    plan = plan.model_copy(update={"augment": type(plan.augment).model_validate(given)})
    prepared = Prepared(plan, "cpu")
    assert prepared.recipe.augment.directions_matter is not bool(given)
    assert prepared.loader.dataset.augment.directions_matter is not bool(given)  # type: ignore[attr-defined]
    assert ("clips are not mirrored" in capsys.readouterr().err) is not bool(given)


def test_several_heads_share_one_layer(recipe: Any, folder: Path, tmp_path: Path) -> None:
    """Epic Kitchens' form: a noun and a verb for each clip, the loss the mean of both."""
    rows = [f"{path},{path.parent.name},{int(path.stem) % 2}" for path in sorted(folder.rglob("*.mp4"))]
    (tmp_path / "list.csv").write_text("path,noun,verb\n" + "\n".join(rows) + "\n")
    data = str(tmp_path / "list.csv")
    plan = recipe(data=data, val=data, heads={"noun": 3, "verb": 2}, schedule={"epochs": 1})
    result = train(plan, tmp_path / "run", device="cpu", quiet=True)
    assert load_checkpoint(result.weights).num_classes == 5
    assert result.scores is not None
    assert {"top1", "top5", "head0_top1", "head1_top1"} <= set(result.scores)
    assert result.scores["top1"] <= min(result.scores["head0_top1"], result.scores["head1_top1"])


def test_metrics_are_rows_of_json(recipe: Any, folder: Path, tmp_path: Path) -> None:
    train(recipe(val=str(folder)), tmp_path / "run", device="cpu", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    wanted = {
        "train_loss",
        "train_top1",
        "val_loss",
        "val_top1",
        "val_top5",
        "val_mean_class",
        "lr",
        "clips_per_s",
    }
    assert wanted <= set(rows[-1])


def test_metrics_go_to_a_service_of_accelerate(
    recipe: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import tracking

    seen: list[tuple[str, Any]] = []

    class Recorder(tracking.GeneralTracker):  # type: ignore[misc]
        name, requires_logging_directory = "wandb", False
        tracker = None

        def __init__(self, run_name: str, **_: Any) -> None:
            super().__init__()
            seen.append(("name", run_name))

        def start(self) -> None:
            pass

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            seen.append(("config", values))

        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            seen.append(("row", (step, values)))

        def finish(self) -> None:
            seen.append(("end", None))

    out = tmp_path / "run"
    with pytest.raises(UsageError, match=r"'wandd' is not known, did you mean 'wandb'\?"):
        train(recipe(), out, device="cpu", tracker="wandd")
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(DependencyError, match="pip install wandb"):
        train(recipe(), out, device="cpu", tracker="wandb")
    assert not out.exists()  # nothing was begun
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    for module in (tracking, __import__("accelerate.accelerator").accelerator):
        monkeypatch.setattr(module, "LOGGER_TYPE_TO_CLASS", tracking.LOGGER_TYPE_TO_CLASS)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [tracking.LoggerType.WANDB])
    train(recipe(val=str(folder)), out, device="cpu", quiet=True, tracker="wandb")
    assert [kind for kind, _ in seen] == ["name", "config", "row", "row", "end"]
    assert seen[1][1]["optimizer.lr"] == 1e-3
    rows = figures(out)
    for (_, (step, values)), row in zip(seen[2:4], rows, strict=True):
        assert step == row["step"]
        assert values["val_top1"] == row["val_top1"]


def test_tiny_factorized_encoder_learns_three_classes(tmp_path: Path) -> None:
    """A folder of three classes, at least 95 % on clips it has not seen: must show 3."""
    from vidcls.training.recipe import Recipe

    data = make_folder(tmp_path / "train", 24, seed=1)
    val = make_folder(tmp_path / "val", 20, seed=2)
    plan = Recipe.model_validate(
        {
            "model": "vivit-fe-tiny",
            "data": str(data),
            "val": str(val),
            "config": {"pool": "gap"},
            "input": {"num_frames": 8, "stride": 1},
            "init": {"from": "none", "whiten": 64},
            "optimizer": {"lr": 2e-3, "weight_decay": 0.05, "decay_all": False},
            "schedule": {"epochs": 15, "warmup_epochs": 1},
            "batch_size": 8,
            "clip_grad": 1.0,
            "augment": {"directions_matter": True},
            "workers": 1,
        }
    )
    result = train(plan, tmp_path / "run", device="cpu", quiet=True)
    assert result.scores is not None
    assert result.scores["top1"] >= 0.95
