"""What the architectures' configurations share: sizes, and names of activations. Imports no torch."""

from __future__ import annotations

ACTIVATIONS = tuple(
    (
        "gelu gelu_tanh quick_gelu gelu_10 relu relu2 relu6 leaky_relu silu hardswish mish tanh sigmoid laplace "
        "sqrtsoftplus linear"
    ).split()
)
"""Keys of `vidcls.models.layers.ACTIVATIONS`."""


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return ``size`` as (h, w): an int stands for both."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def triple(size: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """Return ``size`` as (t, h, w): an int stands for all three."""
    return (size, size, size) if isinstance(size, int) else (int(size[0]), int(size[1]), int(size[2]))
