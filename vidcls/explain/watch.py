"""What attention did in a model's own forward pass: the weights of each call. No forward pass is written here again.

The softmax is the seam: within an attention's call, what it gives is the attention's weights, whether it is taken by
PyTorch's fused kernel or written out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vidcls.errors import UsageError
from vidcls.models.layers import Attention
from vidcls.models.longformer import LongformerAttention
from vidcls.models.videoprism import AttentionPool
from vidcls.models.vivit import FactorizedDotAttention
from vidcls.models.vjepa2 import CrossAttention

SOFTMAXES = (Tensor.softmax, torch.softmax, F.softmax)


@dataclass
class Call:
    """One call of an attention.

    Attributes:
        site: Which attention, and which of its ways.
        weights: What its softmax gave, (..., heads, queries, keys); one for each softmax.
    """

    site: str
    weights: list[Tensor]


Way = tuple[nn.Module, str]  # a module, and the name of its method that attends


def attentions(model: nn.Module) -> dict[str, Way]:
    """Every attention of a model, in ways that are called apart, by name."""
    found: dict[str, Way] = {}
    for name, module in model.named_modules():
        if isinstance(module, LongformerAttention):
            found |= {f"{name}:{way}": (module, way) for way in ("attend_global", "attend_local")}
        elif isinstance(module, (Attention, AttentionPool, CrossAttention)) or _is_timm_attention(module):
            found[name] = (module, "forward")
    return found


def _is_timm_attention(module: nn.Module) -> bool:
    return (
        type(module).__module__.startswith("timm.")
        and hasattr(module, "qkv")
        and hasattr(module, "fused_attn")
    )


class _Softmaxes(TorchFunctionMode):
    """Writes the fused attention out, and hands every softmax's outcome on."""

    def __init__(self, seen: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        out = func(*args, **kwargs)
        if func in SOFTMAXES:
            self._seen(out)
        return out

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **more: Any
    ) -> Tensor:
        if attn_mask is not None or more.get("is_causal") or more.get("dropout_p"):
            raise UsageError("method", "this model's attention is masked", "use method=occlusion")
        scale = more.get("scale")
        weights = (q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(-1)
        self._seen(weights)
        return weights @ v


@contextlib.contextmanager
def watched(model: nn.Module) -> Iterator[list[Call]]:
    """Collect the weights of every attention that is called within the context, in the order of the calls."""
    calls: list[Call] = []
    under_way: list[Call] = []

    def seen(weights: Tensor) -> None:
        if under_way:
            under_way[-1].weights.append(weights)

    def run(site: str, own: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
        call = Call(site, [])
        calls.append(call)
        under_way.append(call)
        try:
            return own(*inputs, **more)
        finally:
            under_way.pop()

    ways = attentions(model)
    patches = {
        (module, way): partial(run, site, getattr(module, way)) for site, (module, way) in ways.items()
    }
    fused = {(module, "fused_attn"): True for module, _ in ways.values() if hasattr(module, "fused_attn")}
    with patched({**patches, **fused}), _Softmaxes(seen):
        yield calls


@contextlib.contextmanager
def patched(changes: dict[tuple[nn.Module, str], Any]) -> Iterator[None]:
    """Give modules other attributes within the context."""
    missing = object()
    before = {key: key[0].__dict__.get(key[1], missing) for key in changes}
    try:
        for (module, name), value in changes.items():
            module.__dict__[name] = value
        yield
    finally:
        for (module, name), value in before.items():
            if value is missing:
                del module.__dict__[name]
            else:
                module.__dict__[name] = value


def mixer(module: nn.Module, way: str, weights: list[Tensor]) -> Callable[..., Tensor]:
    """Return what an attention does to tokens by its weights alone, without its projections; heads are averaged.

    Args:
        module: The attention.
        way: Which of its methods.
        weights: As in `Call`, or what takes their place.
    """
    if isinstance(module, FactorizedDotAttention):
        over_time, over_space = (part.mean(1) for part in weights)
        return lambda x: (_over_time(over_time, x) + _over_space(over_space, x)) / 2
    mean = weights[0].mean(-2 if way == "attend_global" else 1)
    if way == "attend_global":
        mean = weights[0].mean(1)[:, None]  # (b, heads, n) → (b, 1, n)
    if way == "attend_local":
        return partial(_in_band, module.half_window, mean)
    if isinstance(module, AttentionPool):
        return lambda x: (mean @ x)[:, 0]
    if isinstance(module, CrossAttention):
        return lambda query, x: mean @ x
    return lambda x, *rest, **more: (mean @ x.reshape(len(mean), -1, x.shape[-1])).reshape(
        (*x.shape[:-2], -1, x.shape[-1])
    )


def _over_time(weights: Tensor, x: Tensor) -> Tensor:
    """Weights (b·s, t, t) and tokens (b, t, s, d) → the same tokens mixed over time."""
    columns = x.transpose(1, 2)
    return (weights @ columns.flatten(0, 1)).reshape(columns.shape).transpose(1, 2)


def _over_space(weights: Tensor, x: Tensor) -> Tensor:
    """Weights (b·t, s, s) and tokens (b, t, s, d) → the same tokens mixed over space."""
    return (weights @ x.flatten(0, 1)).reshape(x.shape)


def _in_band(half_window: Any, weights: Tensor, x: Tensor) -> Tensor:
    """Weights (b, blocks, block, 1 + keys) as `LongformerAttention.attend_local` has them, and tokens → (b, t, d)."""
    _, blocks, block, keys = weights.shape
    frames = x[:, 1:]
    count = frames.shape[1]
    half = min(int(half_window), count - 1)
    padded = F.pad(frames, (0, 0, half, half + blocks * block - count))
    near = padded.unfold(1, keys - 1, block).transpose(-1, -2)  # (b, blocks, keys - 1, d)
    mixed = weights[..., :1] * x[:, :1, None] + weights[..., 1:] @ near
    return mixed.flatten(1, 2)[:, :count]
