"""Learned position embeddings between grids, as scenic resizes them (``scenic/projects/vivit/model_utils.py``)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(positions: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """Interpolate learned positions between grids, linearly and corners aligned.

    Args:
        positions: (1, n, d), n the product of ``source``, or one more with the class token's row in front.
        source: The grid that they were learned on, of one to three axes.
        target: The grid to fit, of as many axes.

    Returns:
        (1, m, d).

    Raises:
        ValueError: The rows do not make the source grid.
    """
    extra = positions.shape[1] - math.prod(source)
    if extra not in (0, 1):
        raise ValueError(f"{positions.shape[1]} position embeddings do not make a grid of {source}")
    token, grid = positions[:, :extra], positions[:, extra:].float()
    mode = ("linear", "bilinear", "trilinear")[len(source) - 1]
    grid = grid.transpose(1, 2).reshape(1, -1, *source)
    grid = F.interpolate(grid, size=target, mode=mode, align_corners=True).flatten(2).transpose(1, 2)
    return torch.cat([token, grid.to(positions.dtype)], dim=1)
