"""A model's name, or a checkpoint → a classifier that is ready to run: ``vidcls.load``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from vidcls import sources
from vidcls.classifier import Classifier, Fps
from vidcls.config import (
    ARCHITECTURE_KEYS,
    InputSpec,
    ModelSpec,
    Registry,
    WeightsSpec,
    load_registry,
    problems,
)
from vidcls.engines import make_engine
from vidcls.errors import CheckpointError, UsageError, WeightsError
from vidcls.labels import check_labels, load_labels
from vidcls.video import VideoReader

if TYPE_CHECKING:
    from torch import nn

    from vidcls.checkpoints import Checkpoint


@dataclass(frozen=True)
class _Loaded:
    """A model with its weights, and what its checkpoint says of it: labels, and choices that it left open."""

    module: nn.Module
    spec: ModelSpec
    source: str
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    views: int | None = None,
    crops: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    fps: Fps = "auto",
    average: Literal["logits", "probs"] = "logits",
    decoder: str = "auto",
    decode_timeout: float = 60.0,
    registry: str | os.PathLike[str] | Registry | None = None,
    random_weights: bool = False,
    offline: bool = False,
    reader: VideoReader | None = None,
) -> Classifier:
    """Make a model ready.

    Args:
        model: Name in the registry, or a checkpoint: path, URL, or ``hub:owner/name``. The registry's default if None.
        weights: A checkpoint to take instead of the one that the registry names; it decides the architecture's sizes.
        labels: Name of a list in ``vidcls/labels`` or a file with one label a line.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        views: Clips in time; None leaves it, like the next four, to the model's entry.
        crops: Crops in space, 1 or 3.
        frames: Frames of a clip.
        stride: Frames from one to the next.
        fps: ``auto``, ``native`` or a rate in 1/s; see ``Classifier``.
        average: ``logits`` or ``probs``.
        decoder: ``auto``, ``decord`` or ``pyav``.
        decode_timeout: Seconds after which a decoder is killed.
        registry: A registry, or a file that is laid over the one that ships with vidcls.
        random_weights: Run an architecture untrained; every result says so.
        offline: Never use the network.
        reader: Reads the clips; by default one of its own with ``decoder`` and ``decode_timeout``.

    Raises:
        UsageError: No such model, or options that do not fit it.
        ConfigError: A registry file is wrong.
        WeightsError: There are no weights, or they cannot be fetched.
        CheckpointError: The weights cannot be read or do not fit.
        DeviceError: The device or precision does not exist here.
    """
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    name, weights = _name_and_weights(model, weights, known)
    spec = known[name] if name is not None else None
    loaded = _load_module(spec, weights, known, frames=frames, random_weights=random_weights, offline=offline)
    module, spec = loaded.module, loaded.spec
    changes = {"num_views": views, "num_crops": crops, "num_frames": frames, "stride": stride}
    spec = spec.model_copy(update={"input": adjusted(spec.input, changes)})
    _check_frames(module, spec)
    num_classes = int(module.num_classes)  # type: ignore[arg-type]
    names = _labels(labels, loaded.labels, spec, num_classes)
    warnings = ("random weights: the labels mean nothing",) if random_weights else ()
    engine = make_engine(module, device, precision)
    return Classifier(
        engine,
        spec,
        names,
        weights=loaded.source,
        fps=fps,
        average=average,
        reader=reader if reader is not None else VideoReader(decoder, decode_timeout),
        uses_frame_indices=bool(getattr(module, "uses_frame_indices", False)),
        warnings=warnings,
        notes=loaded.notes,
    )


def adjusted(spec: InputSpec, changes: dict[str, Any]) -> InputSpec:
    """Lay the changes that are not None over ``spec``.

    Raises:
        UsageError: The outcome is not valid; all problems are named.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return spec
    try:
        return InputSpec(**{**spec.model_dump(), **given})
    except ValidationError as error:
        raise UsageError(
            "options", "; ".join(problems(error, InputSpec)), "see `vidcls predict --help`"
        ) from None


def _name_and_weights(
    model: str | os.PathLike[str] | None, weights: str | os.PathLike[str] | None, known: Registry
) -> tuple[str | None, str | None]:
    """Tell a registry name from a checkpoint given in its place."""
    given = None if weights is None else os.fspath(weights)
    if model is None:
        if given is not None:
            return None, given
        if known.default is None:
            raise UsageError(
                "model", "none is named and there is no default", "pass --model; `vidcls models` lists them"
            )
        return known.default, None
    text = os.fspath(model)
    if text in known:
        return text, given
    if given is None and (sources.is_url(text) or text.startswith("hub:") or os.path.exists(text)):
        return None, text
    known[text]  # raises with the nearest name
    raise AssertionError("unreachable")


def _load_module(
    spec: ModelSpec | None,
    weights: str | None,
    known: Registry,
    *,
    frames: int | None,
    random_weights: bool,
    offline: bool,
) -> _Loaded:
    """Build and fill the model."""
    if random_weights:
        if spec is None:
            raise UsageError("--random-weights", "needs a model's name", "pass --model NAME")
        if weights is not None:
            raise UsageError("--random-weights", "contradicts --weights", "give one of the two")
        return _Loaded(_random_module(spec, frames), spec, "random")
    wanted: str | WeightsSpec | None = weights if weights is not None else spec.weights if spec else None
    if wanted is None:
        assert spec is not None
        raise WeightsError(
            spec.name,
            "this architecture has no weights of its own",
            "pass --weights PATH, choose a model that has some (`vidcls models`), or run it untrained "
            "with --random-weights",
        )
    checkpoint, source = _read(wanted, spec, weights is not None, frames, offline)
    from vidcls.checkpoints import build_model

    module = build_model(checkpoint, source)
    if spec is None:
        spec = _spec_for(checkpoint, source, known)
    return _Loaded(module, _completed(spec, checkpoint, module), source, checkpoint.labels, checkpoint.notes)


def _read(
    wanted: str | WeightsSpec, spec: ModelSpec | None, foreign: bool, frames: int | None, offline: bool
) -> tuple[Checkpoint, str]:
    """Fetch and read a checkpoint.

    What the tensors leave open (heads, frames) is taken from the registry entry only for the entry's own weights:
    a checkpoint given by hand may have other sizes.
    """
    from vidcls.checkpoints import read_checkpoint
    from vidcls.weights import resolve

    path = resolve(wanted, offline=offline)
    config: dict[str, Any] = {}
    architecture = None
    if spec is not None:
        architecture = spec.architecture
        keys = ("num_heads", "temporal_num_heads", "num_frames", "attention_order", "attention_window")
        if not foreign:
            config = {key: spec.config[key] for key in keys if key in spec.config}
    checkpoint_format = wanted.format if isinstance(wanted, WeightsSpec) else None
    if frames is not None and (architecture is None or "num_frames" in ARCHITECTURE_KEYS[architecture]):
        config["num_frames"] = frames
    checkpoint = read_checkpoint(path, architecture, checkpoint_format, **config)
    return checkpoint, _source_name(wanted)


def _source_name(wanted: str | WeightsSpec) -> str:
    if isinstance(wanted, str):
        return wanted
    if wanted.hub is not None:
        return f"hub:{wanted.hub}"
    if wanted.bundled is not None:
        return f"bundled:{wanted.bundled}"
    return wanted.url or wanted.path or ""


def _random_module(spec: ModelSpec, frames: int | None) -> nn.Module:
    import torch

    from vidcls.models import build

    config = dict(spec.config)
    if frames is not None and "num_frames" in ARCHITECTURE_KEYS[spec.architecture]:
        config["num_frames"] = frames
    torch.manual_seed(0)
    return build(spec.architecture, **config).eval()


def _spec_for(checkpoint: Checkpoint, source: str, known: Registry) -> ModelSpec:
    """Make an entry for a checkpoint given without a name, after the bare architecture's entry in the registry."""
    alike = [spec for spec in known.values() if spec.architecture == checkpoint.architecture]
    bare = [spec for spec in alike if spec.weights is None] or alike
    name = Path(source.rstrip("/")).name or "checkpoint"
    clean = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).lstrip("._-")[:80]
    return ModelSpec(
        name=clean or "checkpoint",
        architecture=checkpoint.architecture,
        input=bare[0].input if bare else InputSpec(),
    )


def _completed(spec: ModelSpec, checkpoint: Checkpoint, module: nn.Module) -> ModelSpec:
    """Let the checkpoint say how it sees a video, as far as it does, and let the crop be what the model takes."""
    fields = dict(checkpoint.input or {})
    size = getattr(module.config, "image_size", None)
    height = spec.input.image_size[0]
    if size is not None and "image_size" not in fields and tuple(size) != spec.input.image_size:
        fields["image_size"] = tuple(size)
        if isinstance(spec.input.resize, int):
            fields.setdefault("resize", round(spec.input.resize * min(size) / height))
    frames = getattr(module.config, "num_frames", None)
    if frames is not None:
        fields["num_frames"] = frames
    try:
        completed = InputSpec(**{**spec.input.model_dump(), **fields})
    except ValidationError as error:
        raise CheckpointError(
            spec.name, "; ".join(problems(error, InputSpec)), "the checkpoint's own settings are wrong"
        ) from None
    return spec.model_copy(update={"input": completed})


def _check_frames(module: nn.Module, spec: ModelSpec) -> None:
    tubelet = getattr(module.config, "tubelet_size", None)
    frames = spec.input.num_frames
    if tubelet is not None and frames % tubelet[0]:
        raise UsageError(
            "--frames",
            f"{frames} is not a multiple of {tubelet[0]}, the tubelet's frames",
            "choose another number",
        )


def _labels(
    given: str | os.PathLike[str] | None, stored: tuple[str, ...] | None, spec: ModelSpec, num_classes: int
) -> tuple[str, ...]:
    """Choose the labels: those asked for, then the checkpoint's own, then the entry's, then plain numbers."""
    if given is not None:
        names = load_labels(os.fspath(given))
        check_labels(names, num_classes, os.fspath(given))
        return names
    if stored is not None:
        check_labels(stored, num_classes, spec.name)
        return stored
    if spec.labels is not None:
        names = load_labels(spec.labels)
        if len(names) == num_classes:
            return names
    return tuple(f"class {index}" for index in range(num_classes))
