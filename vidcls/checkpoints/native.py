"""vidcls's own format: a self-describing safetensors file (see `vidcls.checkpoints.metadata`)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidcls.checkpoints.base import Checkpoint, Raw
from vidcls.checkpoints.metadata import KEY, VERSION, parse_record
from vidcls.checkpoints.resizing import finish, split_keywords
from vidcls.errors import CheckpointError, OutputError, system_errors
from vidcls.models import ARCHITECTURES
from vidcls.paths import replacing

NAME = "native"


def matches(raw: Raw) -> bool:
    """Whether the file's metadata says that vidcls wrote it."""
    return raw.kind == "safetensors" and KEY in raw.meta


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a file that `save_checkpoint` wrote.

    ``num_frames`` and ``image_size`` may differ from the file's; position embeddings are then interpolated
    (`vidcls.checkpoints.resizing`), and a note says so.

    Raises:
        CheckpointError: The metadata is damaged or of a newer version, or a keyword contradicts it.
    """
    record = parse_record(raw.meta[KEY], raw.error)
    found = record["architecture"]
    raw.expect(architecture, found)
    stored, wanted = split_keywords(raw, found, record["config"], config)
    checkpoint = finish(
        raw,
        NAME,
        found,
        stored,
        wanted,
        raw.tensors,
        labels=tuple(record["labels"]) if record.get("labels") is not None else None,
        input=record.get("input"),
    )
    extra = record.get("extra")
    return replace(checkpoint, extra=extra) if isinstance(extra, dict) else checkpoint


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    input: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model to our own self-describing safetensors file; the file appears whole or not at all.

    Args:
        model: One of `vidcls.models.ARCHITECTURES`.
        path: The file to write; one that exists is replaced.
        labels: One name per class.
        input: Fields of `vidcls.config.InputSpec`: how the model sees a video.
        extra: Anything else that JSON can hold, such as where the weights come from.
        dtype: Store floating-point tensors in this type, such as ``torch.bfloat16``; None keeps theirs. Loading
            always gives float32.

    Raises:
        CheckpointError: The model is of no known architecture, or the labels do not fit its head.
        OutputError: The file cannot be written.
    """
    architecture = getattr(model, "architecture", None)
    if architecture not in ARCHITECTURES:
        raise CheckpointError(str(path), f"{type(model).__name__} is not one of vidcls's models", "")
    num_classes = getattr(model, "num_classes", None)
    if labels is not None and num_classes is not None and len(labels) != num_classes:
        raise CheckpointError(
            str(path), f"{len(labels)} labels for a head of {num_classes} classes", "give one label per class"
        )
    record = {
        "version": VERSION,
        "architecture": architecture,
        "config": asdict(model.config),  # type: ignore[call-overload] # nn.Module types attributes as tensors
        "labels": list(labels) if labels is not None else None,
        "input": dict(input) if input is not None else None,
        "extra": dict(extra) if extra is not None else None,
    }
    text = json.dumps({key: value for key, value in record.items() if value is not None}, ensure_ascii=False)
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    _write_atomically(tensors, {"format": "pt", KEY: text}, Path(path))


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.contiguous().clone()  # safetensors refuses tensors that share memory


def _write_atomically(tensors: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    refused = system_errors(OutputError, path, "cannot be written", "choose another place", SafetensorError)
    with refused, replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
