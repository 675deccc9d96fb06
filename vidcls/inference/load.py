"""A model's name, or a checkpoint → a classifier that is ready to run: ``vidcls.load``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from vidcls.config import (
    InputSpec,
    ModelSpec,
    Registry,
    WeightsSpec,
    load_registry,
    problems,
)
from vidcls.engines import Engine, LazyEngine, check_names, numpy_vivit, unit_frames
from vidcls.engines.select import EngineRequest, cached_engine, make_engine_for, numpy_engine
from vidcls.errors import CheckpointError, UsageError, WeightsError
from vidcls.inference.classifier import Classifier, Fps
from vidcls.models import config_keys
from vidcls.video.reader import VideoReader
from vidcls.video.urls import is_url
from vidcls.zoo.facts import CheckpointFacts, plain_config, recall, remember, request_key
from vidcls.zoo.labels import check_labels, load_labels

if TYPE_CHECKING:
    from torch import nn

    from vidcls.checkpoints import Checkpoint


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    clips: int | None = None,
    num_views: int | None = None,
    num_crops: int | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
    fps: Fps = "auto",
    average: Literal["logits", "probs"] | None = None,
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
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        engine: ``auto``, ``eager``, ``compile``, ``openvino`` or ``numpy``; see `vidcls.engines.select` for ``auto``.
        clips: How many clips will be scored, as far as that is known: a faster engine is made only where it pays.
        num_views: Temporal views; None leaves it, like the next three, to the model's entry.
        num_crops: Spatial crops per view, 1 or 3.
        num_frames: Frames per view.
        stride: Distance between sampled frames.
        fps: ``auto``, ``native`` or a rate in 1/s; see ``Classifier``.
        average: ``logits`` or ``probs``; None does as the model's authors do.
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
    check_names(engine, precision)
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    name, weights = _name_and_weights(model, weights, known)
    entry = known[name] if name is not None else None
    found = _find(
        entry, weights, known, num_frames=num_frames, random_weights=random_weights, offline=offline
    )
    facts = found.facts
    changes = {"num_views": num_views, "num_crops": num_crops, "num_frames": num_frames, "stride": stride}
    spec = facts.spec.model_copy(update={"input": adjusted(facts.spec.input, changes)})
    if facts.tubelet_frames and spec.input.num_frames % facts.tubelet_frames:
        raise UsageError(
            "num_frames",
            f"{spec.input.num_frames} is not a multiple of {facts.tubelet_frames}, the tubelet's frames",
            "choose another number",
        )
    request = EngineRequest(engine, device, precision, clips)

    def make() -> Engine:
        return make_engine_for(found.module(), facts, spec.input, request, found.path, found.learned)

    ready = None if found.loaded else numpy_engine(facts, spec.input, request, found.path)
    if ready is None:
        ready = cached_engine(facts, spec.input, request)
    if ready is None:
        # A module that is not in memory yet is loaded while the first clip is decoded.
        ready = make() if found.loaded else LazyEngine(make, facts.unit_frames)
    names = _labels(labels, facts.stored_labels, spec, facts.num_classes)
    unnamed: tuple[str, ...] = ()
    if names is None:
        names = tuple(f"class {index}" for index in range(facts.num_classes))
        if spec.labels is not None:
            unnamed = (
                f"the labels of {spec.name} ({spec.labels}) are not as many as the head's {facts.num_classes} "
                "classes, which go by number; pass labels=FILE",
            )
    return Classifier(
        ready,
        spec,
        names,
        weights=facts.source,
        fps=fps,
        average=average,
        reader=reader if reader is not None else VideoReader(decoder, decode_timeout),
        uses_frame_indices=facts.uses_frame_indices,
        warnings=("random weights: the labels mean nothing",) if random_weights else (),
        notes=(*facts.notes, *unnamed),
    )


def find_model(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_frames: int | None = None,
    registry: str | os.PathLike[str] | Registry | None = None,
    offline: bool = False,
) -> Found:
    """Look a model up without making an engine; arguments and errors are those of ``load``."""
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    name, weights = _name_and_weights(model, weights, known)
    entry = known[name] if name is not None else None
    return _find(entry, weights, known, num_frames=num_frames, random_weights=False, offline=offline)


def weights_file(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    registry: str | os.PathLike[str] | Registry | None = None,
    random_weights: bool = False,
    offline: bool = False,
) -> Path | None:
    """Return the file or folder that ``load`` fills the model from with the same arguments; None: random weights.

    Raises:
        UsageError: No such model.
        WeightsError: There are no weights, or they cannot be fetched.
    """
    from vidcls.zoo.weights import resolve

    if random_weights:
        return None
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    name, given = _name_and_weights(model, weights, known)
    wanted: str | WeightsSpec | None = given
    if wanted is None and name is not None:
        wanted = known[name].weights
    return None if wanted is None else resolve(wanted, offline=offline)


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
            "views", "; ".join(problems(error, InputSpec)), "see `vidcls predict --help`"
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
                "model",
                "none is named and there is no default",
                "pass model=NAME; `vidcls models` lists them",
            )
        return known.default, None
    text = os.fspath(model)
    if text in known:
        return text, given
    if given is None and (is_url(text) or text.startswith("hub:") or os.path.exists(text)):
        return None, text
    known[text]  # raises with the nearest name
    raise AssertionError("unreachable")


class Found:
    """A model that was looked up: what is known of it, and its module once that is needed.

    Attributes:
        facts: What is known of the checkpoint.
        path: Its file or folder; None for random weights.
    """

    def __init__(
        self,
        facts: CheckpointFacts,
        load_module: Callable[[], nn.Module],
        module: nn.Module | None = None,
        path: Path | None = None,
        key: str | None = None,
    ) -> None:
        self.facts = facts
        self.path = path
        self._load = load_module
        self._module = module
        self._key = key

    @property
    def loaded(self) -> bool:
        """Whether the module is in memory."""
        return self._module is not None

    def module(self) -> nn.Module:
        """Return the module, after loading it if need be."""
        if self._module is None:
            self._module = self._load()
        return self._module

    def learned(self, facts: CheckpointFacts) -> None:
        """Keep what was learned of the checkpoint for the next run."""
        self.facts = facts
        remember(self._key, facts)


def _find(
    spec: ModelSpec | None,
    weights: str | None,
    known: Registry,
    *,
    num_frames: int | None,
    random_weights: bool,
    offline: bool,
) -> Found:
    """Look a model up: what is known of its checkpoint from an earlier run, or else what reading it tells."""
    if random_weights:
        if spec is None:
            raise UsageError("random_weights", "needs a model's name", "pass model=NAME")
        if weights is not None:
            raise UsageError("random_weights", "contradicts weights", "give one of the two")
        module = _random_module(spec, num_frames)
        return Found(_facts(spec, "random", module), lambda: module, module)
    wanted: str | WeightsSpec | None = weights if weights is not None else spec.weights if spec else None
    if wanted is None:
        assert spec is not None
        raise WeightsError(
            spec.name,
            "this architecture has no weights of its own",
            "pass weights=PATH, choose a model that has some (`vidcls models`), or run it untrained "
            "with random_weights=True",
        )
    from vidcls.zoo.weights import resolve

    path = resolve(wanted, offline=offline)
    source = _source_name(wanted)

    def read() -> Checkpoint:
        return _read(path, wanted, spec, num_frames)

    def load_module() -> nn.Module:
        from vidcls.checkpoints import build_model

        return build_model(read(), source)

    key = request_key(path, wanted, spec, num_frames, known)
    facts = recall(key)
    if facts is not None:
        return Found(facts, load_module, None, path, key)
    facts = None if num_frames is not None else _facts_of_small(path, source, spec, known)
    if facts is not None:
        return Found(facts, load_module, None, path, key)
    from vidcls.checkpoints import build_model

    checkpoint = read()
    module = build_model(checkpoint, source)
    entry = spec or _spec_for(checkpoint.architecture, source, known)
    completed = _completed(entry, checkpoint.input, plain_config(module))
    facts = _facts(completed, source, module, checkpoint)
    found = Found(facts, load_module, module, path, key)
    found.learned(facts)
    return found


def _facts_of_small(
    path: Path, source: str, spec: ModelSpec | None, known: Registry
) -> CheckpointFacts | None:
    """What the metadata of a small model's own file says; None where torch must be asked. Imports no torch."""
    record = numpy_vivit.read_metadata(path)
    if record is None or not numpy_vivit.can_run(record["architecture"], record["config"]):
        return None
    config = record["config"]
    if spec is not None and spec.architecture != record["architecture"]:
        return None
    try:
        if not numpy_vivit.fits(path, config):
            return None
        entry = spec or _spec_for(record["architecture"], source, known)
        return CheckpointFacts(
            spec=_completed(entry, record.get("input"), config),
            stored_labels=None if record.get("labels") is None else tuple(record["labels"]),
            source=source,
            num_classes=config["num_classes"],
            unit_frames=config["tubelet_size"][0],
            uses_frame_indices=False,
            tubelet_frames=config["tubelet_size"][0],
            config=config,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError):
        return None


def _facts(
    spec: ModelSpec, source: str, module: nn.Module, checkpoint: Checkpoint | None = None
) -> CheckpointFacts:
    tubelet = getattr(module.config, "tubelet_size", None)
    return CheckpointFacts(
        spec=spec,
        stored_labels=None if checkpoint is None else checkpoint.labels,
        notes=() if checkpoint is None else checkpoint.notes,
        source=source,
        num_classes=int(module.num_classes),  # type: ignore[arg-type]
        unit_frames=unit_frames(module),
        uses_frame_indices=bool(getattr(module, "uses_frame_indices", False)),
        tubelet_frames=0 if tubelet is None else int(tubelet[0]),
        config=plain_config(module),
    )


def _read(
    path: Path, wanted: str | WeightsSpec, spec: ModelSpec | None, num_frames: int | None
) -> Checkpoint:
    """Read a checkpoint.

    What the tensors leave open (heads, frames) is taken from the registry entry only for the entry's own weights:
    a checkpoint given by hand may have other sizes.
    """
    from vidcls.checkpoints import read_checkpoint

    config: dict[str, Any] = {}
    architecture = None
    if spec is not None:
        architecture = spec.architecture
        keys = ("num_heads", "temporal_num_heads", "num_frames", "attention_order", "attention_window")
        if not isinstance(wanted, str):
            config = {key: spec.config[key] for key in keys if key in spec.config}
    checkpoint_format = wanted.format if isinstance(wanted, WeightsSpec) else None
    if num_frames is not None and (architecture is None or "num_frames" in config_keys(architecture)):
        config["num_frames"] = num_frames
    return read_checkpoint(path, architecture, checkpoint_format, **config)


def _source_name(wanted: str | WeightsSpec) -> str:
    if isinstance(wanted, str):
        return wanted
    if wanted.hub is not None:
        return f"hub:{wanted.hub}"
    if wanted.bundled is not None:
        return f"bundled:{wanted.bundled}"
    return wanted.url or wanted.path or ""


def _random_module(spec: ModelSpec, num_frames: int | None) -> nn.Module:
    import torch

    from vidcls.models import build

    config = dict(spec.config)
    if num_frames is not None and "num_frames" in config_keys(spec.architecture):
        config["num_frames"] = num_frames
    torch.manual_seed(0)
    module = build(spec.architecture, **config).eval()
    for name, parameter in module.named_parameters():
        # ViViT's classifier starts at zero, which would make all logits alike and hide every fault in a measurement.
        if name.startswith("head.") and parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return module


def _spec_for(architecture: str, source: str, known: Registry) -> ModelSpec:
    """Make an entry for a checkpoint given without a name, after the bare architecture's entry in the registry."""
    alike = [spec for spec in known.values() if spec.architecture == architecture]
    bare = [spec for spec in alike if spec.weights is None] or alike
    name = Path(source.rstrip("/")).name or "checkpoint"
    clean = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).lstrip("._-")[:80]
    return ModelSpec(
        name=clean or "checkpoint",
        architecture=architecture,
        input=bare[0].input if bare else InputSpec(),
    )


def _completed(spec: ModelSpec, stored: Mapping[str, Any] | None, config: Mapping[str, Any]) -> ModelSpec:
    """Let the checkpoint say how it sees a video, as far as it does, and let the crop be what the model takes."""
    fields = dict(stored or {})
    size = config.get("image_size")
    height = spec.input.image_size[0]
    if size is not None and "image_size" not in fields and tuple(size) != spec.input.image_size:
        fields["image_size"] = tuple(size)
        if isinstance(spec.input.resize, int):
            fields.setdefault("resize", round(spec.input.resize * min(size) / height))
    frames = config.get("num_frames")
    if frames is not None:
        fields["num_frames"] = frames
    try:
        completed = InputSpec(**{**spec.input.model_dump(), **fields})
    except ValidationError as error:
        raise CheckpointError(
            spec.name, "; ".join(problems(error, InputSpec)), "the checkpoint's own settings are wrong"
        ) from None
    return spec.model_copy(update={"input": completed})


def _labels(
    given: str | os.PathLike[str] | None, stored: tuple[str, ...] | None, spec: ModelSpec, num_classes: int
) -> tuple[str, ...] | None:
    """Choose the labels: those asked for, then the checkpoint's own, then the entry's if they are as many."""
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
    return None
