"""Optimizers, parameter groups, freezing, and the running mean of the weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vidcls.errors import UsageError, nearest
from vidcls.training.recipe import Optimizer

_BLOCK = re.compile(r"^(.*?)\b(blocks|layers)\.(\d+)\.")


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Keep parameters as they are.

    Args:
        model: The model.
        patterns: Names, prefixes (``patch_embed``), or patterns with ``*`` and ``[0-5]``; ``backbone`` is all but
            the head, a number N the embeddings and the first N blocks.

    Returns:
        How many parameters (numbers) are frozen.

    Raises:
        UsageError: A pattern matches nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        if pattern == "backbone" and not any(name.startswith("backbone.") for name in names):
            frozen.update(name for name in names if not is_head(name))
        elif pattern.isdecimal():
            frozen.update(_first_blocks(names, int(pattern)))
        else:
            frozen.update(matching(names, pattern, "freeze"))
    if len(frozen) == len(names):
        raise UsageError("freeze", "leaves nothing to train", "freeze less")
    count = 0
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
            count += parameter.numel()
    return count


def _first_blocks(names: Sequence[str], count: int) -> list[str]:
    """The embeddings and the first ``count`` blocks.

    Raises:
        UsageError: The model has fewer.
    """
    depths = layer_numbers(names)
    blocks = {depths[name] for name in names if _BLOCK.match(name)}
    if count > len(blocks):
        raise UsageError(f"freeze={count}", f"the model has {len(blocks)} blocks", "freeze fewer")
    return [name for name, depth in depths.items() if depth <= count and not is_head(name)]


def matching(names: Sequence[str], pattern: str, option: str) -> list[str]:
    """The names that are ``pattern``, lie below it, or match it with ``*`` and ``[0-5]``.

    Raises:
        UsageError: There is none; the message names ``option`` and the nearest name.
    """
    found = [n for n in names if n == pattern or n.startswith(f"{pattern}.") or fnmatchcase(n, pattern)]
    if not found:
        known = sorted({name.split(".")[0] for name in names})
        hint = nearest(pattern, known + list(names))
        raise UsageError(
            f"{option}={pattern}", f"no parameter is called so{hint}", f"its parts are {', '.join(known)}"
        )
    return found


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the classifier."""
    return name.startswith(("head.", "pre_logits."))


def layer_numbers(names: Sequence[str]) -> dict[str, int]:
    """Depth of each parameter: 0 for embeddings, then block by block, encoder by encoder, the head last."""
    stacks: dict[str, int] = {}
    for name in names:
        found = _BLOCK.match(name)
        if found:
            key = found[1] + found[2]
            stacks[key] = max(stacks.get(key, 0), int(found[3]) + 1)
    first, before = {}, 1
    for key, depth in stacks.items():
        first[key] = before
        before += depth
    numbers = {}
    for name in names:
        found = _BLOCK.match(name)
        if found:
            numbers[name] = first[found[1] + found[2]] + int(found[3])
        elif is_head(name):
            numbers[name] = before
        elif name.split(".")[-2:-1] == ["norm"] or ".norm." in f".{name}":
            numbers[name] = max(
                (first[k] + d - 1 for k, d in stacks.items() if _same(k, name)), default=before
            )
        else:
            numbers[name] = max((first[k] - 1 for k in stacks if _same(k, name)), default=0)
    return numbers


def _same(stack: str, name: str) -> bool:
    """Whether a parameter outside the blocks lies beside them, in the same module."""
    return name.rsplit(".", 1)[0].startswith(stack.rsplit(".", 1)[0]) and "." in stack


def decays(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of weights: not a bias, norm, token or position embedding."""
    return parameter.ndim > 1 and not name.endswith(("pos_embed", "time_embed", "cls_token"))


def parameter_groups(model: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    """Trainable parameters grouped by weight decay and depth; ``lr_scale`` is each group's share of the rate."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    numbers = layer_numbers([name for name, _ in model.named_parameters()])
    deepest = max(numbers.values())
    names = list(numbers)
    bare = {name for pattern in settings.no_decay for name in matching(names, pattern, "no_decay")}
    rates = dict.fromkeys(names, 1.0)
    for pattern, rate in settings.rates.items():
        rates.update(dict.fromkeys(matching(names, pattern, "rates"), rate))
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in named:
        plain = name in bare or not (settings.decay_all or decays(name, parameter))
        decay = 0.0 if plain else settings.weight_decay
        scale = settings.layer_decay ** (deepest - numbers[name]) * rates[name]
        groups.setdefault((decay, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale, "lr": settings.lr * scale}
        for (decay, scale), parameters in groups.items()
    ]


def make_optimizer(
    model: nn.Module, settings: Optimizer, extra: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer over the parameters that are not frozen, and over those of an extra loss."""
    groups = parameter_groups(model, settings)
    if extra is not None:
        plain = settings.model_copy(update={"rates": {}, "no_decay": (), "layer_decay": 1.0})
        groups += parameter_groups(extra, plain)
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
        )
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate for the next step; each group takes its share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def running_mean(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential mean of the weights whose decay grows with the steps, so that the start is soon forgotten."""

    def update(mean: Any, current: Any, count: Any) -> None:
        step = int(count)
        torch._foreach_lerp_(mean, current, 1.0 - min(decay, (1 + step) / (10 + step)))

    return AveragedModel(model, multi_avg_fn=update, use_buffers=False)
