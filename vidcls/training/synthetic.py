"""The door to tasks whose clips are made on the fly: ``data: synthetic:NAME`` in a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from vidcls.config import InputSpec
from vidcls.errors import DependencyError, UsageError
from vidcls.training.data.dataset import Loader
from vidcls.training.recipe import Recipe

PREFIX = "synthetic:"
TASKS = ("camera-motion",)


@dataclass(frozen=True)
class Task:
    """What training must know of a synthetic task.

    Attributes:
        labels: Class names in the order of their ids.
        make_loaders: (recipe, input, keywords of `vidcls.training.camera_motion.loader.SyntheticLoader`) → the
            training and the validation loader.
        make_loss: (model, recipe) → a loss on what is known of the clips besides their labels, or None.
    """

    labels: tuple[str, ...]
    make_loaders: Callable[[Recipe, InputSpec, dict[str, Any]], tuple[Loader, Loader | None]]
    make_loss: Callable[[nn.Module, Recipe], nn.Module | None]


def is_synthetic(source: str | None) -> bool:
    """Whether clips are made on the fly instead of read."""
    return source is not None and source.startswith(PREFIX)


def load_task(source: str) -> Task:
    """The task that ``synthetic:NAME`` means.

    Raises:
        UsageError: There is no such task.
        DependencyError: OpenCV is not installed.
    """
    if source.removeprefix(PREFIX) not in TASKS:
        raise UsageError(source, "no such synthetic task", f"use {PREFIX}{TASKS[0]}")
    try:
        from vidcls.training.camera_motion.task import LABELS, make_loaders, make_loss
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise DependencyError(
            source, "synthetic clips need OpenCV, which is not installed", "pip install 'vidcls[train]'"
        ) from None
    return Task(tuple(LABELS), make_loaders, make_loss)
