"""The camera-motion task as training sees it: its labels, its loaders, and a loss on the motion itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import nn

from vidcls.config import InputSpec
from vidcls.errors import ConfigError, UsageError
from vidcls.training.camera_motion.backgrounds import FileBackgrounds
from vidcls.training.camera_motion.camera import LABELS
from vidcls.training.camera_motion.dataset import CameraMotionDataset, ClipSpec
from vidcls.training.camera_motion.loader import SyntheticLoader
from vidcls.training.camera_motion.motion_loss import MotionLoss
from vidcls.training.recipe import NO_VAL, Recipe

__all__ = ["LABELS", "make_block", "make_loaders", "make_loss"]

VAL_SEED = 1_000_003
"""Added to the seed for synthetic validation clips, so that none of them is trained on."""


def make_loaders(
    recipe: Recipe, view: InputSpec, options: dict[str, Any]
) -> tuple[SyntheticLoader, SyntheticLoader | None]:
    """The training and validation loaders; ``options`` are keywords of `SyntheticLoader`.

    Raises:
        UsageError: An epoch has no length.
    """
    if recipe.clips_per_epoch is None:
        raise UsageError(
            "clips_per_epoch", "synthetic data has no end", "set the number of clips of an epoch"
        )
    settings, batch_size = recipe.synthetic, recipe.batch_size
    busy = None if settings.busy_steps is None else settings.busy_steps * batch_size
    sources = {"images": settings.images, "videos": settings.videos}
    stages: dict[str, Any] = {
        "seed": recipe.seed,
        "repeats": settings.repeats,
        "plain_items": settings.plain_steps * batch_size,
        "busy_items": busy,
    }
    make = partial(make_block, view, sources, stages)
    block = CameraMotionDataset.block * settings.repeats
    train = SyntheticLoader(make, block, view, recipe.clips_per_epoch, batch_size, **options)
    if recipe.val in (None, NO_VAL):
        return train, None
    make = partial(make_block, view, sources, {"seed": recipe.seed + VAL_SEED})
    block = CameraMotionDataset.block
    return train, SyntheticLoader(make, block, view, settings.val_clips, batch_size, **options)


def make_block(
    view: InputSpec, sources: dict[str, str | None], options: dict[str, Any], number: int
) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """One block of camera-motion clips; a plain function of plain values, so that any process can make it.

    Args:
        view: How the model sees a video.
        sources: Folder of ``images`` or of ``videos`` to film; textures made by rule where both are None.
        options: Keywords of `CameraMotionDataset`.
        number: Which block.

    Raises:
        UsageError: The views are not square, or both pictures and footage are given.
    """
    if view.image_size[0] != view.image_size[1]:
        raise UsageError("input.image_size", "synthetic clips are square", "make height and width equal")
    images, videos = sources["images"], sources["videos"]
    if images and videos:
        raise UsageError("synthetic", "takes images or videos, not both", "name one folder")
    folder = images or videos
    backgrounds = FileBackgrounds(folder, videos=bool(videos)) if folder else None
    clip = ClipSpec(view.num_frames, view.stride, view.fps or 25.0, view.image_size[0])
    data = CameraMotionDataset(length=1 << 40, spec=clip, backgrounds=backgrounds, **options)
    return [(item.frames, item.label, item.steps) for item in data.make_block(number)]


def make_loss(model: nn.Module, recipe: Recipe) -> MotionLoss | None:
    """The loss on the motion itself, or None where the recipe does not ask for it.

    Raises:
        ConfigError: The model has no spatial encoder.
    """
    if not recipe.synthetic.motion_loss:
        return None
    config: Any = model.config
    if getattr(model, "architecture", "") != "vivit-fe" or config.depth < 2 or config.pool != "gap":
        raise ConfigError(
            "synthetic.motion_loss",
            "needs a factorized encoder with average pooling and two blocks or more",
            "set it to 0",
        )
    return MotionLoss(model, config.image_size[0], config.tubelet_size, config.embed_dim)
