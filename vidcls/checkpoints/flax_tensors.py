"""What flax's trees have in common: where our tensors are in them, and how their kernels lie."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vidcls.checkpoints.base import Rename

QKV = ("query", "key", "value")


def norm(ours: str, theirs: str) -> Iterator[Rename]:
    """A LayerNorm."""
    yield Rename(f"{ours}.weight", (f"{theirs}/scale",))
    yield Rename(f"{ours}.bias", (f"{theirs}/bias",))


def dense(ours: str, theirs: str) -> Iterator[Rename]:
    """A linear layer; its kernel lies (in, out)."""
    yield Rename(f"{ours}.weight", (f"{theirs}/kernel",), _transpose)
    yield Rename(f"{ours}.bias", (f"{theirs}/bias",))


def attention(ours: str, theirs: str, bias: bool) -> Iterator[Rename]:
    """Queries, keys and values as one, and the projection; ``bias`` says whether the three have biases."""
    yield Rename(f"{ours}.qkv.weight", tuple(f"{theirs}/{part}/kernel" for part in QKV), _qkv_weight)
    if bias:
        yield Rename(f"{ours}.qkv.bias", tuple(f"{theirs}/{part}/bias" for part in QKV), _qkv_bias)
    yield Rename(f"{ours}.proj.weight", (f"{theirs}/out/kernel",), _out_weight)
    yield Rename(f"{ours}.proj.bias", (f"{theirs}/out/bias",))


def mlp(ours: str, theirs: str) -> Iterator[Rename]:
    """The two linear layers of an MLP."""
    yield from dense(f"{ours}.fc1", f"{theirs}/Dense_0")
    yield from dense(f"{ours}.fc2", f"{theirs}/Dense_1")


def _transpose(kernel: Tensor) -> Tensor:
    """(in, out) → (out, in)."""
    rows, columns = kernel.shape
    return kernel.reshape(rows, columns).T


def _qkv_weight(*kernels: Tensor) -> Tensor:
    """Three of (d, heads, hd) → (3·d, d)."""
    flat = (kernel.reshape(kernel.shape[0], kernel.shape[1] * kernel.shape[2]).T for kernel in kernels)
    return torch.cat(tuple(flat))


def _qkv_bias(*biases: Tensor) -> Tensor:
    """Three of (heads, hd) → (3·d,)."""
    return torch.cat([bias.reshape(-1) for bias in biases])


def _out_weight(kernel: Tensor) -> Tensor:
    """(heads, hd, d) → (d, d)."""
    heads, width, dim = kernel.shape
    return kernel.reshape(heads * width, dim).T
