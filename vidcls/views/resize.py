"""Picture sizes and resampling, each rule as one family of published code has it. Imports no torch.

The rules differ by up to a gray level or two, which is more than the numerical difference between a model and
its re-implementation, so that each checkpoint keeps its own:

``truncate``     ``tf.image.resize``: bilinear, half-pixel centers, no antialias; cut to whole gray levels.
``round``        Pillow: the kernel widens with the reduction (antialias); rounded to whole gray levels.
``torchvision``  The same kernel, its weights rounded to 15 bits and the sum shifted, as torch does on uint8.
``float``        ``torch.nn.functional.interpolate``: bilinear, no antialias; stays a float.
``opencv``       ``cv2.resize`` on uint8: bilinear, no antialias, weights of 11 bits; rounded to whole gray levels.
``swscale``      FFmpeg's scaler, antialias, as the decoder converts to RGB: the cheapest by far, for models that are
                 trained here. Its last bit is the FFmpeg version's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidcls.errors import ConfigError, VideoError
from vidcls.video.decoders import Scaling

SWSCALE = {"nearest": "POINT", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}
"""FFmpeg's names of the kernels."""

MAX_RESIZED_PIXELS = 64 * 1024**2
"""Bound on height × width after the resize: a frame 4 pixels high must not become gigabytes."""

Frame = NDArray[Any]
Window = tuple[int, int, int, int]
"""Top, bottom, left, right of the part of the resized picture that is wanted, in pixels."""

_PIL = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


KEEPS_SHAPE: dict[str, Callable[[float, float], float]] = {"cover": min, "fit": max}
"""Ways to keep a picture's shape in a size (h, w), and which of the two ratios of sides decides."""


def resized_size(
    height: int, width: int, resize: int | tuple[int, int] | None, rule: str, side: str = "short"
) -> tuple[int, int]:
    """Return the size (h, w) that a picture gets.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        resize: Length of one side, an exact (h, w), or None for no change.
        rule: The resize rule; it decides how the long side is rounded down.
        side: Which side ``resize`` is, ``short`` or ``long``; the short one is rounded to the nearest. With (h, w),
            ``cover`` and ``fit`` keep the picture's shape: it covers that size, or fits into it (timm's
            ``ResizeKeepRatio``).

    Raises:
        VideoError: The picture would become too large.
    """
    if resize is None:
        return height, width
    if not isinstance(resize, int):
        return resize if side not in KEEPS_SHAPE else _kept_shape(height, width, resize, KEEPS_SHAPE[side])
    short, long = min(height, width), max(height, width)
    if side == "long":
        sizes = [max(1, round(length * resize / long)) for length in (height, width)]
        return sizes[0], sizes[1]
    if short == resize:
        return height, width
    if rule == "truncate":
        new_long = long * resize // short
    elif rule == "float":
        new_long = math.floor(float(long) / short * resize)
    else:
        new_long = int(resize * long / short)
    if new_long * resize > MAX_RESIZED_PIXELS:
        raise _too_unequal(height, width, resize)
    return (resize, new_long) if height <= width else (new_long, resize)


def _kept_shape(
    height: int, width: int, target: tuple[int, int], choose: Callable[[float, float], float]
) -> tuple[int, int]:
    ratio = choose(height / target[0], width / target[1])
    size = max(1, round(height / ratio)), max(1, round(width / ratio))
    if size[0] * size[1] > MAX_RESIZED_PIXELS:
        raise _too_unequal(height, width, min(target))
    return size


def _too_unequal(height: int, width: int, resize: int) -> VideoError:
    return VideoError(
        f"a frame of {width}x{height} pixels",
        f"its sides are too unequal to be resized to a short side of {resize}",
        "crop the video first",
        kind="too_large",
    )


def decoder_scaling(
    height: int,
    width: int,
    resize: int | tuple[int, int] | None,
    rule: str,
    interpolation: str,
    side: str = "short",
) -> Scaling | None:
    """Return what a decoder may scale pictures to; None where the rule is not FFmpeg's. See `resized_size`.

    Raises:
        VideoError: The picture would become too large.
    """
    if rule != "swscale":
        return None
    return Scaling(*resized_size(height, width, resize, rule, side), SWSCALE[interpolation])


def check_kernel(rule: str, interpolation: str) -> None:
    """Raise a ConfigError where a rule has no such kernel."""
    known = {
        "truncate": ("bilinear", "nearest"),
        "float": ("bilinear", "nearest"),
        "opencv": ("bilinear",),
        "torchvision": ("bilinear", "bicubic", "nearest"),
        "round": tuple(_PIL),
        "swscale": tuple(SWSCALE),
    }[rule]
    if interpolation not in known:
        raise ConfigError(
            "input.interpolation",
            f"{interpolation!r} does not go with resize_rule {rule!r}",
            f"use {known[0]!r}",
        )


def resize_frame(frame: Frame, size: tuple[int, int], rule: str, interpolation: str, window: Window) -> Frame:
    """Resize one picture and cut a window out of the result; only what the window needs is computed.

    Args:
        frame: (h, w, 3) uint8.
        size: Height and width of the whole resized picture.
        rule: One of this module's rules.
        interpolation: ``bilinear``, ``bicubic``, ``nearest`` or ``lanczos``, as far as the rule has it.
        window: Which part of the resized picture to return.

    Returns:
        (window's height, window's width, 3), uint8, or float32 in 0..255 under the rule ``float``.

    Raises:
        ConfigError: The rule has no such kernel.
    """
    check_kernel(rule, interpolation)
    top, bottom, left, right = window
    result: Frame
    if size == frame.shape[:2]:
        result = frame[top:bottom, left:right]
    elif rule == "round":
        image = Image.fromarray(np.ascontiguousarray(frame))
        whole = np.asarray(image.resize((size[1], size[0]), _PIL[interpolation]))
        result = whole[top:bottom, left:right]
    elif rule == "swscale":
        result = _swscale(frame, size, SWSCALE[interpolation])[top:bottom, left:right]
    elif interpolation == "nearest":
        rows = _nearest(frame.shape[0], size[0])[top:bottom]
        columns = _nearest(frame.shape[1], size[1])[left:right]
        result = frame[rows[:, None], columns]
    elif rule == "opencv":
        result = _fixed_point(frame, size, window)
    elif rule == "torchvision":
        result = _antialiased(frame, size, interpolation, window)
    else:
        result = _bilinear(frame, size, window, fused=rule == "float")
    if rule == "float":
        return result.astype(np.float32, copy=False)
    return result.astype(np.uint8, copy=False)


def _swscale(frame: Frame, size: tuple[int, int], kernel: str) -> NDArray[np.uint8]:
    """Scale a picture that was not scaled while it was decoded, as one that is in memory."""
    import av

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    scaled = picture.reformat(width=size[1], height=size[0], interpolation=kernel)
    return np.asarray(scaled.to_ndarray(), np.uint8)


def _nearest(before: int, after: int) -> NDArray[np.int64]:
    """Source index of each pixel: the one whose center is nearest."""
    scale = np.float32(before) / np.float32(after)
    centers = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(centers.astype(np.int64), before - 1)


@lru_cache(maxsize=64)
def _linear_table(
    before: int, after: int, start: int, stop: int, fused: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Both neighbors of pixels start..stop and the second one's weight, in float32.

    TensorFlow rounds the product and then the difference; torch's build does both in one instruction (``fused``).
    """
    scale = np.float32(before) / np.float32(after)
    if fused:
        position = ((np.arange(start, stop) + 0.5) * np.float64(scale) - 0.5).astype(np.float32)
    else:
        position = (np.arange(start, stop, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    below = np.floor(position)
    lower = np.clip(below, 0, before - 1).astype(np.int64)
    upper = np.clip(np.ceil(position), 0, before - 1).astype(np.int64)
    return lower, upper, position - below


def _bilinear(frame: Frame, size: tuple[int, int], window: Window, fused: bool) -> Frame:
    """Bilinear without antialias, columns first as TensorFlow does → float32."""
    top, bottom, left, right = window
    above, under, weight_y = _linear_table(frame.shape[0], size[0], top, bottom, fused)
    before, after, weight_x = _linear_table(frame.shape[1], size[1], left, right, fused)
    rows, place = np.unique(np.concatenate([above, under]), return_inverse=True)
    picked = frame[rows]
    first = picked[:, before].astype(np.float32)
    second = picked[:, after].astype(np.float32)
    second -= first
    second *= weight_x[:, None]
    first += second
    upper, lower = first[place[: len(above)]], first[place[len(above) :]]
    lower -= upper
    lower *= weight_y[:, None, None]
    upper += lower
    return upper


@lru_cache(maxsize=64)
def _fixed_point_table(
    before: int, after: int, start: int, stop: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Both neighbors of pixels start..stop and their weights in 2048ths, as OpenCV's ``resizeGeneric_`` has them."""
    position = ((np.arange(start, stop) + 0.5) * (before / after) - 0.5).astype(np.float32)
    lower = np.floor(position).astype(np.int64)
    share = position - lower.astype(np.float32)
    share[(lower < 0) | (lower >= before - 1)] = 0.0
    lower = np.clip(lower, 0, before - 1)
    first, second = (np.rint(part * np.float32(2048)).astype(np.int32) for part in (1 - share, share))
    return lower, np.minimum(lower + 1, before - 1), first, second


def _fixed_point(frame: Frame, size: tuple[int, int], window: Window) -> NDArray[np.uint8]:
    """Bilinear without antialias in OpenCV's integers: 11 bits of weight, the last bits of each pass dropped."""
    top, bottom, left, right = window
    above, under, weight_above, weight_under = _fixed_point_table(frame.shape[0], size[0], top, bottom)
    before, after, weight_before, weight_after = _fixed_point_table(frame.shape[1], size[1], left, right)
    rows, place = np.unique(np.concatenate([above, under]), return_inverse=True)
    picked = frame[rows].astype(np.int32)
    lines = (picked[:, before] * weight_before[:, None] + picked[:, after] * weight_after[:, None]) >> 4
    upper = (lines[place[: len(above)]] * weight_above[:, None, None]) >> 16
    lower = (lines[place[len(above) :]] * weight_under[:, None, None]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2, which Pillow and torch's antialiased resize use."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x - 4
    return np.where(x < 1, near, np.where(x < 2, -0.5 * far, 0.0))


_KERNELS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
}


@lru_cache(maxsize=64)
def _integer_table(before: int, after: int, kernel: str) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Source indices (n, taps), integer weights (n, taps) and their binary point, as torch on uint8 has them.

    The weights keep as many bits as the largest of them allows within 16 (ATen's UpSampleKernel.cpp).
    """
    function, radius = _KERNELS[kernel]
    scale = before / after
    support = radius * max(scale, 1.0)
    centers = scale * (np.arange(after) + 0.5)
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), before)
    offsets = np.arange(math.ceil(support) * 2 + 1)
    indices = first[:, None] + offsets
    weights = function(np.abs((indices - centers[:, None] + 0.5) / max(scale, 1.0)))
    weights[indices >= last[:, None]] = 0.0
    # cumsum adds one by one as the reference does; sum() adds in pairs, which can differ in the last bit.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    whole = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights)).astype(np.int32)
    keep = whole.any(axis=0)
    return np.minimum(indices, before - 1)[:, keep], whole[:, keep], bits


def _antialiased(frame: Frame, size: tuple[int, int], kernel: str, window: Window) -> Frame:
    """Antialiased resize with integer weights, columns first, whole gray levels in between."""
    top, bottom, left, right = window
    if size[0] != frame.shape[0]:
        rows, weights_y, bits_y = _integer_table(frame.shape[0], size[0], kernel)
        rows, weights_y = rows[top:bottom], weights_y[top:bottom]
        first, last = int(rows.min()), int(rows.max()) + 1
    else:
        first, last = top, bottom
    result = frame[first:last]
    if size[1] != frame.shape[1]:
        columns, weights_x, bits_x = _integer_table(frame.shape[1], size[1], kernel)
        result = _weigh(result, columns[left:right], weights_x[left:right, :, None], bits_x, axis=1)
    else:
        result = result[:, left:right]
    if size[0] != frame.shape[0]:
        result = _weigh(result, rows - first, weights_y[:, :, None, None], bits_y, axis=0)
    return result


def _weigh(
    frame: Frame, indices: NDArray[np.int64], weights: NDArray[np.int32], bits: int, axis: int
) -> NDArray[np.uint8]:
    """Sum the taps along an axis in 32 bits, which cannot overflow: the weights' sum is below 2^23."""
    total: NDArray[np.int32] | None = None
    for tap in range(indices.shape[1]):
        term = np.take(frame, indices[:, tap], axis=axis).astype(np.int32)
        term *= weights[:, tap]
        total = term if total is None else np.add(total, term, out=total)
    assert total is not None, "a kernel has at least one tap"
    if bits:
        total += 1 << (bits - 1)
    total >>= bits
    return np.clip(total, 0, 255, out=total).astype(np.uint8)
