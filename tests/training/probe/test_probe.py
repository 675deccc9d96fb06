"""`vidcls train --probe` from a folder of clips to a checkpoint that every command takes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tests.clips import make_clip
from tests.inference.test_embed import embedder_of
from tests.training.moving import make_folder
from vidcls.checkpoints import read_checkpoint
from vidcls.errors import UsageError
from vidcls.inference.embed import Embedder
from vidcls.inference.load import load
from vidcls.score.pipeline import Pipeline
from vidcls.training.probe.figures import Figures, SeveralFigures
from vidcls.training.probe.run import ProbeResult, train_probe
from vidcls.training.recipe import Recipe


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("probe") / "set", 6)


def probe(data: Path, out: Path, **changes: Any) -> ProbeResult:
    settings = {"model": "camera-motion", "data": str(data), "input": {"num_views": 2}, **changes}
    return train_probe(Recipe.model_validate(settings), out, device="cpu", quiet=True)


def test_the_checkpoint_predicts_what_the_probe_does(clips: Path, tmp_path: Path) -> None:
    result = probe(clips, tmp_path / "run")
    checkpoint = read_checkpoint(result.weights)
    assert checkpoint.labels == ("down", "left", "right")
    embedder = embedder_of("camera-motion", num_views=2)
    with load(result.weights, engine="eager", precision="fp32", device="cpu") as model:
        assert model.spec.input.num_views == 2
        for path in sorted(clips.rglob("*.mp4"))[::5]:
            prediction = model.predict(path)
            logits = result.probe.logits(embedder.embed(path).vectors[None])[0]
            np.testing.assert_allclose(prediction.logits, logits, atol=1e-5)
            assert prediction.row["predictions"][0]["label"] == path.parent.name


def test_the_run_says_how_good_it_is(clips: Path, tmp_path: Path) -> None:
    result = probe(clips, tmp_path / "run")
    figures = result.figures
    assert isinstance(figures, Figures)
    assert figures.method == "5-fold cross-validation"
    assert figures.clips == figures.groups == 18
    assert figures.accuracy >= 0.9  # the bundled model sees pans
    assert figures.interval[0] < figures.accuracy <= figures.interval[1]
    record = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert record["figures"]["accuracy"] == figures.accuracy
    assert record["labels"] == ["down", "left", "right"]
    rows = list(csv.reader((tmp_path / "run" / "confusion.csv").read_text().splitlines()))
    assert rows[0] == ["true label", "down", "left", "right"]
    assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == 18


def test_a_validation_set_takes_the_place_of_cross_validation(clips: Path, tmp_path: Path) -> None:
    val = make_folder(tmp_path / "val", 2, seed=9)
    figures = probe(clips, tmp_path / "run", val=str(val)).figures
    assert isinstance(figures, Figures)
    assert (figures.method, figures.clips) == ("validation set", 6)


def test_the_second_run_embeds_only_what_is_new(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "set"
    shutil.copytree(clips, data)
    seen: list[str] = []
    real = Embedder.read

    def read(self: Embedder, clip: Any, *more: Any) -> Any:
        seen.append(Path(clip).name)
        return real(self, clip, *more)

    monkeypatch.setattr(Embedder, "read", read)
    first = probe(data, tmp_path / "one")
    assert len(seen) == 18
    again = probe(data, tmp_path / "two")
    assert len(seen) == 18
    assert np.array_equal(first.probe.weight, again.probe.weight)
    shutil.copytree(data / "left", data / "other")
    (data / "other" / "5.mp4").unlink()
    wider = probe(data, tmp_path / "three")
    assert len(seen) == 18 + 5
    assert read_checkpoint(wider.weights).labels == ("down", "left", "other", "right")


def test_mirrored_views_are_learned_from_where_flips_are_asked_for(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Left and right mirrored are each other: learned from mirrored views they cannot be told apart."""
    plain = probe(clips, tmp_path / "plain")
    flipped = probe(clips, tmp_path / "flipped", augment={"flip": 0.5, "directions_matter": False})
    refused = probe(clips, tmp_path / "refused", augment={"flip": 0.5, "directions_matter": True})
    asked: dict[str, Any] = {"model": "camera-motion", "data": str(clips), "input": {"num_views": 2}}
    unsaid = Recipe.model_validate({**asked, "augment": {"flip": 0.5}})
    noticed = train_probe(unsaid, tmp_path / "noticed", device="cpu")
    assert "classes speak of directions ('left', 'right'): clips are not mirrored" in capsys.readouterr().err
    assert np.array_equal(plain.probe.weight, noticed.probe.weight)
    assert isinstance(plain.figures, Figures)
    assert isinstance(flipped.figures, Figures)
    assert flipped.figures.accuracy < plain.figures.accuracy
    assert np.array_equal(plain.probe.weight, refused.probe.weight)


def test_bad_clips_are_left_out_and_listed(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set"
    shutil.copytree(clips, data)
    (data / "left" / "broken.mp4").write_bytes(b"this is no video at all")
    result = probe(data, tmp_path / "run")
    assert result.bad_clips == 1
    assert isinstance(result.figures, Figures)
    assert result.figures.clips == 18
    assert "broken.mp4" in (tmp_path / "run" / "bad-clips.csv").read_text()
    assert capsys.readouterr().err.count("broken.mp4") == 1


def test_what_cannot_be_probed_is_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "a").mkdir(parents=True)
    make_clip(tmp_path / "one" / "a" / "1.mp4", 5)
    with pytest.raises(UsageError, match="all clips are of one class"):
        probe(tmp_path / "one", tmp_path / "run")
    with pytest.raises(UsageError, match="one label each"):
        train_probe(Recipe(model="camera-motion", data="synthetic:camera-motion"), tmp_path / "run")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "state.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="holds a training run"):
        probe(clips, tmp_path / "trained")


def test_several_labels(clips: Path, tmp_path: Path) -> None:
    labels = {"down": "vertical", "left": "horizontal|leftward", "right": "horizontal"}
    rows = [f"{clip},{labels[clip.parent.name]}" for clip in sorted(clips.rglob("*.mp4"))]
    (tmp_path / "list.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    result = probe(tmp_path / "list.csv", tmp_path / "run")
    figures = result.figures
    assert isinstance(figures, SeveralFigures)
    assert figures.map > 0.9
    assert [(one.label, one.clips) for one in figures.classes] == [
        ("horizontal", 12),
        ("leftward", 6),
        ("vertical", 6),
    ]
    table = (tmp_path / "run" / "classes.csv").read_text().splitlines()
    assert table[0].startswith("label,clips,average_precision")
    assert len(table) == 4
    embedder = embedder_of("camera-motion", num_views=2)
    with load(result.weights, engine="eager", precision="fp32", device="cpu") as model:
        for path in sorted(clips.rglob("*.mp4"))[::5]:
            prediction = model.predict(path)
            logits = result.probe.logits(embedder.embed(path).vectors[None])[0]
            np.testing.assert_allclose(prediction.logits, logits, atol=1e-5)
            np.testing.assert_allclose(prediction.scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("attentive", [False, True])
def test_an_aborted_start_leaves_no_folder(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attentive: bool
) -> None:
    with pytest.raises(UsageError):
        probe(tmp_path / "gone", tmp_path / "new" / "run", attentive=attentive)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(UsageError):
        probe(tmp_path / "gone", tmp_path / "old", attentive=attentive)
    assert (tmp_path / "old").is_dir()

    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Embedder, "read", interrupt)
    monkeypatch.setattr(Pipeline, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        probe(clips, tmp_path / "new", attentive=attentive, input={"stride": 3})
    assert not (tmp_path / "new").exists()


def test_a_registry_name_as_initial_weights(clips: Path, tmp_path: Path) -> None:
    by_name = probe(clips, tmp_path / "one", model=None, init={"from": "camera-motion"})
    assert np.array_equal(by_name.probe.weight, probe(clips, tmp_path / "two").probe.weight)


def test_one_clip_a_class_is_enough_to_fit(tmp_path: Path) -> None:
    result = probe(make_folder(tmp_path / "set", 1), tmp_path / "run")
    assert result.figures is None
    assert read_checkpoint(result.weights).labels == ("down", "left", "right")


def test_a_class_of_one_clip_is_named_and_the_others_are_measured(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lone = make_folder(tmp_path / "lone", 1) / "down"
    rows = [f"{p},{p.parent.name}" for p in sorted(clips.glob("*/*.mp4"))]
    rows += [f"{p},run fast" for p in lone.glob("*.mp4")]
    (tmp_path / "one.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    settings = {"model": "camera-motion", "data": str(tmp_path / "one.csv"), "folds": 30}
    found = train_probe(Recipe.model_validate(settings), tmp_path / "run", device="cpu").figures
    assert isinstance(found, Figures)
    assert (found.clips, found.method) == (18, "6-fold cross-validation")
    printed = capsys.readouterr().err
    assert "class 'run fast' has 1 clip: not measured" in printed
    assert "6 folds, not 30: the smallest class that can be measured is of 6 sources" in printed


def test_a_clip_in_both_sets_is_counted_once(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"model": "camera-motion", "data": str(clips), "val": str(clips)}
    for _ in range(2):
        train_probe(Recipe.model_validate(settings), tmp_path / "run", device="cpu")
    counts = re.findall(r"embedded (\d+) clips in .* s, (\d+) were in the cache", capsys.readouterr().err)
    assert [int(made) + int(found) for made, found in counts] == [18, 18]


def test_the_command(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    arguments = [
        "train",
        str(clips),
        "--probe",
        "-m",
        "camera-motion",
        "--views",
        "1",
        "-o",
        str(tmp_path / "run"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "run" / "best.safetensors")
    assert "accuracy" in done.stderr
    refused = CliRunner().invoke(app, ["train", str(clips), "--views", "2", "-o", str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "--probe" in refused.stderr
    checked = CliRunner().invoke(
        app, ["train", str(clips), "--probe", "--check", "-o", str(tmp_path / "other")]
    )
    assert checked.stdout == "id\ttrain\tlabel\n0\t6\tdown\n1\t6\tleft\n2\t6\tright\n"
    assert not (tmp_path / "other").exists()
    twice = CliRunner().invoke(app, ["train", str(clips), "--data", "x", "-o", str(tmp_path / "other")])
    assert twice.exit_code == 2
    assert "--data: is given twice" in twice.stderr
