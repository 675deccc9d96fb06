"""What reading a checkpoint told about its model, as plain data: enough to prepare clips, labels and engines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vidcls.checkpoints.metadata import tuples
from vidcls.config import ModelSpec
from vidcls.config.specs import Spec


class CheckpointFacts(Spec):
    """What was learned when a checkpoint was read.

    Attributes:
        spec: The registry's entry, completed by what the checkpoint says.
        labels: Labels that the checkpoint itself holds.
        num_classes: Length of the logits.
        unit_frames: See `vidcls.engines.Engine`.
        uses_frame_indices: Whether the model takes the numbers of the frames.
        tubelet_frames: A view's number of frames must be a multiple of it; 0 for any number.
        config: The architecture's whole configuration.
        notes: Choices that the checkpoint left open and the loader made.
    """

    spec: ModelSpec
    labels: tuple[str, ...] | None = None
    num_classes: int = Field(ge=1, le=1 << 20)
    unit_frames: int = Field(ge=0, le=65536)
    uses_frame_indices: bool = False
    tubelet_frames: int = Field(0, ge=0, le=65536)
    config: Annotated[dict[str, Any], BeforeValidator(tuples)]
    notes: tuple[str, ...] = ()


def plain_config(module: Any) -> dict[str, Any]:
    """Return a model's configuration as plain data."""
    return asdict(module.config)
