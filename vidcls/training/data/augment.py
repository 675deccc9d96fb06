"""Augmentation of training clips, and the softening of their targets.

Every draw holds for all frames of a clip: what moves in the picture must be the scene. Draws come from a
`numpy.random.Generator`, so that a clip's augmentation follows from (seed, epoch, index) alone, whatever
process makes it. Pictures are uint8 tensors (t, 3, h, w) until they are normalized.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcls.config import InputSpec
from vidcls.errors import needing
from vidcls.training.recipe import Augment, Color

Generator = np.random.Generator

LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in the brightness, ITU-R BT.601."""

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "cutout",
    "solarize_add",
    "identity",
)
"""RandAugment's choices, each as likely as the others (``scenic/dataset_lib/video_ops.py``)."""

CUTOUT = 40
"""Half the side in pixels of the square that cutout blackens at magnitude 10."""


_DIRECTION = re.compile(
    r"(?<![a-z])(?:left|right|(?:counter|anti)?[-_ ]?clockwise)(?:wards?)?(?![a-z])", re.I
)


def directional(labels: Sequence[str]) -> list[str]:
    """The labels that speak of left, right or a sense of rotation: a mirrored clip of theirs is wrongly labeled."""
    return [label for label in labels if _DIRECTION.search(label)]


def without_wrong_flips(augment: Augment, labels: Sequence[str]) -> tuple[Augment, str | None]:
    """Switch flips off where class names speak of directions and the recipe does not decide it.

    Returns:
        The settings, and a line that says what was changed, or None.
    """
    found = directional(labels)
    if not found or augment.flip <= 0 or "directions_matter" in augment.model_fields_set:
        return augment, None
    return augment.model_copy(update={"directions_matter": True}), (
        f"classes speak of directions ({', '.join(map(repr, found[:3]))}): clips are not mirrored; "
        "to mirror them all the same, give settings='augment.directions_matter=false'"
    )


def transforms() -> Any:
    """Return torchvision's functional transforms.

    Raises:
        DependencyError: torchvision is not installed.
    """
    with needing(
        "torchvision", "augmentation needs it, and it is not installed", "pip install 'vidcls[train]'"
    ):
        from torchvision.transforms.v2 import functional
    return functional


def rand_augment(frames: Tensor, layers: int, magnitude: float, rng: Generator) -> Tensor:
    """Apply ``layers`` random operations to a clip, (t, 3, h, w) uint8 in and out.

    As scenic does it: no geometric operation, every chosen operation is applied for sure, and the frames lie in
    one tall picture, so that contrast and histogram are those of the whole clip; cutout hits each frame at the
    same place. Contrast pulls toward the mean gray of the clip.
    """
    for _ in range(layers):
        name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        frames = apply_operation(frames, name, magnitude, rng)
    return frames


def apply_operation(frames: Tensor, name: str, magnitude: float, rng: Generator) -> Tensor:
    """Apply one of `OPERATIONS` to a clip, (t, 3, h, w) uint8 in and out.

    Args:
        frames: The clip.
        name: Which operation.
        magnitude: Its strength; 10 is the full range, and more goes beyond it.
        rng: Draws the place of cutout; the other operations are determined.
    """
    level = magnitude / 10.0
    if name == "identity":
        return frames
    if name == "cutout":
        return cutout(frames, int(level * CUTOUT), rng)
    if name == "solarize_add":
        brighter = (frames.to(torch.int16) + int(level * 110)).clamp_(0, 255).to(torch.uint8)
        return torch.where(frames < 128, brighter, frames)
    if name == "solarize" and int(level * 256) > 255:
        return frames  # no pixel is as bright as the threshold
    f = transforms()
    tall = frames.transpose(0, 1).flatten(1, 2)  # (3, t·h, w)
    factor = level * 1.8 + 0.1
    simple: dict[str, Callable[[], Tensor]] = {
        "auto_contrast": lambda: f.autocontrast(tall),
        "equalize": lambda: f.equalize(tall),
        "invert": lambda: f.invert(tall),
        "posterize": lambda: f.posterize(tall, min(8, int(level * 4))),
        "solarize": lambda: f.solarize(tall, float(int(level * 256))),
        "color": lambda: f.adjust_saturation(tall, factor),
        "contrast": lambda: f.adjust_contrast(tall, factor),
        "brightness": lambda: f.adjust_brightness(tall, factor),
    }
    if name == "sharpness":
        return f.adjust_sharpness(frames, factor)  # frame by frame: rows of two frames do not mix
    return simple[name]().reshape(3, frames.shape[0], *frames.shape[2:]).transpose(0, 1)


def cutout(frames: Tensor, half: int, rng: Generator) -> Tensor:
    """Blacken a square of ``2·half`` pixels at one random place, the same in every frame (t, 3, h, w)."""
    height, width = frames.shape[-2:]
    y, x = int(rng.integers(height)), int(rng.integers(width))
    frames = frames.clone()
    frames[..., max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
    return frames


def jitter_color(frames: Tensor, color: Color, rng: Generator) -> Tensor:
    """Jitter brightness, saturation, contrast and hue, then perhaps drop the color; (t, 3, h, w) in 0..1.

    Order and ranges as in DMVR's ``color_default_augm``, which scenic's Kinetics recipes use. Contrast pulls each
    channel of each frame toward its own mean, as TensorFlow does.
    """
    if rng.random() < color.probability:
        frames = frames + rng.uniform(-color.brightness, color.brightness)
        gray = to_gray(frames)
        frames = gray + (frames - gray) * rng.uniform(*color.saturation)
        mean = frames.mean((-2, -1), keepdim=True)
        frames = (mean + (frames - mean) * rng.uniform(*color.contrast)).clamp(0.0, 1.0)
        if color.hue > 0:
            turned: Tensor = transforms().adjust_hue(frames, float(rng.uniform(-color.hue, color.hue)))
            frames = turned
    if rng.random() < color.grayscale:
        frames = to_gray(frames).expand_as(frames)
    return frames


def to_gray(frames: Tensor) -> Tensor:
    """Brightness of a clip, (t, 3, h, w) → (t, 1, h, w)."""
    weights = frames.new_tensor(LUMA).view(1, 3, 1, 1)
    return (frames * weights).sum(1, keepdim=True)


def draw_short_side(augment: Augment, rng: Generator) -> int | None:
    """Length in pixels of the short side for the next clip (SlowFast), or None to leave the resize as it is.

    Evenly in the length, or in its inverse, which makes small sides likelier (``inverse_short_side``).
    """
    if augment.short_side is None:
        return None
    low, high = augment.short_side
    if augment.inverse_short_side:
        return round(1.0 / rng.uniform(1.0 / high, 1.0 / low))
    return round(rng.uniform(low, high))


def scale_sides(
    frames: Tensor, limits: tuple[float, float], least: tuple[int, int], rng: Generator
) -> Tensor:
    """Stretch height and width of a clip (t, 3, h, w) by two independent factors, bilinear.

    No side becomes shorter than ``least`` (h, w), so that the crop after it fits.
    """
    height = max(least[0], int(frames.shape[-2] * rng.uniform(*limits)))
    width = max(least[1], int(frames.shape[-1] * rng.uniform(*limits)))
    return transforms().resize(frames, [height, width], antialias=False)


def crop(frames: Tensor, size: tuple[int, int], rng: Generator | None) -> Tensor:
    """Cut ``size`` (h, w) out of a clip (t, 3, h, w), at a random place, or at the center without ``rng``.

    A clip that is too small is stretched first, so that no border is invented.
    """
    height, width = frames.shape[-2:]
    if height < size[0] or width < size[1]:
        scale = max(size[0] / height, size[1] / width)
        target = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
        frames = transforms().resize(frames, target, antialias=False)
        height, width = frames.shape[-2:]
    if rng is None:
        y, x = (height - size[0]) // 2, (width - size[1]) // 2
    else:
        y, x = int(rng.integers(height - size[0] + 1)), int(rng.integers(width - size[1] + 1))
    return frames[..., y : y + size[0], x : x + size[1]]


def normalize(frames: Tensor, spec: InputSpec) -> Tensor:
    """Pixels in 0..255 (t, 3, h, w) to what the model takes, (3, t, h, w) float32."""
    x = frames.to(torch.float32).transpose(0, 1)
    if spec.channels == "bgr":
        x = x.flip(0)  # before mean and std, which are given in the model's own order
    x = x * spec.scale + spec.offset
    if spec.mean is not None and spec.std is not None:
        x = (x - x.new_tensor(spec.mean).view(3, 1, 1, 1)) / x.new_tensor(spec.std).view(3, 1, 1, 1)
    return x.contiguous()


def augment_clip(frames: Tensor, spec: InputSpec, augment: Augment, rng: Generator) -> Tensor:
    """All that happens to the pictures of a training clip, in the order of the published systems.

    Args:
        frames: Resized clip (t, 3, h, w), uint8, or float in 0..255.
        spec: How the model sees a video; its ``image_size`` is the crop.
        augment: What to do.
        rng: Draws everything.

    Returns:
        (3, t, h, w) float32, normalized.
    """
    if augment.scale_jitter is not None:
        frames = scale_sides(frames, augment.scale_jitter, spec.image_size, rng)
    frames = crop(frames, spec.image_size, rng if augment.random_crop else None)
    if rng.random() < augment.flip and not augment.directions_matter:
        frames = frames.flip(-1)
    if augment.randaugment is not None:
        if frames.dtype != torch.uint8:
            frames = frames.round().clamp(0, 255).to(torch.uint8)
        frames = rand_augment(frames, augment.randaugment.layers, augment.randaugment.magnitude, rng)
    if augment.color is not None:
        frames = jitter_color(frames.to(torch.float32) / 255.0, augment.color, rng).clamp(0, 1) * 255.0
    return normalize(frames, spec)


def soft_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """One-hot targets (b, k) of labels (b,), a part ``smoothing`` of each spread over all k classes."""
    one_hot = torch.nn.functional.one_hot(labels, num_classes).to(torch.float32)
    return one_hot * (1.0 - smoothing) + smoothing / num_classes


def mixup_share(alpha: float, rng: Generator) -> float:
    """Mixup's share λ ~ Beta(α, α) for one batch; 1 where mixup is off."""
    return float(rng.beta(alpha, alpha)) if alpha > 0 else 1.0


def mix(x: Tensor, share: float) -> Tensor:
    """Mix a batch with itself in reverse order: λ·x + (1 − λ)·flip(x) (Zhang et al. 2018, as in scenic)."""
    return x if share == 1.0 else x * share + x.flip(0) * (1.0 - share)
