"""Published checkpoint formats: read → rename → strict load. `vidcls.checkpoints.formats` lists them.

The names here are imported when they are first used, so that what needs no torch in this room does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidcls.checkpoints.formats import (
        FORMATS,
        Checkpoint,
        Format,
        Raw,
        build_model,
        load_checkpoint,
        open_raw,
        read_checkpoint,
        save_checkpoint,
    )

__all__ = [
    "FORMATS",
    "Checkpoint",
    "Format",
    "Raw",
    "build_model",
    "load_checkpoint",
    "open_raw",
    "read_checkpoint",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vidcls.checkpoints' has no attribute {name!r}")
    from vidcls.checkpoints import formats

    return getattr(formats, name)
