"""A model whose scores are not numbers labels nothing: its clips fail, each by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.in_process import run_cli
from tests.clips import make_clip
from tests.score import faults
from vidcls import load
from vidcls.errors import DeviceError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model with NaN in its head."""
    made = faults.make_checkpoint(tmp_path / "whole.safetensors")
    with safe_open(made, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(made)
    tensors["head.weight"] = torch.full_like(tensors["head.weight"], float("nan"))
    save_file(tensors, tmp_path / "broken.safetensors", metadata)
    return tmp_path / "broken.safetensors"


def test_each_command_says_so(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4", 40, size=(48, 64))
    (tmp_path / "clips" / "labels.csv").write_text("path,label\na.mp4,label 0\n")
    clips, how = str(tmp_path / "clips"), ("--weights", str(weights), "--engine", "eager")
    predicted = run_cli("predict", f"{clips}/a.mp4", *how, "-f", "json")
    scored = run_cli("score", clips, *how, "-o", str(tmp_path / "rows.jsonl"))
    for done, text in ((predicted, predicted.stdout), (scored, (tmp_path / "rows.jsonl").read_text())):
        assert done.returncode == 1, done.stderr
        row = json.loads(text.splitlines()[-1]) if text.startswith('{"') else json.loads(text)
        assert "gives scores that are not numbers" in json.dumps(row)
        assert '"rank"' not in json.dumps(row)
    evaluated = run_cli("evaluate", "--data", clips, *how)
    assert evaluated.returncode == 2
    assert "please report" not in evaluated.stderr
    assert "gives scores that are not numbers" in evaluated.stderr
    assert "Traceback" not in evaluated.stderr


def test_an_engine_is_not_blamed_for_the_weights(weights: Path) -> None:
    pytest.importorskip("openvino")
    with (
        load(weights=weights, engine="openvino", device="cpu") as model,
        pytest.raises(DeviceError) as caught,
    ):
        model.engine.prepare()
    assert "gives outputs that are not numbers in float32" in str(caught.value)
