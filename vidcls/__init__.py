"""vidcls: say what is in a video, with the pure-transformer models of 2021.

The names here are imported when they are first used, so that ``import vidcls`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidcls.checkpoints import load_checkpoint, save_checkpoint
    from vidcls.config import InputSpec, ModelSpec, Registry, load_registry
    from vidcls.errors import VidclsError
    from vidcls.inference.classifier import Classifier, Prediction
    from vidcls.inference.load import load
    from vidcls.models import build

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "InputSpec",
    "ModelSpec",
    "Prediction",
    "Registry",
    "VidclsError",
    "build",
    "load",
    "load_checkpoint",
    "load_registry",
    "save_checkpoint",
]

_HOME = {
    "Classifier": "vidcls.inference.classifier",
    "InputSpec": "vidcls.config",
    "ModelSpec": "vidcls.config",
    "Prediction": "vidcls.inference.classifier",
    "Registry": "vidcls.config",
    "VidclsError": "vidcls.errors",
    "build": "vidcls.models",
    "load": "vidcls.inference.load",
    "load_checkpoint": "vidcls.checkpoints",
    "load_registry": "vidcls.config",
    "save_checkpoint": "vidcls.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vidcls' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
