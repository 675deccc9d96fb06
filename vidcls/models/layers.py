"""Layers whose mathematics every model here shares.

Parameter names follow timm (``attn.qkv``, ``attn.proj``, ``mlp.fc1``, ``mlp.fc2``), so that several key maps
of published checkpoints shrink to nothing. A layer lives here only if its mathematics is the same for all.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.sizes import pair

# The Gaussian error linear unit exists twice in the published models, and the difference (up to 1e-3 in the
# logits) decides parity: flax and HF's ``gelu_fast`` use the tanh approximation, timm and BERT do not.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": lambda: Elementwise(quick_gelu),
    "gelu_10": lambda: Elementwise(gelu_10),
    "relu": nn.ReLU,
    "relu2": lambda: Elementwise(relu2),
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "laplace": lambda: Elementwise(laplace),
    "sqrtsoftplus": lambda: Elementwise(sqrt_softplus),
    "linear": nn.Identity,
}


class Elementwise(nn.Module):
    """An activation that torch has no module for."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.function.__name__


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of the GELU (Hendrycks and Gimpel 2016), as CLIP has it."""
    return x * torch.sigmoid(1.702 * x)


def gelu_10(x: Tensor) -> Tensor:
    """The GELU between -10 and 10, for quantization (Wu et al. 2020, arXiv 2004.09602)."""
    return F.gelu(x).clamp(-10, 10)


def relu2(x: Tensor) -> Tensor:
    """The squared ReLU of Primer (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()


def laplace(x: Tensor) -> Tensor:
    """MEGA's Laplace function (Ma et al. 2022, arXiv 2209.10655), with its rounded mean and deviation."""
    return 0.5 * (1.0 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


def sqrt_softplus(x: Tensor) -> Tensor:
    """The root of the softplus, as transformers' ``sqrtsoftplus``."""
    return F.softplus(x).sqrt()


class TubeletEmbedding(nn.Module):
    """Cut a view into tubelets and project each to a token; section 3.2, (b, c, t, h, w) → (b, t', h'·w', d)."""

    def __init__(self, tubelet_size: tuple[int, int, int], in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, embed_dim, tubelet_size, stride=tubelet_size)

    def forward(self, views: Tensor) -> Tensor:
        if views.is_cuda:
            return self.project_tubelets(views)
        tokens: Tensor = self.proj(views)  # (b, d, t', h', w')
        return tokens.flatten(3).permute(0, 2, 3, 1)

    def project_tubelets(self, views: Tensor) -> Tensor:
        """The same as one matrix product, many times as fast on GPUs: cuDNN has no good kernel for it."""
        step, high, wide = self.proj.kernel_size
        t, h, w = views.shape[2] // step, views.shape[3] // high, views.shape[4] // wide
        whole = views[:, :, : t * step, : h * high, : w * wide]
        cut = whole.reshape(*views.shape[:2], t, step, h, high, w, wide)
        tubelets = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # (b, t', h', w', c·step·high·wide)
        return F.linear(tubelets, self.proj.weight.flatten(1), self.proj.bias).flatten(2, 3)


class Mlp(nn.Module):
    """Two linear layers with an activation between them, (..., d) → (..., d)."""

    def __init__(self, dim: int, hidden_dim: int, activation: str = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


# Attention over at most so many tokens is packed on CUDA devices, into sequences of at most `PACKED` tokens.
SHORT, PACKED = 32, 128


def attend_in_packs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over many short sequences, (..., heads, n, hd) each → (..., heads, n, hd).

    The kernels of GPUs work on 64 or 128 tokens at a time, so sequences of 8 leave them idle. Some are laid end to
    end, and a mask keeps each token to its own: the same sums, and fewer of them wasted.
    """
    many = [part.flatten(0, -4) for part in (q, k, v)]
    count, heads, n, width = many[0].shape
    per_pack = next(size for size in range(max(1, PACKED // n), 0, -1) if count % size == 0)
    # (count, heads, n, hd) → (packs, heads, per_pack · n, hd); the projection's layout makes this a view
    packed = (part.transpose(1, 2).reshape(-1, per_pack * n, heads, width).transpose(1, 2) for part in many)
    q_packs, k_packs, v_packs = packed
    owner = torch.arange(per_pack * n, device=q.device) // n
    attended = F.scaled_dot_product_attention(q_packs, k_packs, v_packs, owner[:, None] == owner)
    return attended.transpose(1, 2).reshape(-1, n, heads, width).transpose(1, 2).view_as(q)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    Vaswani et al. 2017, section 3.2.2. Input and output are (..., n, d): attention runs over the next to last
    axis, and all axes before it count as batch.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim {dim} cannot be split into {num_heads} heads")
        self.num_heads = num_heads
        self.attn_drop = attn_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project (..., n, d) to queries, keys and values, each (..., heads, n, d / heads)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (..., n, 3, heads, hd)
        q, k, v = qkv.unbind(-3)
        return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """Join (..., heads, n, d / heads) and project to (..., n, d)."""
        return self.proj_drop(self.proj(x.transpose(-3, -2).flatten(-2)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scaled dot-product attention; dropout in training only, which torch leaves to us."""
        if q.is_cuda and mask is None and not self.training and k.shape[-2] == q.shape[-2] <= SHORT:
            return attend_in_packs(q, k, v)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.attn_drop if self.training else 0.0
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.merge_heads(self.attend(*self.split_heads(x)))

    def first(self, x: Tensor) -> Tensor:
        """What `forward` gives for the first token, without the others': (..., n, d) → (..., 1, d)."""
        dim, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        q = F.linear(x[..., :1, :], weight[:dim], None if bias is None else bias[:dim])
        kv = F.linear(x, weight[dim:], None if bias is None else bias[dim:])
        k, v = torch.unflatten(kv, -1, (2, self.num_heads, -1)).unbind(-3)  # (..., n, heads, hd) each
        q = torch.unflatten(q, -1, (self.num_heads, -1))
        return self.merge_heads(self.attend(*(part.transpose(-3, -2) for part in (q, k, v))))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drop a residual branch for whole examples, in training only.

    Args:
        rate: Probability of dropping, in [0, 1).
        rescale: Divide what is kept by ``1 - rate``, as timm does; scenic does not.
    """

    def __init__(self, rate: float = 0.0, rescale: bool = True) -> None:
        super().__init__()
        self.rate = rate
        self.rescale = rescale

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep if self.rescale else mask)


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``; (b, n, d) → (b, n, d).

    Dosovitskiy et al. 2021, equations 2 and 3.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        qkv_bias: bool = True,
        activation: str = "gelu",
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        drop_path: float = 0.0,
        rescale_drop_path: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias, dropout, attn_dropout)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), activation, dropout)
        self.drop_path = DropPath(drop_path, rescale_drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x

    def first(self, x: Tensor) -> Tensor:
        """What `forward` gives for the first token, without the others': (b, n, d) → (b, 1, d)."""
        y: Tensor = x[:, :1] + self.drop_path(self.attn.first(self.norm1(x)))
        y = y + self.drop_path(self.mlp(self.norm2(y)))
        return y


def block_of(config: Any, drop_path: float = 0.0, **given: Any) -> Block:
    """The block that a configuration describes.

    Args:
        config: A config dataclass with ``embed_dim``.
        drop_path: Rate of its stochastic depth.
        **given: Other keywords of `Block` than the configuration's; None takes that.
    """
    said = {key: getattr(config, key) for key in BLOCK_FIELDS if hasattr(config, key)}
    said |= {key: value for key, value in given.items() if value is not None}
    return Block(config.embed_dim, drop_path=drop_path, **said)


BLOCK_FIELDS = "num_heads mlp_ratio qkv_bias activation norm_eps dropout attn_dropout".split()
"""Keywords of `Block` that are called the same in configurations."""


def run_blocks(blocks: nn.ModuleList, x: Tensor, first_only: bool) -> Tensor:
    """Run blocks one after the other, (b, n, d) → (b, n, d).

    Where only the first token (the class token) is read afterwards, the last block need not compute the others: with
    twelve blocks that is about 7 % of all work. While gradients are recorded it computes all, as published.

    Args:
        blocks: `Block` modules, or with ``first_only`` false any that map tokens to tokens.
        x: Tokens.
        first_only: Whether the caller reads the first token only; the result may then be (b, 1, d).
    """
    run: Callable[[Tensor, bool], Tensor] | None = getattr(blocks, "run", None)
    if run is not None:  # `vidcls.models.merging.MergingBlocks`
        return run(x, first_only)
    others, last = blocks[:-1], blocks[-1]
    for block in others:
        x = block(x)
    return cast(Block, last).first(x) if first_only and skips_unread() else last(x)


_counting = threading.Lock()
_readers = 0  # how many contexts of `every_token` are open in all threads: a number is what can be traced


@contextlib.contextmanager
def every_token() -> Iterator[None]:
    """Compute all tokens of the last block within this context, in inference too: something reads them."""
    global _readers
    with _counting:
        _readers += 1
    try:
        yield
    finally:
        with _counting:
            _readers -= 1


def skips_unread() -> bool:
    """Whether what nothing reads may be left out: in inference, unless `every_token` is wanted."""
    return not torch.is_grad_enabled() and _readers == 0


def linear_drop_path(rate: float, depth: int) -> list[float]:
    """Stochastic-depth rates growing linearly from 0 in the first layer to ``rate`` in the last."""
    return [rate * layer / max(1, depth - 1) for layer in range(depth)]


def init_truncated_normal(module: nn.Module, std: float = 0.02) -> None:
    """Set every linear layer below ``module`` to N(0, std²), and its bias to zero (timm's habit)."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=std)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


class Classifier(nn.Module):
    """What all models share: their configuration, and the linear layer that makes the logits, ``head``.

    Args:
        config: The architecture's config dataclass.
    """

    architecture: ClassVar[str]
    uses_frame_indices: bool = False
    head: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.num_classes: int = config.num_classes

    def reset_head(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes."""
        head = nn.Linear(self.head.in_features, num_classes)
        init_truncated_normal(head)
        self.head = head.to(self.head.weight)
        self.count_classes(num_classes)

    def count_classes(self, num_classes: int) -> None:
        """Take note of how many classes a new ``head`` has."""
        self.num_classes = num_classes
        self.config = replace(self.config, num_classes=num_classes)


def check_pixels(name: str, pictures: Tensor, size: int | tuple[int, int]) -> None:
    """Refuse pictures (..., h, w) of another size than the model of this name was built for; raises ConfigError."""
    if tuple(pictures.shape[-2:]) != pair(size):
        kind = "views" if pictures.ndim == 5 else "frames"
        problem = f"got {kind} of {tuple(pictures.shape[-2:])} pixels (h, w), but was built for {size}"
        raise ConfigError(name, problem, "resize them, or load the checkpoint with image_size=")


def init_lecun_normal(weight: Tensor) -> None:
    """Fill a convolution's ``weight`` (out, in, ...) from a cut normal of variance 1 / fan-in (flax)."""
    fan_in = weight[0].numel()
    # The cut at two standard deviations takes away some variance; flax divides by what is left.
    std = math.sqrt(1.0 / fan_in) / 0.87962566103423978
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
