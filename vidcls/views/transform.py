"""Decoded frames → views (v, c, t, h, w), as each checkpoint was trained. Imports no torch.

Which frames: ``vidcls.views.sampling``. Resampling: ``vidcls.views.resize``. This file cuts the crops and turns
pixels into numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls.video.decoders import Scaling
from vidcls.views.hf_preprocessor import input_from_preprocessor
from vidcls.views.resize import Frame, check_kernel, decoder_scaling, resize_frame, resized_size
from vidcls.views.sampling import ClipPlan, plan_clips

if TYPE_CHECKING:
    from vidcls.config import InputSpec

__all__ = [
    "ClipPlan",
    "FrameTransform",
    "apply_transform",
    "clip_crop",
    "crop_offsets",
    "frame_transform",
    "input_from_preprocessor",
    "make_views",
    "normalize",
    "pixel_scale_shift",
    "plan_clips",
]


@dataclass(frozen=True)
class FrameTransform:
    """What happens to each frame as it is decoded: resize, and cut to what the crops need between them.

    Plain values only, so that sending it to a decoding process costs nothing and needs no pydantic there.

    Attributes:
        crop: Height and width of a crop in pixels.
        num_crops: 1 or 3.
        resize: Length of the short side in pixels, an exact (h, w), or None.
        rule: See ``vidcls.views.resize``.
        interpolation: Kernel of the resize.
        center: Rounding of the middle crop's offset, see `crop_offsets`.
        side: Which side ``resize`` is, ``short`` or ``long``.
        fill: RGB of padding in 0..255.
    """

    crop: tuple[int, int]
    num_crops: int
    resize: int | tuple[int, int] | None
    rule: str
    interpolation: str
    center: str
    side: str = "short"
    fill: tuple[int, int, int] = (0, 0, 0)

    def scaling(self, height: int, width: int) -> Scaling | None:
        """Return what a decoder may scale pictures of a size to, in pixels; None where the rule is not FFmpeg's."""
        return decoder_scaling(height, width, self.resize, self.rule, self.interpolation, self.side)

    def __call__(self, frame: NDArray[np.uint8]) -> Frame:
        """Resize and cut one frame (h, w, 3) uint8.

        Returns:
            (h', w', 3) with h' and w' at least the crop's; float32 in 0..255 under the rule ``float``, else uint8.

        Raises:
            VideoError: The frame's sides are too unequal.
        """
        height, width = resized_size(frame.shape[0], frame.shape[1], self.resize, self.rule, self.side)
        offsets = crop_offsets(height, width, self.crop, self.num_crops, self.center)
        top, left = min(y for y, _ in offsets), min(x for _, x in offsets)
        bottom = max(y for y, _ in offsets) + self.crop[0]
        right = max(x for _, x in offsets) + self.crop[1]
        inside = (max(top, 0), min(bottom, height), max(left, 0), min(right, width))
        cut = resize_frame(frame, (height, width), self.rule, self.interpolation, inside)
        if cut.shape[:2] == (bottom - top, right - left):
            return np.ascontiguousarray(cut)
        padded = np.empty((bottom - top, right - left, 3), cut.dtype)
        padded[:] = self.fill
        padded[inside[0] - top : inside[1] - top, inside[2] - left : inside[3] - left] = cut
        return padded


def frame_transform(spec: InputSpec) -> FrameTransform:
    """Return the step that a decoder applies to each frame for the views of ``spec``; it can be pickled.

    Raises:
        ConfigError: The resize rule has no such kernel.
    """
    check_kernel(spec.resize_rule, spec.interpolation)
    red, green, blue = spec.mean if spec.fill == "mean" and spec.mean else (0.0, 0.0, 0.0)
    if spec.channels == "bgr":
        red, blue = blue, red
    return FrameTransform(
        crop=spec.image_size,
        num_crops=spec.num_crops,
        resize=spec.resize,
        rule=spec.resize_rule,
        interpolation=spec.interpolation,
        center=_rounding(spec),
        side=spec.resize_side,
        fill=(round(255 * red), round(255 * green), round(255 * blue)),
    )


def apply_transform(frames: NDArray[np.uint8], spec: InputSpec) -> Frame:
    """Apply ``frame_transform`` to frames that were decoded without it: (t, h, w, 3) → (t, h', w', 3)."""
    transform = frame_transform(spec)
    return np.stack([transform(frame) for frame in frames])


def crop_offsets(
    height: int, width: int, crop: tuple[int, int], num_crops: int, center: str | None = None
) -> list[tuple[int, int]]:
    """Top left corners (y, x) of the crops in a picture.

    Three crops lie at the start, in the middle and at the end of the longer side, centered across it; a square
    counts as wide. Their middles are rounded up in scenic and in the SlowFast family alike, down in VideoMAE; with
    ``steps`` they are rounded down and the last crop is as far from the middle as the first (V-JEPA 2). A single crop
    is centered. A corner is negative where the picture is smaller than the
    crop and must be padded; the larger part of the padding then goes below and to the right, as TensorFlow's
    ``resize_with_crop_or_pad`` and torchvision have it.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        crop: Height and width of a crop in pixels.
        num_crops: 1 or 3.
        center: Rounding of the middle: ``floor``, ``ceil``, ``round`` (to the even neighbor), or for three crops
            ``steps``; None for ``floor`` of one crop and ``ceil`` of three.
    """
    rounding = center or ("ceil" if num_crops == 3 else "floor")
    y, x = _middle(height, crop[0], rounding), _middle(width, crop[1], rounding)
    if num_crops == 1:
        return [(y, x)]
    if max(height, crop[0]) > max(width, crop[1]):
        last = 2 * y if rounding == "steps" else height - crop[0]
        return [(min(y, 0), x), (y, x), (max(last, y), x)]
    last = 2 * x if rounding == "steps" else width - crop[1]
    return [(y, min(x, 0)), (y, x), (y, max(last, x))]


def _middle(length: int, crop: int, rounding: str) -> int:
    if length < crop:
        return -((crop - length) // 2)
    if rounding == "round":
        return round((length - crop) / 2)
    return (length - crop + (rounding == "ceil")) // 2


def clip_crop(frames: Frame, spec: InputSpec, crop: int) -> Frame:
    """Look at one crop of frames that ``frame_transform`` made, (n, h', w', 3) → (n, h, w, 3); nothing is copied."""
    y, x = _corners(frames, spec)[crop]
    height, width = spec.image_size
    return frames[:, y : y + height, x : x + width, _channel_order(spec)]


def make_views(
    frames: Frame, frame_indices: NDArray[np.int64], plan: ClipPlan, spec: InputSpec
) -> NDArray[np.float32]:
    """Cut and normalize the views; each frame is normalized only once.

    Args:
        frames: (n, h', w', 3) frames as ``frame_transform`` made them, or resized but not cut.
        frame_indices: (n,) their numbers in the file, sorted, each once.
        plan: What ``plan_clips`` chose.
        spec: What the checkpoint wants.

    Returns:
        (num_crops * num_views, 3, t, h, w) float32, contiguous, crop-major.

    Raises:
        ValueError: The frames are not those of the plan, or too small.
    """
    places = _places(frames, frame_indices, plan)
    corners = _corners(frames, spec)
    height, width = spec.image_size
    views, length = places.shape
    result = np.empty((len(corners), views, 3, length, height, width), np.float32)
    for place, frame in enumerate(frames):
        planes = _scaled(frame[..., _channel_order(spec)].transpose(2, 0, 1), spec)
        for view, t in np.argwhere(places == place):
            for crop, (y, x) in enumerate(corners):
                result[crop, view, :, t] = planes[:, y : y + height, x : x + width]
    return result.reshape(-1, *result.shape[2:])


def normalize(pixels: Frame, spec: InputSpec) -> NDArray[np.float32]:
    """Normalize pixels (v, t, h, w, 3), in the spec's order of channels, to (v, 3, t, h, w) float32."""
    return np.stack([_scaled(view.transpose(3, 0, 1, 2), spec) for view in pixels])


def _places(frames: Frame, frame_indices: NDArray[np.int64], plan: ClipPlan) -> NDArray[np.int64]:
    """Where in ``frames`` each frame of the plan is (v, t)."""
    places = np.searchsorted(frame_indices, plan.indices)
    known = np.minimum(places, len(frame_indices) - 1)
    if len(frames) != len(frame_indices) or not np.array_equal(frame_indices[known], plan.indices):
        raise ValueError("the frames are not those that the plan asks for")
    return places


def _corners(frames: Frame, spec: InputSpec) -> list[tuple[int, int]]:
    """Crops within frames that ``frame_transform`` cut; what it left has the same crops as the whole."""
    height, width = frames.shape[1:3]
    if height < spec.image_size[0] or width < spec.image_size[1]:
        raise ValueError(f"frames of {width}x{height} pixels were not prepared by frame_transform")
    return crop_offsets(height, width, spec.image_size, spec.num_crops, _rounding(spec))


def _rounding(spec: InputSpec) -> str:
    return spec.three_crops if spec.num_crops == 3 else spec.center_crop


def _channel_order(spec: InputSpec) -> slice:
    return slice(None, None, -1) if spec.channels == "bgr" else slice(None)


def pixel_scale_shift(spec: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and shift (3,) float32 of each channel: a pixel x becomes ``x * scale + shift``."""
    mean = np.array(spec.mean or (0.0, 0.0, 0.0))
    std = np.array(spec.std or (1.0, 1.0, 1.0))
    return (spec.scale / std).astype(np.float32), ((spec.offset - mean) / std).astype(np.float32)


def _scaled(planes: Frame, spec: InputSpec) -> NDArray[np.float32]:
    """Normalize (3, ...); product and sum are each rounded to float32, as scenic's are."""
    values = np.array(planes, dtype=np.float32, order="C")
    for plane, scale, shift in zip(values, *pixel_scale_shift(spec), strict=True):
        plane *= scale
        plane += shift
    return values
