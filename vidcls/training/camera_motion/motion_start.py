"""How a model starts that is to see small motion: whitened tubelet filters, and positions that are felt."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidcls.config import InputSpec
from vidcls.errors import ConfigError
from vidcls.training.data.dataset import Batch, Loader
from vidcls.training.recipe import Initialize

LONGEST = {1: 32.0, 2: 24.0, 3: 24.0}
"""Longest wavelength in tokens, by the number of axes."""
LUMA = (0.299, 0.587, 0.114)


def set_start(model: nn.Module, init: Initialize, loader: Loader, view: InputSpec, unused_epoch: int) -> None:
    """Whiten the tubelet filters and fill the positions of a model where the recipe says so, in place.

    Args:
        model: The model.
        init: The recipe's ``init``.
        loader: Training clips.
        view: How the model sees a video.
        unused_epoch: An epoch that training does not reach: clips of the full variety, which no step learns from.

    Raises:
        ConfigError: The model does not fit.
    """
    if init.whiten:
        groups = loader.epoch(unused_epoch)
        whiten(model, pixels_of(itertools.chain.from_iterable(groups), view, init.whiten), view)
    if init.sines:
        fill_positions(model, init.sines)


def pixels_of(batches: Iterable[Batch], view: InputSpec, count: int) -> np.ndarray:
    """The pixels (n, t, h, w, 3) uint8 of at least ``count`` clips, back from normalized views."""
    clips: list[np.ndarray] = []
    for batch in batches:
        pixels = (batch.views - view.offset) / view.scale
        clips.extend(pixels.permute(0, 2, 3, 4, 1).round().clamp(0, 255).to(torch.uint8).numpy())
        if len(clips) >= count:
            break
    return np.stack(clips)


def whiten(model: nn.Module, clips: np.ndarray, view: InputSpec) -> None:
    """Set a ViViT's tubelet filters to PCA whitening of the tubelets of ``clips`` (n, t, h, w, 3) uint8.

    Raises:
        ConfigError: The model has no tubelet filters, or takes other pixels than -1..1.
    """
    embedding = next((m for m in model.modules() if isinstance(m, nn.Conv3d)), None)
    if embedding is None:
        raise ConfigError("init.whiten", "this model has no tubelet filters", "set it to 0")
    if view.mean is not None or abs(view.scale - 2 / 255) > 1e-9 or view.offset != -1:
        raise ConfigError(
            "init.whiten", "needs pixels in -1..1", "leave scale, offset, mean and std unchanged"
        )
    t, h, w = embedding.kernel_size
    kernels, bias = whitened_patch_filters(clips, (t, h, w), embedding.out_channels)
    with torch.no_grad():
        embedding.weight.copy_(kernels)
        if embedding.bias is not None:
            embedding.bias.copy_(bias)


def whitened_patch_filters(
    clips: np.ndarray, tubelet_size: tuple[int, int, int], count: int
) -> tuple[Tensor, Tensor]:
    """Filters that make the tokens of training clips white: principal components, each scaled to variance one.

    With ordinary filters brightness swamps motion in every token; whitened, the small changes over time count as much.
    The components are those of luminance, since motion shows in it and they are then three times as many.

    Args:
        clips: (n, t, h, w, 3) uint8.
        tubelet_size: Frames, height and width of a tubelet.
        count: Number of filters; at most the number of pixels of a tubelet in all its frames.

    Returns:
        Kernels (count, 3, t, h, w) and biases (count,), for pixels scaled to [-1, 1].
    """
    t, h, w = tubelet_size
    x = (clips.astype(np.float32) * (2 / 255) - 1) @ np.array(LUMA, np.float32)
    n, frames, height, width = x.shape
    x = x.reshape(n, frames // t, t, height // h, h, width // w, w).transpose(0, 1, 3, 5, 2, 4, 6)
    tubelets = x.reshape(-1, t * h * w).astype(np.float64)
    mean = tubelets.mean(0)
    centered = tubelets - mean
    variance, axes = np.linalg.eigh(centered.T @ centered / len(centered))
    variance, axes = variance[::-1][:count], axes[:, ::-1][:, :count]
    # The floor keeps components that are little but noise from being blown up.
    filters = axes.T / np.sqrt(variance + 0.03)[:, None]
    bias = -filters @ mean
    kernels = filters.reshape(count, 1, t, h, w) * np.array(LUMA).reshape(1, 3, 1, 1, 1)
    return torch.from_numpy(kernels).float(), torch.from_numpy(bias).float()


def sine_positions(grid: tuple[int, ...], dim: int, longest: float, shortest: float = 3.0) -> Tensor:
    """Sine and cosine positions on a grid, some components for each axis.

    Args:
        grid: Tokens along every axis.
        dim: Width; a multiple of twice the number of axes.
        longest: Longest wavelength in tokens.
        shortest: Shortest wavelength in tokens.

    Returns:
        (product of the grid, dim), amplitude 1.
    """
    count = dim // (2 * len(grid))
    wave = 2 * math.pi / torch.logspace(math.log10(longest), math.log10(shortest), count)
    axes = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * wave for axis in axes]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def fill_positions(model: nn.Module, amplitudes: Mapping[str, float]) -> None:
    """Set position embeddings to sines and cosines, in place.

    Zooms and rolls differ from pans only in where the picture moves which way. Whitened tokens have a norm of about 6;
    the usual positions, of a norm of 0.2, go unnoticed for thousands of steps.

    Args:
        model: A ViViT without class tokens.
        amplitudes: Amplitude by the embedding's name, such as ``spatial.pos_embed``.

    Raises:
        ConfigError: The model has no such embedding, or another number of tokens or width than sines can fill.
    """
    config: Any = getattr(model, "config", None)
    find = getattr(model, "position_grids", None)
    grids = {name: grid for name, (grid, _) in find(config, config).items()} if find else {}
    for name, amplitude in amplitudes.items():
        if name not in grids:
            known = ", ".join(grids) or "none"
            raise ConfigError("init.sines", f"{name} is not a position embedding", f"this model's: {known}")
        grid, weight = grids[name], model.get_parameter(name)
        if weight.shape[1] != math.prod(grid) or weight.shape[2] % (2 * len(grid)):
            raise ConfigError(
                "init.sines",
                f"cannot fill {name} of shape {tuple(weight.shape)} on a grid of {grid}",
                "use pool: gap and a width that is a multiple of twice the number of axes",
            )
        with torch.no_grad():
            weight.copy_(sine_positions(grid, weight.shape[2], LONGEST[len(grid)])[None] * amplitude)
