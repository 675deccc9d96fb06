"""From two dimensions to three: filters and position embeddings of an image ViT made fit for video.

Arnab et al. 2021 (ViViT), section 3.4, equations 8 and 9, and what ``scenic/projects/vivit/model_utils.py``
does where the paper is silent. Pure tensor functions; `vidcls.training.init.initialize` applies them to a model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vidcls.errors import ConfigError

METHODS = ("central", "average", "average_arp")
"""How a filter is inflated: into the central frame, evenly, or weighted by approximate rank pooling."""

POSITIONS = ("auto", "tile", "resize", "resize_tile")
"""How position embeddings are fitted: repeated over time, resized in the picture, or both."""


def rank_pooling_weights(num_frames: int) -> list[float]:
    """Weight of each of ``num_frames`` frames under approximate rank pooling (Bilen et al. 2016, equation 4).

    They favor late frames over early ones, so that the sum of weighted frames tells which way time runs.
    """
    harmonic = [0.0]
    for i in range(1, num_frames + 1):
        harmonic.append(harmonic[-1] + 1.0 / i)
    return [
        2.0 * (num_frames - t + 1) - (num_frames + 1) * (harmonic[num_frames] - harmonic[t - 1])
        for t in range(1, num_frames + 1)
    ]


def inflate_filters(weight: Tensor, num_frames: int, method: str = "central") -> Tensor:
    """Turn the patch filters of an image model into tubelet filters.

    Args:
        weight: (d, c, h, w), filters of a 2-D convolution.
        num_frames: Frames of one tubelet, t.
        method: ``central`` puts the filter at frame t // 2 and zero elsewhere (equation 9), ``average`` puts
            1/t of it at each frame (equation 8), ``average_arp`` weights frames by approximate rank pooling.

    Returns:
        (d, c, t, h, w).

    Raises:
        ConfigError: The method is none of `METHODS`.
    """
    if method == "central":
        inflated = weight.new_zeros(*weight.shape[:2], num_frames, *weight.shape[2:])
        inflated[:, :, num_frames // 2] = weight
        return inflated
    if method == "average":
        shares = [1.0 / num_frames] * num_frames
    elif method == "average_arp":
        shares = [share / num_frames for share in rank_pooling_weights(num_frames)]
    else:
        raise ConfigError(
            f"filter inflation {method!r}", "is not known", f"choose one of {', '.join(METHODS)}"
        )
    return torch.stack([weight * share for share in shares], dim=2)


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize position embeddings (1, h·w, d) of a square grid to ``size`` (h, w), bilinear, corners aligned.

    scipy's ``zoom``, which the reference calls, keeps the corners; without it values are off by up to 1.

    Raises:
        ConfigError: The number of embeddings is not a square.
    """
    side = math.isqrt(grid.shape[1])
    if side * side != grid.shape[1]:
        raise ConfigError(
            "position embeddings",
            f"{grid.shape[1]} of them form no square grid",
            "use an image model of square pictures",
        )
    picture = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture.float(), size=size, mode="bilinear", align_corners=True)
    return picture.permute(0, 2, 3, 1).reshape(1, size[0] * size[1], -1).to(grid.dtype)


def fit_positions(
    source: Tensor,
    target: Tensor,
    *,
    grid: tuple[int, int],
    num_frames: int,
    source_cls: bool,
    target_cls: bool,
    how: str = "auto",
) -> Tensor:
    """Fit the position embeddings of an image model to those of a video model.

    Args:
        source: (1, n, d), class token's row first where ``source_cls``.
        target: (1, m, d), what the video model holds; only the row of its class token may be kept.
        grid: (h, w) in tokens of the video model.
        num_frames: Time steps in the sequence that ``target`` belongs to; 1 for a spatial encoder.
        source_cls: Whether the source has a class token.
        target_cls: Whether the target has one.
        how: ``tile`` repeats the grid over time, ``resize`` fits the grid, ``resize_tile`` does both, and
            ``auto`` does what is needed.

    Returns:
        (1, m, d). The class token's row is copied once in front where both have one, dropped where only the
        source has one, and kept from ``target`` where only the target has one.

    Raises:
        ConfigError: The embeddings cannot be fitted in the way asked for.
    """
    if how not in POSITIONS:
        raise ConfigError(f"positions {how!r}", "is not known", f"choose one of {', '.join(POSITIONS)}")
    if source.shape[-1] != target.shape[-1]:
        raise ConfigError(
            "position embeddings",
            f"the image model's width is {source.shape[-1]}, the video model's {target.shape[-1]}",
            "choose an image model of the same width",
        )
    if source.shape == target.shape and source_cls == target_cls:
        return source.clone()
    cls_row, rows = (source[:, :1], source[:, 1:]) if source_cls else (None, source)
    if how in ("auto", "resize", "resize_tile") and rows.shape[1] != grid[0] * grid[1]:
        rows = resize_grid(rows, grid)
    if how != "resize" and num_frames > 1:
        rows = rows.repeat(1, num_frames, 1)
    if target_cls:
        rows = torch.cat([target[:, :1] if cls_row is None else cls_row, rows], dim=1)
    if rows.shape != target.shape:
        raise ConfigError(
            "position embeddings",
            f"{how!r} makes {rows.shape[1]} rows, the model has {target.shape[1]}",
            "use 'resize_tile' (or 'auto') where picture size and number of frames both differ",
        )
    return rows
