"""The recipe's settings of synthetic clips. Imports neither torch nor OpenCV."""

from __future__ import annotations

from pydantic import Field

from vidcls.config import Spec


class Synthetic(Spec):
    """Clips that are made on the fly (``data: synthetic:camera-motion``).

    Attributes:
        repeats: Symmetric images (mirrored, turned, backwards) that are used of each clip made.
        images: Folder of pictures to film, besides textures made by rule.
        videos: Folder of footage to film.
        val_clips: Clips of the validation set; they come from a seed of their own.
        plain_steps: Steps over which plain clips, in which nothing but the camera moves, give way to all variety.
        busy_steps: Step from which on half of the clips are busy: hand-held, and crowded; null is never.
        motion_loss: Weight of the loss on the motion itself, which is known of synthetic clips: linear maps from the
            spatial encoder predict it, and are thrown away after the training. 0 is off.
    """

    repeats: int = Field(1, ge=1, le=16)
    images: str | None = None
    videos: str | None = None
    val_clips: int = Field(480, ge=1)
    plain_steps: int = Field(0, ge=0)
    busy_steps: int | None = Field(None, ge=0)
    motion_loss: float = Field(0.0, ge=0)
