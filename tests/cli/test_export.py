"""``vidcls export``: published checkpoints → our own file and the formats of other runtimes, through the command."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors import safe_open
from typer.testing import CliRunner, Result

from tests.checkpoints.vivit_files import scenic_tree, write_msgpack
from tests.cli.test_predict import vidcls
from tests.clips import make_clip
from vidcls.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from vidcls.cli import guard
from vidcls.cli.export import export, parse_size
from vidcls.config import InputSpec
from vidcls.errors import UsageError
from vidcls.inference.load import load


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(guard(export))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def to_safetensors(source: object, target: object, *arguments: object) -> Result:
    return run("--weights", source, "-o", target, "--format", "safetensors", *arguments)


def scenic(path: Path, variant: str = "factorized_encoder", **sizes: Any) -> Path:
    return write_msgpack(path, {"optimizer": {"target": scenic_tree(variant, **sizes)}})


@torch.no_grad()
def test_what_is_written_answers_alike(tmp_path: Path) -> None:
    source, target = scenic(tmp_path / "checkpoint"), tmp_path / "model.safetensors"
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"action {i}" for i in range(5)) + "\n")
    result = to_safetensors(source, target, "--labels", labels)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "vivit-fe from scenic" in result.stderr
    model: Any = load_checkpoint(source)
    views = torch.rand(1, 3, model.config.num_frames, *model.config.image_size)
    torch.testing.assert_close(load_checkpoint(target)(views), model(views), rtol=0, atol=0)
    checkpoint = read_checkpoint(target)
    assert checkpoint.format == "native"
    assert checkpoint.labels == tuple(f"action {i}" for i in range(5))
    stored = InputSpec(**(checkpoint.input or {}))
    with load(source) as classifier:
        assert stored == classifier.spec.input
    found = InputSpec(**(read_checkpoint(source).input or {}))
    assert stored == found.model_copy(update={name: getattr(stored, name) for name in ("num_views", "fps")})
    with safe_open(target, framework="pt") as file:
        extra = json.loads(file.metadata()["vidcls"])["extra"]
    assert extra == {
        "source": "checkpoint",
        "source_format": "scenic",
        "export": {"precision": "fp32", "error": 0.0},
    }
    card = (tmp_path / "model.card.md").read_text()
    assert "vivit-fe, 5 classes" in card
    assert "safetensors, fp32" in card


def test_what_a_file_of_ours_tells_of_itself_is_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "run.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(load_checkpoint(scenic(tmp_path / "checkpoint")), source, extra={"recipe": {"seed": 3}})
    result = to_safetensors(source, target, "--precision", "fp16")
    assert result.exit_code == 0, result.output
    with safe_open(target, framework="pt") as file:
        extra = json.loads(file.metadata()["vidcls"])["extra"]
    export = extra.pop("export")
    assert extra == {"recipe": {"seed": 3}, "source": "run.safetensors", "source_format": "native"}
    assert export["precision"] == "fp16"
    assert 0 < export["error"] < 0.01


def test_what_the_file_leaves_open_can_be_said(tmp_path: Path) -> None:
    source = scenic(tmp_path / "a", "factorized_dot_product_attention", token=False, grid=(3, 5, 2))
    target = tmp_path / "model"
    result = to_safetensors(source, target)
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "num_frames= and image_size=" in result.stderr
    options = [
        "--architecture",
        "vivit-fdp",
        "--frames",
        6,
        "--image-size",
        "20x8",
        "--precision",
        "bf16",
        "--quiet",
    ]
    result = to_safetensors(source, target, *options)
    assert (result.exit_code, result.output) == (0, "")
    model: Any = load_checkpoint(target)
    assert (model.architecture, model.config.grid_size) == ("vivit-fdp", (3, 5, 2))
    assert {t.dtype for t in read_checkpoint(target).state.values()} == {torch.bfloat16}
    three = scenic(tmp_path / "b", "factorized_self_attention_block", token=False)
    assert to_safetensors(three, target, "--attention-order", "time_space", "--overwrite").exit_code == 0
    assert load_checkpoint(target).config.attention_order == "time_space"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["absent", "out"], 3, "absent"),
        (["source", "."], 2, "is a folder"),
        (["source", "nowhere/out"], 3, "cannot be written"),
        (["source", "out", "--source-format", "onnx"], 2, "choose one of"),
        (["source", "out", "--architecture", "vivit-st"], 3, "holds vivit-fe"),
        (["source", "out", "--image-size", "big"], 2, "is not a valid size"),
        (["source", "out", "--heads", "3"], 3, "has num_heads 2"),
        (["source", "out", "--labels", "kinetics400"], 3, "400"),
        (["text", "out"], 3, "not a checkpoint of a known kind"),
        (["source", "source"], 2, "--overwrite"),
        (
            ["source", "out", "--precision", "int8"],
            2,
            "does not exist in safetensors; it has fp32, bf16, fp16",
        ),
        (["source", "out", "--calibrate", "clips"], 2, "goes with int8"),
        (["source", "out", "--truth", "truth.csv"], 2, "--calibrate"),
        (["source", "out", "--fps", "25"], 2, "is not kept in a model"),
        (["source", "out", "--random-weights"], 2, "marks every result"),
        (["source", "out", "--average", "mean"], 2, "logits"),
    ],
)
def test_bad_calls(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scenic(tmp_path / "source")
    (tmp_path / "text").write_text("hello")
    result = to_safetensors(*arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_sizes() -> None:
    assert parse_size(None) is None
    assert parse_size("224") == (224, 224)
    assert parse_size("224x320") == parse_size("224×320") == (224, 320)
    for text in ("", "0", "-1", "1x2x3", "x2", "99999999", "٣"):
        with pytest.raises(UsageError, match="is not a valid size"):
            parse_size(text)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 48, 3), np.uint8)


@pytest.mark.skipif(find_spec("nncf") is None, reason="NNCF is not installed")
def test_int8_is_calibrated_on_clips_and_judged_on_others(tmp_path: Path) -> None:
    weights, clips = tmp_path / "model.safetensors", tmp_path / "clips"
    assert to_safetensors(scenic(tmp_path / "checkpoint"), weights, "--quiet").exit_code == 0
    clips.mkdir()
    for number in range(9):
        make_clip(clips / f"{number}.mp4", noise(number))
    (clips / "broken.mp4").write_bytes(b"no video")
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "path,label\n" + "".join(f"clips/{number}.mp4,class {number % 5}\n" for number in range(9))
    )
    with load(weights, engine="eager") as classifier:
        exact = classifier.predict(clips / "3.mp4").logits
    out = tmp_path / "int8"
    call = ("--weights", weights, "--format", "openvino", "--precision", "int8")
    assert "goes with int8" in run(*call, "-o", out).stderr
    result = run(*call, "--calibrate", clips, "--truth", truth, "--json", "-o", out)
    assert result.exit_code == 0, result.output
    assert "broken.mp4" in result.stderr
    report = json.loads(result.stdout)
    assert (report["clips_for_calibration"], report["clips_for_this_report"]) == (7, 2)
    assert 0 < report["logit_error_mean"] <= report["logit_error_max"] == report["error"]
    assert report["logit_error_max"] < 0.2 * report["logit_range"]
    assert report["same_top1"] == 1.0
    assert report["clips_with_label"] == 2
    assert report["top1_fp32"] == report["top1_int8"]
    # Into the cache, where --precision int8 finds it.
    result = run(*call, "--calibrate", clips / "0.mp4", "--calibrate", clips / "1.mp4", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "same_top1: 1.0" in result.stderr
    for options in ({"weights": out}, {"weights": weights, "precision": "int8"}):
        with load(**options) as classifier:
            assert (classifier.engine.name, classifier.engine.precision) == ("openvino", "int8")
            logits = classifier.predict(clips / "3.mp4").logits
        assert exact is not None
        assert logits is not None
        assert 0 < abs(logits - exact).max() < 0.2 * report["logit_range"]


def test_every_command_takes_an_exported_model(tmp_path: Path) -> None:
    weights, clips, folder = tmp_path / "model.safetensors", tmp_path / "clips", tmp_path / "exported"
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"action {i}" for i in range(5)) + "\n")
    assert to_safetensors(scenic(tmp_path / "checkpoint"), weights, "--labels", labels).exit_code == 0
    assert run("--weights", weights, "--format", "pt2", "-o", folder, "--quiet").output == ""
    for number in range(2):
        (clips / f"action {number}").mkdir(parents=True)
        make_clip(clips / f"action {number}" / "clip.mp4", noise(number))
    with load(weights) as classifier:
        expected = classifier.predict(clips / "action 0" / "clip.mp4")
    rows = tmp_path / "rows.jsonl"
    for command in (
        ("predict", clips / "action 0", "-f", "jsonl", "-o", rows),
        ("score", clips / "action 0", "-o", tmp_path / "scores.jsonl"),
        ("evaluate", "--data", clips, "--json"),
        ("bench", "--seconds", "0", "--json"),
    ):
        done = vidcls(*map(str, command), "--weights", str(folder))
        assert done.returncode == 0, done.stderr.decode()
    for written in (rows, tmp_path / "scores.jsonl"):
        (row,) = map(json.loads, written.read_text().splitlines())
        best = row["predictions"][0]
        assert best["label"] == expected.row["predictions"][0]["label"]
        assert best["score"] == pytest.approx(expected.row["predictions"][0]["score"], abs=1e-4)
        assert row["weights"] == str(folder)
    (measured,) = json.loads(done.stdout)["rows"]
    assert (measured["engine"], measured["precision"], measured["failed"]) == ("pt2", "fp32", None)
    assert measured["error"] < 1e-4
