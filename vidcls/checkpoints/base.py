"""What every checkpoint format shares: the raw file, the renamed result, and the strict load.

A checkpoint goes ``path → Raw → Checkpoint → nn.Module``: `readers.open_raw` opens the container (zip,
msgpack, safetensors, folder) without knowing any model, a format renames the tensors to our names and infers
the architecture's hyperparameters, and `load_state` copies them into a model or says exactly why it cannot.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from vidcls.errors import CheckpointError, VidclsError, first_line

HEADLESS = "the file has no classifier (head)"
"""The note on a checkpoint that can start a training, but classifies nothing."""

HEAD_PARTS = ("head.", "classifier.", "fc_norm.", "pool.", "pool_norm.", "pooler.")
"""What a model without its classifier lacks: how our names, and transformers', of its parts start."""

MAX_DESCRIBED = 200  # entries of one list in an error; a whole model of 12 layers folds to some 20

Kind = Literal["hf", "timm", "safetensors", "torch", "npz", "msgpack"]


@dataclass(frozen=True)
class Raw:
    """A checkpoint file as it lies on disk, before any renaming.

    Attributes:
        path: The file or folder that was opened.
        kind: The container: ``hf`` or ``timm`` (weights with a configuration beside them), ``safetensors``,
            ``torch``, ``npz`` or ``msgpack``.
        tensors: Flat name → CPU tensor in the file's own dtype. Nested trees are joined with ``/`` for
            msgpack and npz and with ``.`` for torch. Tensors may be views of the mapped file: do not write
            to them.
        meta: The rest: ``{"config", "preprocessor"}`` for hf and timm, the metadata for safetensors, every value
            that is not a tensor, flattened in the same way, for torch and msgpack.
        wrappers: Words that `vidcls.checkpoints.unwrap` took off the front of the names, outermost first.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()

    def error(self, problem: str, remedy: str = "") -> CheckpointError:
        """An error about this file, to be raised by the caller."""
        return CheckpointError(str(self.path), problem, remedy)

    def expect(self, asked: str | None, architecture: str, content: str = "") -> None:
        """Refuse an architecture asked for that is not the file's, which ``content`` says; raises CheckpointError."""
        if asked not in (None, architecture):
            raise self.error(f"holds {content or architecture}, not {asked}", f"load it as {architecture}")


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
        notes: What the user should know about choices that the file left open.
        extra: What a file of our own says besides, such as the recipe that it was trained by.
    """

    format: str
    architecture: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    labels: tuple[str, ...] | None = None
    input: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a foreign decoder raises or warns of into one error about the file.

    The decoders let through what a damaged byte happens to lead to (struct.error, TokenError, zlib.error,
    AttributeError, ...), so there is no list to name here; the cause stays chained.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (VidclsError, MemoryError):
        raise
    except Exception as error:
        # torch answers what its safe mode refuses with advice to switch that off, which is never passed on.
        advice = any(word in str(error).lower() for word in ("weights_only", "weights only"))
        reason = type(error).__name__ if advice else first_line(error)
        raise CheckpointError(str(path), f"damaged {what} ({reason})", "fetch it again") from error


class Format(Protocol):
    """A published checkpoint format: a module (or object) with a name and two functions.

    The tensors that the functions see have no wrapping words in front (`vidcls.checkpoints.unwrap`). A format may also
    have ``PREFERS_AVERAGE = True`` where its authors evaluate the moving average of the weights, and a ``FAMILY``
    (`vidcls.checkpoints.families`), by which a file that nearly is of the format is told what it lacks.
    """

    @property
    def NAME(self) -> str: ...  # noqa: N802 - modules spell their constant in capitals

    @property
    def matches(self) -> Callable[[Raw], bool]:
        """Whether the file is of this format, judged by its keys and metadata."""

    @property
    def read(self) -> Callable[[Raw, str | None, dict[str, Any]], Checkpoint]:
        """Rename the tensors; ``(raw, architecture or None, keywords given by the caller) → Checkpoint``."""


def require_tensor(
    tensors: Mapping[str, Tensor], name: str, subject: object, dims: int | None = None
) -> Tensor:
    """The tensor called ``name``.

    Args:
        tensors: Where it should be.
        name: Its name.
        subject: What the error is about, such as the file.
        dims: How many axes it must have, none of them empty; None takes any shape.

    Raises:
        CheckpointError: It is not there, or has another number of axes.
    """
    if name not in tensors:
        raise CheckpointError(
            str(subject), f"no tensor {name!r} in the file", "it is incomplete or of another architecture"
        )
    tensor = tensors[name]
    if dims is not None and (tensor.ndim != dims or 0 in tensor.shape):
        raise CheckpointError(
            str(subject),
            f"{name} has the shape {tuple(tensor.shape)}, not {dims} axes",
            "it is damaged or of another architecture",
        )
    return tensor


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
    found = (compiled.match(name) for name in names)
    numbers = {int(match.group(1)) for match in found if match and len(match.group(1)) < 7}
    for expected in range(len(numbers)):
        if expected not in numbers:
            raise CheckpointError(
                str(subject),
                f"layer {expected} of {max(numbers) + 1} is missing ({pattern})",
                "the file is incomplete; fetch it again",
            )
    return len(numbers)


@dataclass(frozen=True)
class Rename:
    """Where one of our tensors comes from.

    Attributes:
        ours: Our name.
        theirs: Names in the file; more than one where several tensors make one of ours.
        convert: Their tensors → ours; None takes the one tensor as it is.
    """

    ours: str
    theirs: tuple[str, ...]
    convert: Callable[..., Tensor] | None = None


def joined(ours: str, *theirs: str, bias: bool = True) -> Iterator[Rename]:
    """Weight and bias of one of our layers, from those of one of theirs, or of several side by side."""
    for part in ("weight", "bias") if bias else ("weight",):
        names = tuple(f"{name}.{part}" for name in theirs)
        yield Rename(
            f"{ours}.{part}", names, (lambda *tensors: torch.cat(tensors)) if len(names) > 1 else None
        )


def each(ours: str, theirs: str, table: Mapping[str, str]) -> Iterator[Rename]:
    """Weights and biases of several of our layers, below ``ours`` and ``theirs``: our name → theirs."""
    for own, other in table.items():
        yield from joined(f"{ours}.{own}", f"{theirs}.{other}")


def rename_known(
    tensors: Mapping[str, Tensor], layer: str, ours: str, table: Mapping[str, str], outside: Mapping[str, str]
) -> dict[str, Tensor]:
    """Give the tensors whose names are known ours; the others keep theirs, and the strict load reports them.

    Args:
        tensors: Their names → tensors.
        layer: Regular expression of how the names of a layer's tensors start, its first group the layer's number.
        ours: What our names of the layers start with.
        table: Their names of a layer's parts → ours.
        outside: The same for all else; a part, or a single tensor.
    """
    state = {}
    for name, tensor in tensors.items():
        part, _, leaf = name.rpartition(".")
        found = re.fullmatch(rf"{layer}\.(.+)", part)
        if found is not None and found[2] in table:
            state[f"{ours}.{found[1]}.{table[found[2]]}.{leaf}"] = tensor
        elif part in outside:
            state[f"{outside[part]}.{leaf}"] = tensor
        else:
            state[outside.get(name, name)] = tensor
    return state


def rename(
    tensors: Mapping[str, Tensor], renames: Iterable[Rename], subject: object, architecture: str
) -> dict[str, Tensor]:
    """Give the tensors our names, each of them or none.

    Raises:
        CheckpointError: One message naming every tensor that is missing, unexpected or of an impossible shape,
            by its name in the file.
    """
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    unexpected = dict.fromkeys(tensors)
    for entry in renames:
        absent = [name for name in entry.theirs if name not in tensors]
        missing += absent
        for name in entry.theirs:
            unexpected.pop(name, None)
        if absent:
            continue
        sources = [tensors[name] for name in entry.theirs]
        try:
            state[entry.ours] = entry.convert(*sources) if entry.convert else sources[0]
        except (RuntimeError, ValueError, IndexError, TypeError):
            misshapen += [f"{name} {tuple(tensors[name].shape)}" for name in entry.theirs]
    raise_misfit(subject, architecture, missing, list(unexpected), misshapen)
    return state


def raise_misfit(
    subject: object, architecture: str, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> None:
    """Say in one error all that keeps a file's tensors from fitting; nothing where they do."""
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({describe_keys(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({describe_keys(unexpected)})")
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen ({', '.join(misshapen)})")
    if not problems:
        return
    remedy = "check the architecture and the sizes given with it, or fetch the file again"
    headless = any(name.startswith(("head.", "classifier.")) for name in missing)
    headless = headless and all(name.startswith(HEAD_PARTS) for name in missing)
    if headless and len(problems) == 1:
        remedy = "give a fine-tuned checkpoint, or train from this one (`vidcls train --init-from`)"
    raise CheckpointError(
        str(subject),
        f"{'has no classifier: ' if headless else ''}its tensors do not fit {architecture}: {', '.join(problems)}",
        remedy,
    )


def describe_keys(keys: Iterable[str]) -> str:
    """Every key, with runs of layers folded: ``blocks.{0-11}.norm1.weight``.

    Names come from strangers' files: control characters are spelled out, and the list ends after
    `MAX_DESCRIBED` entries.
    """
    groups: dict[str, list[int]] = {}
    for key in keys:
        clean = key if key.isprintable() else ascii(key)
        found = re.search(r"(?<=[._])\d{1,6}(?=[./])", clean)
        template = clean if found is None else f"{clean[: found.start()]}\0{clean[found.end() :]}"
        groups.setdefault(template, []).extend([] if found is None else [int(found.group())])
    texts = [template.replace("\0", _ranges(numbers)) for template, numbers in groups.items()]
    more = len(texts) - MAX_DESCRIBED
    return ", ".join(texts[:MAX_DESCRIBED]) + (f" and {more} more" if more > 0 else "")


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


def check_state(model: nn.Module, state: Mapping[str, Tensor], subject: object, name: str = "") -> None:
    """Hold a state against a model, which may be on the meta device.

    Args:
        model: The model.
        state: Our names → tensors of any floating dtype.
        subject: The file's name, for the error.
        name: What the model is called there; by default its architecture.

    Raises:
        CheckpointError: One message naming every missing, unexpected and misshapen key, or a tensor that is
            not of floating point.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key}: file {tuple(state[key].shape)}, model {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    misshapen += [
        f"{key}: {str(state[key].dtype).removeprefix('torch.')} where weights belong"
        for key in own
        if key in state and own[key].is_floating_point() != state[key].is_floating_point()
    ]
    name = name or str(getattr(model, "architecture", type(model).__name__))
    raise_misfit(subject, name, missing, unexpected, misshapen)


def load_state(model: nn.Module, state: Mapping[str, Tensor], subject: object) -> None:
    """Copy a state into a model on a real device, every key or nothing.

    Raises:
        CheckpointError: As `check_state` does.
    """
    check_state(model, state, subject)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            tensor.copy_(state[key])
