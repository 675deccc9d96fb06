"""``config.json`` of a timm repository: how the model sees a picture, and what its constructor was given.

timm ``models/_hub.py`` (the file) and ``data/transforms_factory.py`` (the transform).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from vidcls.checkpoints.base import Raw
from vidcls.config import InputSpec, problems
from vidcls.views.hf_preprocessor import IMAGENET_MEAN, IMAGENET_STD

TRANSFORM: dict[str, Any] = {
    "resize_rule": "round",
    "interpolation": "bicubic",
    "center_crop": "round",
    "num_crops": 1,
    "scale": 1 / 255,
    "offset": 0.0,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
}
"""Fields of `InputSpec` that timm's transform has where nothing else is said: Pillow resizes, one crop."""


def pretrained_cfg(raw: Raw) -> Mapping[str, Any]:
    """The entries about pictures; in old files they lie at the top."""
    config: Mapping[str, Any] = raw.meta["config"]
    inner = config.get("pretrained_cfg")
    return inner if isinstance(inner, Mapping) else config


def model_args(raw: Raw) -> Mapping[str, Any]:
    """What the model's constructor was given besides its architecture's own values."""
    found = raw.meta["config"].get("model_args")
    return found if isinstance(found, Mapping) else {}


def input_fields(raw: Raw) -> dict[str, Any]:
    """Fields of `InputSpec` that the configuration determines, with timm's defaults where it is silent.

    Raises:
        CheckpointError: A value is of the wrong kind or out of bounds.
    """
    settings = pretrained_cfg(raw)
    channels, height, width = _input_size(raw, settings)
    if channels != 3:
        raise raw.error(f"takes pictures of {channels} channels", "only color pictures can be classified")
    crop_share = settings.get("crop_pct", 0.875)
    if (
        isinstance(crop_share, bool)
        or not isinstance(crop_share, (int, float))
        or not 0.1 <= crop_share <= 1.5
    ):
        raise raw.error(f"config.json: crop_pct is {crop_share!r}", "fetch it again")
    mode = settings.get("crop_mode", "center")
    sizes = math.floor(height / crop_share), math.floor(width / crop_share)
    fields = {
        "image_size": (height, width),
        "resize": sizes if mode == "squash" or sizes[0] != sizes[1] else sizes[0],
        "resize_side": _side(mode, sizes),
        "fill": "mean" if mode == "border" else "black",
        **TRANSFORM,
        **{key: settings[key] for key in ("interpolation", "mean", "std") if key in settings},
    }
    try:
        spec = InputSpec(**fields)
    except ValidationError as error:
        raise raw.error(f"config.json: {'; '.join(problems(error, InputSpec))}", "fetch it again") from None
    return {name: getattr(spec, name) for name in fields}


def _side(mode: Any, sizes: tuple[int, int]) -> str:
    """What of a picture is as long as the size before the crop; sizes that are no square are covered or fitted into."""
    if mode == "squash":
        return "short"
    if sizes[0] == sizes[1]:
        return "long" if mode == "border" else "short"
    return "fit" if mode == "border" else "cover"


def _input_size(raw: Raw, settings: Mapping[str, Any]) -> tuple[int, int, int]:
    size = settings.get("input_size", [3, 224, 224])
    built = model_args(raw).get("img_size")
    if built is not None and isinstance(size, list) and len(size) == 3:
        size = [size[0], *(built if isinstance(built, list) else [built, built])]
    if not isinstance(size, list) or len(size) != 3 or not all(type(n) is int and n > 0 for n in size):
        raise raw.error(f"config.json: input_size is {size!r}", "fetch it again")
    return size[0], size[1], size[2]
