"""Folders of Hugging Face and timm, the files beside the weights, and folders that training runs leave.

A weights file that is named itself is read with the configuration beside it, so that sizes, labels, mean and standard
deviation are the same as when the folder is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vidcls.checkpoints.base import Raw
from vidcls.errors import CheckpointError, first_line

MAX_JSON_BYTES = 16 << 20
MAX_SHARDS = 1000

ORBAX_NAMES = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "_sharding")

# In the order in which the libraries look for them.
HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
TIMM_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".bin")

Opener = Callable[[Path], dict[str, Tensor]]
"""Reads the tensors of one weights file."""


def open_folder(path: Path, open_tensors: Opener) -> Raw:
    """Read a folder with ``config.json`` and weights.

    Raises:
        CheckpointError: It is another kind of folder, or incomplete.
    """
    if (path / "config.json").is_file():
        config = read_json(path / "config.json")
        kind = _kind(config)
        files = _hf_shards(path) if kind == "hf" else [_timm_weights(path)]
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors.update(open_tensors(file))
        return Raw(path, kind, tensors, _settings(path, config))
    if any((path / name).exists() or (path / "default" / name).exists() for name in ORBAX_NAMES):
        raise CheckpointError(
            str(path),
            "an Orbax checkpoint folder, which only JAX's own tools can read",
            "restore it with orbax.checkpoint, then save its params with flax.serialization.to_bytes",
        )
    raise CheckpointError(str(path), "a folder without config.json", _what_to_give(path))


def with_config_beside(raw: Raw) -> Raw:
    """A weights file together with the ``config.json`` beside it, where that describes it; else the file itself."""
    folder = raw.path.parent
    if raw.kind not in ("torch", "safetensors") or not (folder / "config.json").is_file():
        return raw
    usual = raw.path.name in (*HF_WEIGHTS, *TIMM_WEIGHTS)
    if not usual and _weights_in(folder) != [raw.path]:
        return raw
    config = read_json(folder / "config.json")
    if not {"model_type", "architecture", "pretrained_cfg"} & config.keys():
        return raw
    return replace(raw, kind=_kind(config), meta=_settings(folder, config))


def _kind(config: dict[str, Any]) -> Literal["hf", "timm"]:
    is_timm = "model_type" not in config and bool({"architecture", "pretrained_cfg"} & config.keys())
    return "timm" if is_timm else "hf"


def _settings(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {"config": config, "preprocessor": _preprocessor(folder) if _kind(config) == "hf" else {}}


def _preprocessor(folder: Path) -> dict[str, Any]:
    """How the folder prepares a video, from the first of its files that says so; empty where none does.

    transformers 5 looks in this order, ``video_processing_utils.BaseVideoProcessor.get_video_processor_dict``.
    """

    def content(name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).is_file() else {}

    both = content("processor_config.json")
    for found in (
        both.get("video_processor"),
        content("video_preprocessor_config.json"),
        both.get("image_processor"),
        content("preprocessor_config.json"),
        both if {"image_processor_type", "video_processor_type"} & both.keys() else None,
    ):
        if isinstance(found, dict) and found:
            return found
    return {}


def _hf_shards(folder: Path) -> list[Path]:
    for name in HF_WEIGHTS:
        file = folder / name
        if not file.is_file():
            continue
        if not name.endswith(".json"):
            return [file]
        shards = read_json(file).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise CheckpointError(str(file), "no weight_map of file names", "fetch the file again")
        names = list(dict.fromkeys(shards.values()))
        if len(names) > MAX_SHARDS:
            raise CheckpointError(
                str(file), f"names {len(names)} files of weights", "check that it is a checkpoint"
            )
        return [_shard(folder, shard) for shard in names]
    raise CheckpointError(
        str(folder),
        "a model folder without weights",
        _what_to_give(folder, "fetch model.safetensors (or pytorch_model.bin) into it"),
    )


def _shard(folder: Path, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or "\\" in name or ":" in name:
        raise CheckpointError(
            str(folder), f"its index names a file outside the folder ({name!r})", "fetch it again"
        )
    if not (folder / name).is_file():
        raise CheckpointError(str(folder), f"shard {name} is missing", "fetch the whole folder")
    return folder / name


def _timm_weights(folder: Path) -> Path:
    """The file that timm would load: one of the usual names, else the first that looks like weights."""
    found = [folder / name for name in TIMM_WEIGHTS if (folder / name).is_file()] or _weights_in(folder)
    if not found:
        raise CheckpointError(str(folder), "a timm folder without weights", "fetch model.safetensors into it")
    return found[0]


def _weights_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(TIMM_SUFFIXES) and path.is_file())


def _what_to_give(folder: Path, otherwise: str = "") -> str:
    """The remedy for a folder that holds no model: the newest checkpoint of a Trainer's run, where there is one."""
    runs = [path.parent for path in folder.glob("checkpoint-*/config.json")]
    steps = {int(path.name.rpartition("-")[2]): path for path in runs if path.name[11:].isdecimal()}
    if steps:
        return f"it is a Trainer's run; give one of its {len(steps)} checkpoints, such as {steps[max(steps)]}"
    weights = _weights_in(folder)
    if weights:
        return f"give the weights file itself, such as {weights[0]}"
    return otherwise or "give a Hugging Face model folder, or the weights file itself"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size.

    Raises:
        CheckpointError: Too large, not JSON, or not an object.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(str(path), "too large for a configuration file", "fetch it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(str(path), f"not valid JSON ({first_line(error)})", "fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(str(path), "not a JSON object", "fetch it again")
    return content
