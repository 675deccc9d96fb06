"""What every checkpoint format shares: the raw file, the renamed result, and the strict load.

A checkpoint goes ``path → Raw → Checkpoint → nn.Module``: `readers.open_raw` opens the container (zip,
msgpack, safetensors, folder) without knowing any model, a format renames the tensors to our names and infers
the architecture's hyperparameters, and `load_state` copies them into a model or says exactly why it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from vidcls.errors import CheckpointError

Kind = Literal["hf", "safetensors", "torch", "npz", "msgpack"]


@dataclass(frozen=True)
class Raw:
    """A checkpoint file as it lies on disk, before any renaming.

    Attributes:
        path: The file or folder that was opened.
        kind: The container: ``hf`` (folder), ``safetensors``, ``torch``, ``npz`` or ``msgpack``.
        tensors: Flat name → CPU tensor in the file's own dtype. Nested trees are joined with ``/`` for
            msgpack and npz and with ``.`` for torch. Tensors may be views of the mapped file: do not write
            to them.
        meta: The rest: ``{"config", "preprocessor"}`` for hf, the metadata for safetensors, every value that
            is not a tensor, flattened in the same way, for torch and msgpack.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    def error(self, problem: str, remedy: str = "") -> CheckpointError:
        """An error about this file, to be raised by the caller."""
        return CheckpointError(str(self.path), problem, remedy)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in our names, ready for its architecture.

    Attributes:
        format: Name of the published format it was read from.
        architecture: A key of `vidcls.models.ARCHITECTURES`.
        config: Keywords of the architecture's config dataclass, as the file's tensors determine them.
        state: Our parameter names → tensors.
        labels: One name per class, where the file carries them.
        input: Fields of `vidcls.config.InputSpec` that the file determines, where it does.
        notes: What a person should know about choices that the file left open.
    """

    format: str
    architecture: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    labels: tuple[str, ...] | None = None
    input: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """A published checkpoint format: a module (or object) with a name and two functions."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - modules spell their constant in capitals

    @property
    def matches(self) -> Callable[[Raw], bool]:
        """Whether the file is of this format, judged by its keys and metadata."""

    @property
    def read(self) -> Callable[[Raw, str | None, dict[str, Any]], Checkpoint]:
        """Rename the tensors; ``(raw, architecture or None, keywords given by the caller) → Checkpoint``."""


def take(tensors: Mapping[str, Tensor], key: str, subject: object) -> Tensor:
    """The tensor called ``key``.

    Raises:
        CheckpointError: It is not in the file.
    """
    try:
        return tensors[key]
    except KeyError:
        raise CheckpointError(
            str(subject), f"no tensor {key!r} in the file", "it is incomplete or of another architecture"
        ) from None


def count_layers(names: Iterable[str], pattern: str, subject: object) -> int:
    """How many consecutive layers the names hold.

    Args:
        names: Tensor names.
        pattern: Regular expression matched at the start of a name, its first group the layer's number.
        subject: What the error is about.

    Raises:
        CheckpointError: The numbers have a gap, so that the file is incomplete.
    """
    compiled = re.compile(pattern)
    numbers = {int(found.group(1)) for name in names if (found := compiled.match(name))}
    for expected in range(len(numbers)):
        if expected not in numbers:
            raise CheckpointError(
                str(subject),
                f"layer {expected} of {max(numbers) + 1} is missing ({pattern})",
                "the file is incomplete; fetch it again",
            )
    return len(numbers)


def describe_keys(keys: Iterable[str]) -> str:
    """Every key, with runs of layers folded: ``blocks.{0-11}.norm1.weight``."""
    groups: dict[str, list[int]] = {}
    for key in keys:
        found = re.search(r"(?<=\.)\d+(?=\.)", key)
        template = key if found is None else f"{key[: found.start()]}\0{key[found.end() :]}"
        groups.setdefault(template, []).extend([] if found is None else [int(found.group())])
    return ", ".join(template.replace("\0", _ranges(numbers)) for template, numbers in groups.items())


def _ranges(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "}"


def load_state(model: nn.Module, state: Mapping[str, Tensor], subject: object) -> None:
    """Copy a state into a model, every key or nothing.

    Args:
        model: The model, on any real device.
        state: Our names → tensors of any floating dtype.
        subject: The file's name, for the error.

    Raises:
        CheckpointError: One message naming every missing, unexpected and misshapen key, or a tensor that is
            not of floating point.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [key for key in own if key in state and own[key].shape != state[key].shape]
    wrong_type = [
        key for key in own if key in state and own[key].is_floating_point() != state[key].is_floating_point()
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({describe_keys(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({describe_keys(unexpected)})")
    if misshapen:
        shapes = (f"{k}: file {tuple(state[k].shape)}, model {tuple(own[k].shape)}" for k in misshapen)
        problems.append(f"{len(misshapen)} misshapen ({', '.join(shapes)})")
    if wrong_type:
        types = (f"{k}: {str(state[k].dtype).removeprefix('torch.')}" for k in wrong_type)
        problems.append(f"{len(wrong_type)} of a wrong type ({', '.join(types)})")
    if problems:
        name = getattr(model, "architecture", type(model).__name__)
        raise CheckpointError(
            str(subject),
            f"its tensors do not fit {name}: {', '.join(problems)}",
            "check the architecture and the sizes given with it, or fetch the file again",
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(state[key])
