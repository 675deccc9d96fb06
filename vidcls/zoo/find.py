"""A model's name or a checkpoint → what is known of it, and its module once that is needed. Imports no torch itself."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcls.config import ModelSpec, Registry, WeightsSpec, load_registry
from vidcls.engines import cache, numpy_vivit, unit_frames
from vidcls.engines.artifact import Artifact, is_artifact, read_artifact
from vidcls.errors import CheckpointError, UsageError, WeightsError
from vidcls.models import CONFIGS, config_keys
from vidcls.video.urls import is_url
from vidcls.zoo.entry import completed_spec, name_of, spec_for
from vidcls.zoo.facts import CheckpointFacts, plain_config
from vidcls.zoo.timm_models import ARCHITECTURE as TIMM_FRAMES
from vidcls.zoo.timm_models import PREFIX, timm_entry

if TYPE_CHECKING:
    from torch import nn

    from vidcls.checkpoints import Checkpoint

# What a registry's entry says of its own weights where their tensors leave it open.
_OPEN = (
    *("num_heads", "temporal_num_heads", "num_frames", "attention_order", "attention_window"),
    *("clips_per_view", "out_layers", "pooler_num_heads", "pooler_norm_eps"),
)


@dataclass(frozen=True)
class CheckpointKeywords:
    """What a person says of a checkpoint beside where it is; see `vidcls.checkpoints.read_checkpoint`.

    Attributes:
        num_frames: Frames of a view.
        architecture: A key of `vidcls.models.ARCHITECTURES`; None takes the entry's or asks the file.
        format: A key of `vidcls.checkpoints.FORMATS`; None asks the file.
        config: Keywords of the architecture that the file leaves open.
    """

    num_frames: int | None = None
    architecture: str | None = None
    format: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


class Found:
    """A model that was looked up.

    Attributes:
        facts: What is known of it.
        source: Where the weights come from, as it is written into results.
        path: Its file or folder; None for random weights.
        key: Name under which the cache keeps what is known of it.
        asked: The options of the command line that name it.
        artifact: The exported model that was given in place of a checkpoint.
        read: Reads the checkpoint; None where there is none.
        origin: Name of the checkpoint's format, and what a file of our own says besides; known with the module.
    """

    def __init__(
        self,
        facts: CheckpointFacts,
        source: str,
        path: Path | None = None,
        *,
        key: str | None = None,
        asked: str = "",
        artifact: Artifact | None = None,
        read: Callable[[], Checkpoint] | None = None,
        module: nn.Module | None = None,
        origin: tuple[str, dict[str, Any]] = ("", {}),
    ) -> None:
        self.facts = facts
        self.source = source
        self.path = path
        self.key = key
        self.asked = asked
        self.artifact = artifact
        self.read = read
        self.origin = origin
        self._module = module

    @property
    def loaded(self) -> bool:
        """Whether the module is in memory."""
        return self._module is not None

    def module(self) -> nn.Module:
        """Return the module, after loading it if need be.

        Raises:
            CheckpointError: The checkpoint cannot be read, or there is none.
        """
        if self._module is None:
            from vidcls.checkpoints import build_model

            if self.read is None:
                problem, remedy = "is an exported model", "give the checkpoint that it was made of"
                raise CheckpointError(self.source, problem, remedy)
            checkpoint = self.read()
            self.origin = checkpoint.format, checkpoint.extra
            self._module = build_model(checkpoint, self.source)
        return self._module

    def export_key(self, precision: str) -> str | None:
        """Name of this checkpoint's OpenVINO model in the cache; None where the cache cannot keep one."""
        return None if self.key is None else f"{self.key}-openvino-{precision}"

    def exported(self, precision: str = "fp32") -> Artifact | None:
        """Return the OpenVINO model that was made of this checkpoint, if it is in the cache."""
        name = self.export_key(precision)
        return None if name is None else cache.find(name)


def find_model(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    registry: str | os.PathLike[str] | Registry | None = None,
    random_weights: bool = False,
    offline: bool = False,
    keywords: CheckpointKeywords | None = None,
) -> Found:
    """Look a model up without making an engine; arguments and errors are those of `vidcls.load`."""
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    entry, given = _entry_and_weights(model, weights, known)
    keywords = keywords or CheckpointKeywords()
    if random_weights:
        return _find_random(entry, given, keywords.num_frames)
    wanted = _wanted(entry, given)
    if wanted is None:
        assert entry is not None
        alike = ", ".join(known.with_weights(entry.architecture)[:3]) or "`vidcls models` lists them"
        raise WeightsError(
            entry.name,
            "this architecture has no weights of its own",
            f"pass weights=PATH, choose a model that has some ({alike}), or run it untrained "
            "with random_weights=True",
        )
    from vidcls.zoo.weights import resolve

    path = resolve(wanted, offline=offline)
    if is_artifact(path):
        return _find_artifact(path, _source_name(wanted), entry, keywords)
    return _find_checkpoint(path, wanted, entry, known, keywords)


def weights_file(
    model: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    registry: str | os.PathLike[str] | Registry | None = None,
    random_weights: bool = False,
    offline: bool = False,
) -> Path | None:
    """Return the file or folder that `vidcls.load` fills the model from with the same arguments; None: random.

    Raises:
        UsageError: No such model.
        WeightsError: There are no weights, or they cannot be fetched.
    """
    from vidcls.zoo.weights import resolve

    if random_weights:
        return None
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    wanted = _wanted(*_entry_and_weights(model, weights, known))
    return None if wanted is None else resolve(wanted, offline=offline)


def _wanted(entry: ModelSpec | None, given: str | None) -> str | WeightsSpec | None:
    """Weights that are given win over the entry's own."""
    return given if given is not None else entry.weights if entry else None


def _entry_and_weights(
    model: str | os.PathLike[str] | None, weights: str | os.PathLike[str] | None, known: Registry
) -> tuple[ModelSpec | None, str | None]:
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
        return known[known.default], None
    text = os.fspath(model)
    if (
        text not in known
        and given is None
        and (is_url(text) or text.startswith("hub:") or os.path.exists(text))
    ):
        return None, text
    if text.startswith(PREFIX) and text not in known:
        return timm_entry(text, spec_for(TIMM_FRAMES, text, known).input), given
    return known[text], given  # an unknown name raises with the nearest one


def _find_random(entry: ModelSpec | None, weights: str | None, num_frames: int | None) -> Found:
    if entry is None:
        raise UsageError("random_weights", "needs a model's name", "pass model=NAME")
    if weights is not None:
        raise UsageError("random_weights", "contradicts weights", "give one of the two")
    module = _random_module(entry, num_frames)
    return Found(facts_of(entry, module), "random", module=module)


def _find_artifact(path: Path, source: str, entry: ModelSpec | None, keywords: CheckpointKeywords) -> Found:
    artifact = read_artifact(path)
    facts = artifact.record.facts
    if entry is not None and entry.architecture != facts.spec.architecture:
        raise CheckpointError(
            source, f"holds {facts.spec.architecture}, not {entry.architecture}", "leave out the model's name"
        )
    frames = facts.spec.input.num_frames
    if keywords.num_frames not in (None, frames):
        raise UsageError("num_frames", f"{source} was exported for {frames}", "export it again")
    # Whoever wrote it has no say in which files of this machine are read.
    mine = {"weights": None, "labels": None, "hint": None, **({} if entry is None else {"name": entry.name})}
    facts = facts.model_copy(update={"spec": facts.spec.model_copy(update=mine)})
    return Found(facts, source, path, artifact=artifact)


def _find_checkpoint(
    path: Path,
    wanted: str | WeightsSpec,
    entry: ModelSpec | None,
    known: Registry,
    keywords: CheckpointKeywords,
) -> Found:
    """Take what is known of a checkpoint from an earlier run, or else read it."""
    source = _source_name(wanted)

    def read() -> Checkpoint:
        return read_for(path, wanted, entry, keywords)

    key = _key(path, wanted, entry, known, keywords)
    facts = cache.load_facts(key)
    if facts is not None and entry is None:  # a copy of the file may have another name
        facts = _renamed(facts, name_of(source))
    if facts is None and keywords == CheckpointKeywords():
        facts = _facts_of_small(path, source, entry, known)
    asked = _asked(entry, wanted, keywords)
    if facts is not None:
        return Found(facts, source, path, key=key, asked=asked, read=read)
    from vidcls.checkpoints import build_model

    checkpoint = read()
    module = build_model(checkpoint, source)
    spec = entry or spec_for(checkpoint.architecture, source, known)
    completed = completed_spec(spec, checkpoint.input, plain_config(module))
    facts = facts_of(completed, module, checkpoint)
    cache.save_facts(key, facts)
    origin = checkpoint.format, checkpoint.extra
    return Found(facts, source, path, key=key, asked=asked, read=read, module=module, origin=origin)


def _key(
    path: Path,
    wanted: str | WeightsSpec,
    entry: ModelSpec | None,
    known: Registry,
    keywords: CheckpointKeywords,
) -> str | None:
    """Name in the cache of all that decides what a checkpoint turns out to be."""
    entries = known.values() if entry is None else [entry]
    return cache.model_key(
        path,
        {
            "own": None if isinstance(wanted, str) else wanted.format or "",
            "entries": [spec.model_dump(mode="json") for spec in entries],
            "keywords": vars(keywords),
        },
    )


def _asked(entry: ModelSpec | None, wanted: str | WeightsSpec, keywords: CheckpointKeywords) -> str:
    options = [] if entry is None else ["--model", entry.name]
    options += ["--weights", wanted] if isinstance(wanted, str) else []
    options += [] if keywords.num_frames is None else ["--frames", str(keywords.num_frames)]
    return shlex.join(options)


def _renamed(facts: CheckpointFacts, name: str) -> CheckpointFacts:
    return facts.model_copy(update={"spec": facts.spec.model_copy(update={"name": name})})


def _facts_of_small(
    path: Path, source: str, entry: ModelSpec | None, known: Registry
) -> CheckpointFacts | None:
    """What the metadata of a small model's own file says; None where torch must be asked. Imports no torch."""
    record = numpy_vivit.read_metadata(path)
    if record is None or not numpy_vivit.can_run(record["architecture"], record["config"]):
        return None
    config = record["config"]
    if entry is not None and entry.architecture != record["architecture"]:
        return None
    try:
        if not numpy_vivit.fits(path, config):
            return None
        return CheckpointFacts(
            spec=completed_spec(
                entry or spec_for(record["architecture"], source, known), record.get("input"), config
            ),
            labels=None if record.get("labels") is None else tuple(record["labels"]),
            num_classes=config["num_classes"],
            unit_frames=config["tubelet_size"][0],
            tubelet_frames=config["tubelet_size"][0],
            config=config,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError):
        return None


def facts_of(spec: ModelSpec, module: nn.Module, checkpoint: Checkpoint | None = None) -> CheckpointFacts:
    """Return what is known of a module that is in memory."""
    tubelet = getattr(module.config, "tubelet_size", None)
    return CheckpointFacts(
        spec=spec,
        labels=None if checkpoint is None else checkpoint.labels,
        notes=() if checkpoint is None else checkpoint.notes,
        num_classes=int(module.num_classes),  # type: ignore[arg-type]
        unit_frames=unit_frames(module),
        uses_frame_indices=bool(getattr(module, "uses_frame_indices", False)),
        tubelet_frames=0 if tubelet is None else int(tubelet[0]),
        config=plain_config(module),
    )


def read_for(
    path: Path, wanted: str | WeightsSpec, entry: ModelSpec | None, keywords: CheckpointKeywords
) -> Checkpoint:
    """Read a checkpoint.

    What the tensors leave open (heads, frames) is taken from the registry's entry only for the entry's own weights:
    a checkpoint given by hand may have other sizes. An entry of Kinetics-400 takes its rows of Kinetics-710's.
    """
    from vidcls.checkpoints import read_checkpoint
    from vidcls.checkpoints.kinetics import select_classes

    architecture = keywords.architecture or (entry.architecture if entry is not None else None)
    config: dict[str, Any] = {}
    if entry is not None and not isinstance(wanted, str):
        config = {key: entry.config[key] for key in _OPEN if key in entry.config}
    if entry is not None and "model" in entry.config:  # a bare file of timm's weights does not name its model
        config["model"] = entry.config["model"]
    config |= keywords.config
    if keywords.num_frames is not None and (
        architecture is None or architecture not in CONFIGS or "num_frames" in config_keys(architecture)
    ):
        config["num_frames"] = keywords.num_frames
    stored = wanted.format if isinstance(wanted, WeightsSpec) else None
    checkpoint = read_checkpoint(path, architecture, keywords.format or stored, **config)
    return checkpoint if entry is None else select_classes(checkpoint, entry.config.get("num_classes"))


def _source_name(wanted: str | WeightsSpec) -> str:
    if isinstance(wanted, str):
        return wanted
    if wanted.hub is not None:
        return f"hub:{wanted.hub}"
    if wanted.bundled is not None:
        return f"bundled:{wanted.bundled}"
    if wanted.package is not None:
        return f"package:{wanted.package}"
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
