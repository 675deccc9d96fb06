"""How a released TimeSformer sees a video: from the settings inside a ``.pyth``, as far as it has them.

facebookresearch/TimeSformer, ``timesformer/config/defaults.py`` and ``timesformer/datasets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from vidcls.checkpoints.base import Raw
from vidcls.config import InputSpec, parse_yaml, problems

MAX_SETTINGS = 1 << 17  # characters; the released ones have about 7,000, and YAML is slow to read


def read_settings(raw: Raw) -> dict[str, Any]:
    """Read the YAML text that a ``.pyth`` carries as ``cfg``; empty where there is none that can be read."""
    text = raw.meta.get("cfg")
    if raw.kind != "torch" or not isinstance(text, str) or len(text) > MAX_SETTINGS:
        return {}
    try:
        settings = parse_yaml(text, aliases=True)
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def stored_input(
    settings: Mapping[str, Any], found: Mapping[str, Any], resized: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Say how the model sees a video, as far as the file determines it.

    Args:
        settings: What `read_settings` found; where a key is missing, the released code's default counts.
        found: The model's ``num_frames`` and ``image_size``.
        resized: Whether the caller chose the image size, which then wins over the stored one.

    Returns:
        Fields of `InputSpec`, and notes. Without settings only the sizes: the tensors do not tell which frames
        they were trained on.
    """
    sizes = {name: found[name] for name in ("num_frames", "image_size")} | {
        "resize": max(found["image_size"])
    }
    if not settings:
        return sizes, ()
    data, test = _section(settings, "DATA"), _section(settings, "TEST")
    size = sizes["image_size"] if resized else data.get("TEST_CROP_SIZE", sizes["image_size"])
    crops = test.get("NUM_SPATIAL_CROPS", 3)
    fields = {
        "num_frames": sizes["num_frames"],
        "stride": data.get("SAMPLING_RATE", 8),
        "fps": data.get("TARGET_FPS", 30),
        "num_views": test.get("NUM_ENSEMBLE_VIEWS", 10),
        "num_crops": crops,
        "image_size": size,
        "resize": _short_side(data, crops, size),
        "mean": data.get("MEAN", (0.45, 0.45, 0.45)),
        "std": data.get("STD", (0.225, 0.225, 0.225)),
        **FAMILY,
    }
    dataset = test.get("DATASET")
    if isinstance(dataset, str) and dataset.lower() == "ssv2":
        fields |= SOMETHING_SOMETHING
    try:
        spec = InputSpec(**fields)
    except ValidationError as error:
        return sizes, (f"its stored cfg is not usable ({'; '.join(problems(error, InputSpec))})",)
    return {name: getattr(spec, name) for name in fields}, ()


# The reference normalizes first and resizes the floating-point frames then, which is the same the other way round.
FAMILY: dict[str, Any] = {
    "sampling": "timesformer",
    "resize_rule": "float",
    "interpolation": "bilinear",
    "center_crop": "ceil",
    "scale": 1 / 255,
    "offset": 0.0,
    "channels": "rgb",
}

# Its Something-Something loader reads pictures with OpenCV and turns them round for other architectures only.
SOMETHING_SOMETHING: dict[str, Any] = {"sampling": "segments", "channels": "bgr", "num_views": 1, "fps": None}


def _section(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}


def _short_side(data: Mapping[str, Any], crops: Any, size: Any) -> Any:
    """Three crops are cut from frames of the crop's own height; one crop from frames scaled as in training."""
    scales = data.get("TRAIN_JITTER_SCALES")
    if crops == 1 and isinstance(scales, list) and scales:
        return scales[0]
    return max(size) if isinstance(size, tuple) else size  # a tuple is our own; what is stored is one number
