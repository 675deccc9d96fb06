from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vidcls.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from vidcls.errors import CheckpointError, ConfigError, OutputError
from vidcls.models import build

TINY = {
    "image_size": 16,
    "num_frames": 4,
    "tubelet_size": (2, 8, 8),
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 2,
}


def tiny(architecture: str = "vivit-fe", **config: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(architecture, **{**TINY, "num_classes": 3, **config})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("vivit-st", {"pool": "gsp", "norm_eps": 1e-5}),
        ("vivit-fe", {"temporal_depth": 2, "temporal_num_heads": 1, "dropout": 0.1}),
        ("vivit-fsa", {"attention_order": "time_space", "image_size": (8, 24)}),
        ("vivit-fdp", {"representation_size": 5}),
    ],
)
def test_round_trip(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    model = tiny(architecture, **config)
    path = tmp_path / "model.safetensors"
    sees = {"num_frames": 4, "image_size": (16, 16), "stride": 3}
    save_checkpoint(model, path, labels=["a", "b", "ü"], input=sees, extra={"note": "mine"})
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.architecture) == ("native", architecture)
    assert checkpoint.labels == ("a", "b", "ü")
    assert checkpoint.input is not None
    assert checkpoint.input["stride"] == 3
    loaded: Any = load_checkpoint(path)
    assert loaded.config == model.config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["vidcls"])["extra"] == {"note": "mine"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_the_bytes(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny()
    save_checkpoint(model, tmp_path / "full")
    save_checkpoint(model, tmp_path / "half", dtype=dtype)
    loaded = load_checkpoint(tmp_path / "half").state_dict()
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.to(dtype).float())
    sizes = [sum(t.nbytes for t in read_checkpoint(tmp_path / n).state.values()) for n in ("full", "half")]
    assert sizes[0] == 2 * sizes[1]


def test_other_views_than_the_files(tmp_path: Path) -> None:
    model = tiny("vivit-fe")
    save_checkpoint(model, tmp_path / "model", input={"num_frames": 4, "image_size": (16, 16), "resize": 18})
    loaded: Any = load_checkpoint(tmp_path / "model", num_frames=8, image_size=(16, 24))
    assert loaded.config.grid_size == (4, 2, 3)
    assert loaded(torch.zeros(1, 3, 8, 16, 24)).shape == (1, 3)
    sees = read_checkpoint(tmp_path / "model", num_frames=8).input
    assert sees is not None
    assert (sees["num_frames"], sees["resize"]) == (8, 18)
    with pytest.raises(CheckpointError, match="has num_heads 2"):
        read_checkpoint(tmp_path / "model", num_heads=4)
    with pytest.raises(CheckpointError, match="holds vivit-fe, not vivit-st"):
        read_checkpoint(tmp_path / "model", "vivit-st")


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(tiny(), path)
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidcls.paths.os.replace", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(tiny(num_classes=4), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_checkpoint(tiny(), tmp_path / "absent" / "model")
    with pytest.raises(CheckpointError, match="not one of vidcls's models"):
        save_checkpoint(torch.nn.Linear(2, 2), tmp_path / "model")
    with pytest.raises(CheckpointError, match="2 labels for a head of 3 classes"):
        save_checkpoint(tiny(), tmp_path / "model", labels=["a", "b"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("{", "metadata is damaged"),
        ("[" * 100_000, "metadata is damaged"),
        ("3", "metadata is damaged"),
        ({"config": 3}, "metadata is damaged"),
        ({"version": 2}, "of version 2"),
        ({"version": None}, "of version None"),
        ({"architecture": "vivit-xl"}, "unknown architecture 'vivit-xl'"),
        ({"architecture": ["vivit-st"]}, "unknown architecture"),
        ({"labels": "abc"}, "labels are not a list"),
        ({"input": []}, "input settings are damaged"),
        ({"config": {"depth": 10**9}}, "claims depth"),
        ({"config": {"embed_dim": 10**12}}, "claims embed_dim"),
        ({"config": {"norm_eps": float("nan")}}, "claims norm_eps"),
    ],
)
def test_hostile_metadata(change: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    good = {"version": 1, "architecture": "vivit-st", "config": {}}
    text = change if isinstance(change, str) else json.dumps({**good, **change})
    save_file({"head.bias": torch.zeros(3)}, path, {"vidcls": text})
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "config",
    [
        {"tubelet_size": 0},
        {"tubelet_size": [2, 16]},
        {"image_size": "wide"},
        {"image_size": None},
        {"embed_dim": 8.5},
        {"embed_dim": -8},
        {"mlp_ratio": -1},
        {"depth": "1"},
        {"dropout": 7},
        {"num_heads": None},
        {"pool": {}},
        {"color": "red"},
    ],
)
def test_configurations_that_make_no_model(config: Any, tmp_path: Path) -> None:
    record = {"version": 1, "architecture": "vivit-st", "config": config}
    save_file({"head.bias": torch.zeros(3)}, tmp_path / "model", {"vidcls": json.dumps(record)})
    for keywords in ({}, {"num_frames": 8}):
        with pytest.raises((CheckpointError, ConfigError)):
            load_checkpoint(tmp_path / "model", **keywords)


def test_claimed_sizes_take_no_memory(tmp_path: Path) -> None:
    """A tiny file that claims a huge model is refused by its tensors before anything is allocated."""
    record = {"version": 1, "architecture": "vivit-st", "config": {"embed_dim": 2**19, "num_heads": 8}}
    save_file({"head.bias": torch.zeros(3)}, tmp_path / "model", {"vidcls": json.dumps(record)})
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(tmp_path / "model")
