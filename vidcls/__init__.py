"""Classify videos with pure-transformer models.

The names here are imported when they are first used, so that ``import vidcls`` costs nothing.

Example:
    >>> import vidcls
    >>> with vidcls.load("camera-motion") as model:
    ...     prediction = model.predict("clip.mp4")
    >>> prediction.label, prediction.score  # doctest: +SKIP
    ('pan left', 0.98)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidcls.checkpoints import load_checkpoint, save_checkpoint
    from vidcls.config import InputSpec, ModelSpec, Registry, load_registry
    from vidcls.errors import (
        CheckpointError,
        ConfigError,
        DependencyError,
        DeviceError,
        InputError,
        OutputError,
        UsageError,
        VidclsError,
        VideoError,
        WeightsError,
    )
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.clip import Clip
    from vidcls.inference.load import load
    from vidcls.inference.prediction import Prediction, ScoredLabel
    from vidcls.models import build
    from vidcls.timeline.result import Timeline
    from vidcls.video.reader import Frames, VideoInfo, VideoReader
    from vidcls.zoo.catalog import list_models

__version__ = "0.1.0"

_HOMES = {
    "vidcls.checkpoints": "load_checkpoint save_checkpoint",
    "vidcls.config": "InputSpec ModelSpec Registry load_registry",
    "vidcls.errors": (
        "CheckpointError ConfigError DependencyError DeviceError InputError OutputError UsageError VidclsError "
        "VideoError WeightsError"
    ),
    "vidcls.inference.classifier": "Classifier",
    "vidcls.inference.clip": "Clip",
    "vidcls.inference.load": "load",
    "vidcls.inference.prediction": "Prediction ScoredLabel",
    "vidcls.models": "build",
    "vidcls.timeline.result": "Timeline",
    "vidcls.video.reader": "Frames VideoInfo VideoReader",
    "vidcls.zoo.catalog": "list_models",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "CheckpointError",
    "Classifier",
    "Clip",
    "ConfigError",
    "DependencyError",
    "DeviceError",
    "Frames",
    "InputError",
    "InputSpec",
    "ModelSpec",
    "OutputError",
    "Prediction",
    "Registry",
    "ScoredLabel",
    "Timeline",
    "UsageError",
    "VidclsError",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "WeightsError",
    "build",
    "list_models",
    "load",
    "load_checkpoint",
    "load_registry",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vidcls' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
