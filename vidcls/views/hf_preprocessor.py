"""Hugging Face's ``preprocessor_config.json`` → fields of ``InputSpec``. Imports no torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from vidcls.errors import ConfigError

FILE = "preprocessor_config.json"
MAX_SIZE = 8192  # pixels; the bound of InputSpec

# Pillow's numbers of its kernels. Box (4) and Hamming (5) were used by none of these checkpoints.
_KERNELS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

_HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Defaults:
    """What a processor class assumes where its file is silent."""

    size: dict[str, int]
    crop: bool
    square: bool  # one number as ``size`` means a square, not a short side
    scale: float = 1 / 255
    offset: bool = False
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF
    crop_size: int = 224
    normalize: bool = True
    resample: int = 2
    size_from_crop: bool = False  # the class sets ``size`` itself, whatever the file says


# transformers 5.23; the classes of 4.x assume the same.
_DEFAULTS = {
    "vivit": _Defaults({"shortest_edge": 256}, crop=True, square=False, scale=1 / 127.5, offset=True),
    "videomae": _Defaults({"shortest_edge": 224}, crop=True, square=False),
    "timesformer": _Defaults(
        {"shortest_edge": 224}, crop=True, square=False, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    "vjepa2": _Defaults(
        {"shortest_edge": 292},
        crop=True,
        square=False,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop_size=256,
        size_from_crop=True,
    ),
    # VideoPrism's folders name this class, and set what differs from its defaults.
    "llavaonevision": _Defaults({"height": 384, "width": 384}, crop=False, square=True, resample=3),
    "videoprism": _Defaults(
        {"height": 288, "width": 288}, crop=False, square=True, normalize=False, resample=3
    ),
    "vit": _Defaults({"height": 224, "width": 224}, crop=False, square=True),
}
# Which processor goes with a model whose file does not name one.
_BY_MODEL = {
    "vivit": "vivit",
    "timesformer": "videomae",
    "videomae": "videomae",
    "vjepa2": "vjepa2",
    "videoprism_vision_model": "videoprism",
    "vit": "vit",
}
_SUFFIXES = (
    "ImageProcessorFast",
    "ImageProcessorPil",
    "ImageProcessor",
    "VideoProcessor",
    "FeatureExtractor",
)


def assumed_preprocessor(config: dict[str, Any]) -> dict[str, Any]:
    """What to assume for a folder without a preprocessor file: that of the published models of its family.

    They differ from what their processors' classes assume: TimeSformer's have mean 0.45 and std 0.225, VideoMAE's those
    of ImageNet, and ViViT's have neither.
    """
    family = _BY_MODEL.get(str(config.get("model_type")), "")
    size = config.get("crop_size" if family == "vjepa2" else "image_size")
    height, width = (224, 224) if size is None else _height_width(size, "config.json: image_size")
    crop = {"height": height, "width": width}
    short = min(height, width)
    if family == "vit":
        return {"image_processor_type": "ViTImageProcessor", "size": crop}
    if config.get("model_type") == "vivit":
        resize = {"shortest_edge": round(short * 256 / 224)}
        return {
            "image_processor_type": "VivitImageProcessor",
            "size": resize,
            "crop_size": crop,
            "do_normalize": False,
        }
    if family == "videoprism":
        return {"image_processor_type": "VideoPrismVideoProcessor", "size": crop}
    if family == "videomae":
        is_timesformer = config.get("model_type") == "timesformer"
        mean, std = ((0.45,) * 3, (0.225,) * 3) if is_timesformer else (IMAGENET_MEAN, IMAGENET_STD)
        return {
            "image_processor_type": "VideoMAEImageProcessor",
            "size": {"shortest_edge": short},
            "crop_size": crop,
            "image_mean": mean,
            "image_std": std,
        }
    return {"crop_size": crop}  # the class's own defaults


def input_from_preprocessor(config: dict[str, Any], preprocessor: dict[str, Any] | None) -> dict[str, Any]:
    """Read how a Hugging Face checkpoint sees a video.

    The resize follows what transformers 5 runs for the class: Pillow for ``VivitImageProcessor`` and for the
    older feature extractors, torchvision's kernel for the others.

    Args:
        config: Content of ``config.json``; gives ``num_frames`` and, where nothing is cropped, ``image_size``.
        preprocessor: Content of ``preprocessor_config.json`` (or of version 5's ``processor_config.json``); None or
            empty where a checkpoint has none.

    Returns:
        Keyword arguments of ``InputSpec``; only those that the files determine.

    Raises:
        ConfigError: A value is missing, of the wrong kind or out of bounds, or asks for what we do not have.
    """
    if not isinstance(config, dict):
        raise ConfigError("config.json", "must hold an object", "is it the right file?")
    fields: dict[str, Any] = {}
    if config.get("num_frames") is not None:
        fields["num_frames"] = _whole(config["num_frames"], "config.json: num_frames", 65536)
    model_size = config.get("image_size")
    if model_size is not None:
        fields["image_size"] = _height_width(model_size, "config.json: image_size")
    if not preprocessor:
        return fields
    if not isinstance(preprocessor, dict):
        raise ConfigError(FILE, "must hold an object", "is it the right file?")
    for nested in ("video_processor", "image_processor"):
        if isinstance(preprocessor.get(nested), dict):
            preprocessor = preprocessor[nested]
            break
    name, family = _family(preprocessor, config)
    defaults = _DEFAULTS[family]
    fields |= _geometry(preprocessor, defaults, fields.get("image_size"))
    fields |= _kernel(preprocessor, name, family, defaults)
    fields |= _pixels(preprocessor, defaults)
    return fields | {"center_crop": "floor", "channels": "rgb"}


def _family(data: dict[str, Any], config: dict[str, Any]) -> tuple[str, str]:
    """Name of the processor's class (may be empty) and which defaults it has."""
    for key in ("video_processor_type", "image_processor_type", "feature_extractor_type"):
        name = data.get(key)
        if name is None:
            continue
        stem = str(name)
        for suffix in _SUFFIXES:
            stem = stem.removesuffix(suffix)
        if stem.lower() in _DEFAULTS:
            return str(name), stem.lower()
        raise _bad(
            key,
            f"{_show(name)} is not known",
            "known are those of ViViT, TimeSformer, VideoMAE, V-JEPA 2 and ViT",
        )
    model = config.get("model_type")
    if isinstance(model, str) and model in _BY_MODEL:
        return "", _BY_MODEL[model]
    raise _bad("image_processor_type", "is missing", "add the class that prepared the model's pictures")


def _geometry(
    data: dict[str, Any], defaults: _Defaults, model_size: tuple[int, int] | None
) -> dict[str, Any]:
    resize: int | tuple[int, int] | None = None
    if _flag(data, "do_resize", True):
        resize = _size(data.get("size"), "size", defaults)
    if defaults.size_from_crop and resize is not None:
        resize = int(_crop(data, defaults)[0] * 256 / 224)
    if _flag(data, "do_center_crop", defaults.crop):
        image_size = _crop(data, defaults)
    elif isinstance(resize, tuple):
        image_size = resize
    elif model_size is not None:
        image_size = model_size
    elif resize is not None:
        # Hugging Face would feed oblong pictures to a model that takes squares; the middle is what fits.
        image_size = (resize, resize)
    else:
        raise _bad("size", "neither resizes nor crops, and config.json names no image_size", "name a size")
    return {"resize": resize, "image_size": image_size}


def _crop(data: dict[str, Any], defaults: _Defaults) -> tuple[int, int]:
    given = data.get("crop_size")
    return _height_width(defaults.crop_size if given is None else given, f"{FILE}: crop_size")


def _size(value: Any, key: str, defaults: _Defaults) -> int | tuple[int, int]:
    if value is None:
        value = defaults.size
    subject = f"{FILE}: {key}"
    if isinstance(value, dict):
        given = {k: v for k, v in value.items() if v is not None}
        if set(given) == {"shortest_edge"}:
            return _whole(given["shortest_edge"], f"{subject}.shortest_edge", MAX_SIZE)
        if set(given) == {"height", "width"}:
            return _height_width(given, subject)
        raise _bad(
            key, f"has the keys {_show(sorted(map(str, given)))}", "give shortest_edge, or height and width"
        )
    if isinstance(value, (list, tuple)) or defaults.square:
        return _height_width(value, subject)
    return _whole(value, subject, MAX_SIZE)


def _kernel(data: dict[str, Any], name: str, family: str, defaults: _Defaults) -> dict[str, Any]:
    resample = data.get("resample")
    resample = defaults.resample if resample is None else resample
    kernel = resample.lower() if isinstance(resample, str) else None
    if type(resample) is int:
        kernel = _KERNELS.get(resample)
    if kernel not in _KERNELS.values():
        raise _bad("resample", f"{_show(resample)} is not supported", "use 0, 1, 2 or 3 (Pillow's numbers)")
    pillow = name.endswith(("FeatureExtractor", "ImageProcessorPil")) or (
        family == "vivit" and not name.endswith("VideoProcessor")
    )
    # torchvision hands Lanczos to Pillow's algorithm too.
    return {
        "interpolation": kernel,
        "resize_rule": "round" if pillow or kernel == "lanczos" else "torchvision",
    }


def _pixels(data: dict[str, Any], defaults: _Defaults) -> dict[str, Any]:
    scale, offset = 1.0, 0.0
    rescales = _flag(data, "do_rescale", True)
    # Only ViViT's processors know ``offset``; the others ignore the key.
    shifts = defaults.offset and _flag(data, "offset", True)
    if rescales:
        scale = _number(data.get("rescale_factor", defaults.scale), "rescale_factor")
        offset = -1.0 if shifts else 0.0
    elif shifts and data.get("offset") is not None:
        raise _bad("offset", "is true while do_rescale is false", "set one of them otherwise")
    result: dict[str, Any] = {"scale": scale, "offset": offset, "mean": None, "std": None}
    if _flag(data, "do_normalize", defaults.normalize):
        result["mean"] = _three(data.get("image_mean"), "image_mean", defaults.mean)
        result["std"] = _three(data.get("image_std"), "image_std", defaults.std)
        if min(map(abs, result["std"])) < 1e-8:
            raise _bad("image_std", "contains zero", "a channel cannot be divided by it")
    return result


def _flag(data: dict[str, Any], key: str, default: bool) -> bool:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _bad(key, f"must be true or false, not {_show(value)}", "correct it")
    return value


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(key, f"must be a number, not {_show(value)}", "correct it")
    # Compared before float(): a whole number of JSON may have any number of digits.
    if not (-1e9 <= value <= 1e9) or not math.isfinite(value):
        raise _bad(key, f"{_show(value)} is out of bounds", "correct it")
    return float(value)


def _three(value: Any, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if value is None:
        return default
    values = value if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) != 3:
        raise _bad(key, f"must have three numbers, not {len(values)}", "give one for each color")
    red, green, blue = (_number(v, key) for v in values)
    return red, green, blue


def _whole(value: Any, subject: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(
            subject, f"must be a whole number from 1 to {most}, not {_show(value)}", "correct it"
        )
    return value


def _height_width(value: Any, subject: str) -> tuple[int, int]:
    """Read ``n``, ``[n]``, ``[h, w]`` or ``{"height": h, "width": w}``."""
    if isinstance(value, dict):
        if not {"height", "width"} <= set(value):
            raise ConfigError(subject, "must have height and width", "correct it")
        value = [value["height"], value["width"]]
    if not isinstance(value, (list, tuple)):
        value = [value, value]
    if len(value) == 1:
        value = [value[0], value[0]]
    if len(value) != 2:
        raise ConfigError(subject, f"must have two numbers, not {len(value)}", "give height and width")
    return _whole(value[0], subject, MAX_SIZE), _whole(value[1], subject, MAX_SIZE)


def _show(value: object) -> str:
    """Quote a stranger's value, cut to a length that can be read."""
    if isinstance(value, int) and abs(value) > 10**18:
        return "a very large number"
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _bad(key: str, problem: str, remedy: str) -> ConfigError:
    return ConfigError(f"{FILE}: {key}", problem, remedy)
