"""What ViViT's formats share: sizes that are known, asked for, or guessed."""

from __future__ import annotations

import math
from typing import Any

from vidcls.checkpoints.base import Raw
from vidcls.errors import CheckpointError
from vidcls.models.sizes import triple


def joint_grid(
    raw: Raw, num_tokens: int, tubelet: tuple[int, int, int], wanted: dict[str, Any]
) -> tuple[tuple[int, tuple[int, int]], bool]:
    """Find the size of the views behind a flat sequence of tokens, whose positions do not tell it.

    In this order: the sizes asked for, where they make just that many tokens; 32 frames of a usual square size,
    as all released models have; the one size asked for with a square grid for the rest; 32 frames of any square
    size; any number of frames with a square grid.

    Args:
        raw: The file, for errors.
        num_tokens: Tokens, the class token not counted.
        tubelet: (t, h, w).
        wanted: Sizes asked for.

    Returns:
        ``(num_frames, image_size)``, and whether it is a guess.

    Raises:
        CheckpointError: No size fits.
    """
    t, h, w = tubelet
    frames: int | None = wanted.get("num_frames")
    size: tuple[int, int] | None = wanted.get("image_size")
    if frames and size and (frames // t) * (size[0] // h) * (size[1] // w) == num_tokens:
        return (frames, size), False
    usual = _square(num_tokens, 32 // t, h, w)
    if usual is not None and usual[0] in range(112, 513, 16):
        return (32, usual), False
    if frames and (square := _square(num_tokens, frames // t, h, w)):
        return (frames, square), False
    if size and (per_step := (size[0] // h) * (size[1] // w)) and num_tokens % per_step == 0:
        return (num_tokens // per_step * t, size), False
    for steps in dict.fromkeys((32 // t, *range(1, num_tokens + 1))):
        square = _square(num_tokens, steps, h, w)
        if square is not None and square[0] > h:
            return (steps * t, square), True
    raise CheckpointError(
        str(raw.path),
        f"its {num_tokens} position embeddings do not tell how many are in time and how many in space",
        "give num_frames= and image_size= (`vidcls export --frames --image-size`) as it was trained",
    )


def _square(num_tokens: int, steps: int, h: int, w: int) -> tuple[int, int] | None:
    if steps < 1 or num_tokens % steps:
        return None
    side = math.isqrt(num_tokens // steps)
    return (side * h, side * w) if side * side * steps == num_tokens else None


def frame_grid(raw: Raw, num_tokens: int, patch: tuple[int, int], wanted: dict[str, Any]) -> tuple[int, int]:
    """Find the image size behind the tokens of one time step: what is asked for where it fits, else a square.

    Raises:
        CheckpointError: They make no square, and no fitting size is given.
    """
    size: tuple[int, int] | None = wanted.get("image_size")
    if size and (size[0] // patch[0]) * (size[1] // patch[1]) == num_tokens:
        return size
    square = _square(num_tokens, 1, *patch)
    if square is None:
        raise CheckpointError(
            str(raw.path),
            f"its {num_tokens} spatial position embeddings make no square",
            "give image_size= (`vidcls export --image-size HxW`) as it was trained",
        )
    return square


def tubelet_of(raw: Raw, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The tubelet (t, h, w) of a convolution's spatial shape.

    Raises:
        CheckpointError: The shape is not of three axes, or empty.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise raw.error(f"its embedding has the spatial shape {shape}", "it is not a ViViT's")
    return triple((shape[0], shape[1], shape[2]))
