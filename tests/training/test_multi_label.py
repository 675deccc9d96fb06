"""Clips with several labels: lists, training, prediction, scores and evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vidcls
from vidcls.checkpoints import read_checkpoint
from vidcls.cli.app import app
from vidcls.errors import UsageError
from vidcls.evaluation.multi_label import average_precision, best_threshold, make_report
from vidcls.training.data.forms import several_labels
from vidcls.training.data.listing import read_listing
from vidcls.training.data.sets import load_data
from vidcls.training.losses import balanced_positives, multi_label_loss
from vidcls.training.setup import find_model
from vidcls.training.splitting import write_split
from vidcls.training.trainer import train

LABELS = {"down": "vertical", "left": "horizontal|leftward", "right": "horizontal"}


@pytest.fixture(scope="module")
def listed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "list.csv"
    rows = [f"{clip},{LABELS[clip.parent.name]}" for clip in sorted(folder.rglob("*.mp4"))]
    path.write_text("path,labels\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def run(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on clips with several labels."""
    from vidcls.training.recipe import Recipe

    plan = Recipe.model_validate(
        {
            "model": "vivit-fe-tiny",
            "data": str(listed),
            "config": {"embed_dim": 16, "depth": 1, "temporal_depth": 1, "num_heads": 2},
            "input": {"num_frames": 4, "stride": 1, "fps": None, "num_views": 1},
            "init": {"from": "none"},
            "schedule": {"epochs": 2},
            "class_weights": "balanced",
            "mixup": 0.2,
            "batch_size": 4,
            "workers": 0,
        }
    )
    return train(plan, tmp_path_factory.mktemp("runs") / "run", device="cpu", quiet=True).folder


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("run|jump", ("run", "jump")),
        (" run | jump |run", ("run", "jump")),
        ("3 7 12", ("3", "7", "12")),
        ("high jump", ("high jump",)),
        ("", ()),
    ],
)
def test_labels_in_one_cell(text: str, labels: tuple[str, ...]) -> None:
    assert several_labels(text) == labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "path,labels\na.mp4,run|jump\nb.mp4,jump\nc.mp4,\n"),
        ("l.csv", "a.mp4,run|jump\nb.mp4,jump\nc.mp4,\n"),
        ("l.csv", "path;label\na.mp4;run|jump\nb.mp4;jump\nc.mp4;\n"),
        ("l.csv", "path,label\na.mp4,run\na.mp4,jump\nb.mp4,jump\nc.mp4,\n"),
    ],
)
def test_lists_of_several_labels(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_listing(tmp_path / name, multi_label="labels" not in text)
    assert found.several
    assert not found.problems
    assert [sample.labels for sample in found.samples] == [("run", "jump"), ("jump",), ()]


def test_mmaction2_lists_of_several_numbers(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a.mp4 0 3\nb.mp4 3\n")
    found = read_listing(tmp_path / "l.txt", multi_label=True)
    assert [sample.labels for sample in found.samples] == [("0", "3"), ("3",)]
    with pytest.raises(UsageError, match="multi_label=True if clips have several labels"):
        read_listing(tmp_path / "l.txt")


def test_a_split_is_stratified_by_each_label(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i}.mp4").write_bytes(b"x")
    rows = "".join(f"{i}.mp4,{'a|b' if i % 2 else 'a'}\n" for i in range(40))
    (tmp_path / "list.csv").write_text(f"path,labels\n{rows}")
    found = write_split(str(tmp_path / "list.csv"), tmp_path / "lists", 0.2)
    val = read_listing(found.val)
    assert val.several
    assert 3 <= sum("b" in sample.labels for sample in val.samples) <= 5
    assert 7 <= found.sizes[1] <= 9


def test_loss_is_pytorchs() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4), torch.randint(0, 2, (6, 4))
    loss, right = multi_label_loss(logits, labels)
    wanted = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), labels.float())
    torch.testing.assert_close(loss, wanted)
    assert right.tolist() == [float(labels[i, logits[i].argmax()]) for i in range(6)]
    torch.testing.assert_close(balanced_positives([(0,), (0, 1), ()], 3), torch.tensor([0.5, 2.0, 1.0]))


def test_average_precision_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 20, (200, 5)) / 20, rng.random((200, 5)) < 0.3
    for k in range(5):
        wanted = metrics.average_precision_score(truth[:, k], scores[:, k])
        assert average_precision(scores[:, k], truth[:, k]) == pytest.approx(wanted)
    truth[:, 4] = False
    report = make_report(scores, truth, list("abcde"))
    assert report.classes[4].average_precision is None
    assert report.map == pytest.approx(metrics.average_precision_score(truth[:, :4], scores[:, :4]))
    micro = metrics.precision_recall_fscore_support(truth, scores > 0.5, average="micro")[:3]
    assert (report.precision, report.recall, report.f1) == pytest.approx(micro)


def test_the_best_epoch_is_chosen_by_a_figure(run: Path, listed: Path, recipe: Any, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if "epoch" in row]
    assert all({"val_map", "val_top1", "val_loss"} <= set(row) for row in epochs)
    best = read_checkpoint(run / "best.safetensors")
    assert best.labels == ("horizontal", "leftward", "vertical")
    assert best.input is not None
    assert best.input["activation"] == "sigmoid"
    assert read_listing(run / "val.csv").several
    with pytest.raises(UsageError, match=r"no figure 'mean_class' here; choose from top1, loss, map"):
        train(recipe(data=str(listed), val=str(listed), best="mean_class"), tmp_path / "run", device="cpu")


def test_scores_are_each_by_itself(run: Path, folder: Path, tmp_path: Path) -> None:
    clip = next(folder.rglob("*.mp4"))
    with vidcls.load(run / "best.safetensors", engine="eager", precision="fp32", device="cpu") as model:
        prediction = model.predict(clip)
    scores = {p["label"]: p["score"] for p in prediction.row["predictions"]}
    wanted = 1 / (1 + np.exp(-np.asarray(prediction.logits, np.float64)))
    assert [scores[name] for name in ("horizontal", "leftward", "vertical")] == pytest.approx(
        wanted, abs=1e-6
    )
    words = ["score", str(folder), "-o", str(tmp_path / "rows.jsonl"), "--all-scores", "-q"]
    done = CliRunner().invoke(app, [*words, "--weights", str(run / "best.safetensors")])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    mine = next(row for row in rows if row["path"] == str(clip))
    assert mine["scores"] == pytest.approx(wanted, abs=1e-4)


def test_evaluate_says_the_mean_average_precision(run: Path, listed: Path, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    out = tmp_path / "report"
    words = ["evaluate", "--weights", str(run / "best.safetensors"), "--data", str(listed), "-o", str(out)]
    done = CliRunner().invoke(app, [*words, "-q"])
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    assert "mAP" in (out / "report.html").read_text()
    rows = {
        row["path"]: row["scores"] for row in map(json.loads, (out / "scores.jsonl").read_text().splitlines())
    }
    samples = read_listing(listed).samples
    truth = [[name in sample.labels for name in report["labels"]] for sample in samples]
    wanted = metrics.average_precision_score(truth, [rows[sample.path] for sample in samples])
    assert report["map"] == pytest.approx(wanted, abs=1e-6)
    assert f"mAP {wanted:.2%}" in " ".join(done.stdout.split())
    with (out / "classes.csv").open() as file:
        assert [row["clips"] for row in csv.DictReader(file)] == ["8", "4", "4"]


def test_what_several_labels_exclude_is_refused(listed: Path, recipe: Any, tmp_path: Path) -> None:
    plan = recipe(data=str(listed), sampler="balanced")
    assert load_data(plan, find_model(plan)).several
    with pytest.raises(UsageError, match="balanced needs clips of one label each"):
        train(plan, tmp_path / "run", device="cpu", quiet=True)


def test_the_best_threshold_is_that_of_the_highest_f1() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(30) < 0.4
        scores = np.round(np.clip(0.4 * truth + rng.random(30) * 0.6, 0, 1), 1)  # with ties
        threshold, best = best_threshold(scores, truth)
        assert threshold is not None
        assert best == pytest.approx(f1_score(truth, scores > threshold))
        assert best == pytest.approx(max(f1_score(truth, scores > one) for one in np.arange(-0.05, 1, 0.1)))
    assert best_threshold(scores, np.zeros(30, bool)) == (None, None)
