"""Published checkpoint formats: read → rename → strict load. `vidcls.checkpoints.formats` lists them.

The names here are imported when they are first used, so that what needs no torch in this room does without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidcls.checkpoints.base import Checkpoint, Format, Raw
    from vidcls.checkpoints.formats import FORMATS, build_model, load_checkpoint, read_checkpoint
    from vidcls.checkpoints.native import save_checkpoint
    from vidcls.checkpoints.readers import open_raw

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

_ELSEWHERE = {
    "Checkpoint": "base",
    "Format": "base",
    "Raw": "base",
    "save_checkpoint": "native",
    "open_raw": "readers",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vidcls.checkpoints' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'formats')}"), name)
