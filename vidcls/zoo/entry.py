"""The registry's entry of a checkpoint: made where it has none, and completed by what the checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vidcls.config import InputSpec, ModelSpec, Registry, problems
from vidcls.errors import CheckpointError

if TYPE_CHECKING:
    from vidcls.checkpoints import Checkpoint


def spec_of(checkpoint: Checkpoint, source: str, known: Registry) -> ModelSpec:
    """Make an entry for a checkpoint given without a name: its sizes, and how it sees a video.

    Raises:
        CheckpointError: The checkpoint's own settings are wrong.
    """
    entry = completed_spec(
        spec_for(checkpoint.architecture, source, known), checkpoint.input, checkpoint.config
    )
    config = {key: value for key, value in checkpoint.config.items() if key != "num_classes"}
    return entry.model_copy(update={"config": config})


def spec_for(architecture: str, source: str, known: Registry) -> ModelSpec:
    """Make an entry for a checkpoint given without a name, after the bare architecture's entry in the registry."""
    alike = [spec for spec in known.values() if spec.architecture == architecture]
    bare = [spec for spec in alike if spec.weights is None] or alike
    return ModelSpec(
        name=name_of(source), architecture=architecture, input=bare[0].input if bare else InputSpec()
    )


def name_of(source: str) -> str:
    """Name a model after the file or folder that it came from."""
    name = Path(source.rstrip("/")).name or "checkpoint"
    clean = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in name.lower())
    return clean.lstrip("._-")[:80] or "checkpoint"


def completed_spec(spec: ModelSpec, stored: Mapping[str, Any] | None, config: Mapping[str, Any]) -> ModelSpec:
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
