"""Low-rank adapters (LoRA): fine-tuning that trains a small part of a model's attention, and its head.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. The adapters are parametrizations of
the projections' weights, so that they count wherever a model reads a weight, not only where it calls the layer.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vidcls.errors import UsageError
from vidcls.training.optim import is_head

_INPUTS = ("qkv", "qkv_global", "kqv", "q", "kv")
"""Names of the layers that make queries, keys and values; ``proj`` beside one of them projects the outcome."""


class LowRank(nn.Module):
    """A weight W (out, in) plus B A, of rank ``rank``; B starts at zero, so that training starts from W."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def projections(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a model's attention, by name."""
    found = {}
    for name, module in model.named_modules():
        inputs = [key for key in _INPUTS if isinstance(getattr(module, key, None), nn.Linear)]
        for key in [*inputs, "proj"] if inputs else []:
            layer = getattr(module, key, None)
            if isinstance(layer, nn.Linear):
                found[f"{name}.{key}"] = layer
    return found


def add_adapters(model: nn.Module, rank: int) -> int:
    """Give the attention's projections adapters, and freeze all else but the head.

    Args:
        model: Changed in place.
        rank: Of the adapters.

    Returns:
        How many parameters (numbers) are frozen.

    Raises:
        UsageError: The model has no such projections, or one is narrower than the rank.
    """
    layers = projections(model)
    if not layers:
        name = getattr(model, "architecture", type(model).__name__)
        raise UsageError("lora", f"{name} has no projections of attention here", "use freeze=backbone")
    narrowest = min(min(layer.weight.shape) for layer in layers.values())
    if rank >= narrowest:
        raise UsageError(f"lora={rank}", f"is not below the width {narrowest}", "give a smaller rank")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_head(name))
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def merged(model: nn.Module) -> nn.Module:
    """A copy of a model whose adapters are added to its weights: an ordinary model again."""
    copied = copy.deepcopy(model)
    module: Any  # torch types parametrized attributes as modules
    for module in copied.modules():
        if parametrize.is_parametrized(module, "weight"):
            weight: Tensor = module.weight.detach()
            # Not remove_parametrizations: it takes the adapters from the class, which the copy shares.
            del module.parametrizations
            module.__class__ = type(module).__base__
            module.register_parameter("weight", nn.Parameter(weight))
    return copied
