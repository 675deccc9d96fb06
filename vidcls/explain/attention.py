"""Attention rollout, and gradient x attention: which patches the classifier's view of a clip is made of.

Both follow the tokens back through the model. Where attention is taken for its weights alone (averaged over heads),
each norm for the identity and each MLP for nothing, the model is a linear map of its patches, and a backward pass
through its own code gives what each contributes: for one encoder that is the product of the matrices I + A of attention
rollout (Abnar and Zuidema 2020, arXiv 2005.00928), and for divided, axial, windowed and factorized attention the same
product over space and time, as the model itself lays its tokens out. With max(A * dlogit/dA, 0) in place of A it is the
relevance of Chefer, Gur and Wolf 2021 (arXiv 2103.15679), which asks for one class. That says through which patches the
answer went, empty ones too whose place alone was read. Half of the heat is that; the other half is what each patch's
own content does for the class, by integrated gradients from the view's mean patch (Sundararajan, Taly and Yan 2017,
arXiv 1703.01365).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidcls.errors import DeviceError, UsageError
from vidcls.explain.occlusion import Target
from vidcls.explain.watch import Call, attentions, mixer, patched, watched
from vidcls.models.layers import Mlp, every_token
from vidcls.models.sizes import pair
from vidcls.models.tokens import Grid, Tokens, first_tokens, grid_of, outputs_of
from vidcls.models.visual_transformer import VTFrames, VTResNet

Floats = NDArray[np.float32]
STEPS = 8  # of integrated gradients
MAX_BYTES = 24 << 30  # of attention weights of one view


@dataclass
class _Run:
    """One forward pass of a view.

    Attributes:
        logits: (k,).
        calls: The attentions' calls.
        tokens: What the source module gave, call by call.
        pooled: Tokens that are averaged by the model, by the name of the module that gives them.
    """

    logits: Tensor
    calls: list[Call]
    tokens: list[Tensor]
    pooled: dict[str, Tensor]


def explain_view(
    model: Any, view: Tensor, frame_indices: Tensor | None, target: Target, method: str
) -> Floats:
    """What each cell of one view (1, c, t, h, w) contributes: (t', h', w') on the model's own grid, at least 0.

    Args:
        model: In evaluation mode.
        view: Normalized, where the model is.
        frame_indices: (1, t), for models that use them.
        target: The class, for ``gradient``.
        method: ``rollout`` or ``gradient``.

    Raises:
        UsageError: The model has no attention over patches.
        DeviceError: The attention's weights do not fit into memory.
    """
    more = {} if frame_indices is None else {"frame_indices": frame_indices}
    if isinstance(model, VTFrames):
        return _by_visual_tokens(model, view, target, method)
    ways = attentions(model)
    source = first_tokens(model) or (
        Tokens("backbone", "t", "") if hasattr(model, "encode_sequence") else None
    )
    if source is None or not ways:
        name = model.architecture
        raise UsageError("method", f"{name} has no attention over patches", "use method=occlusion")
    grid = grid_of(model, view.shape[2], pair(model.config.image_size))
    _check_memory(model, grid)
    if method == "gradient":
        with torch.enable_grad():
            run = _forward(model, source, view, more)
            flows, seeds = _class_specific(run, target)
            through = _flow(model, ways, source, run, (flows, seeds), (view, more))
            nothing = [_nothing(call) for call in flows]
            through = through - _flow(model, ways, source, run, (nothing, seeds), (view, more))
            content = _content(model, source, run, target, (view, more))
        heat = _shares(_by_place(through.mean(-1), source, grid)) + _shares(_by_place(content, source, grid))
    else:
        with torch.no_grad(), every_token():
            run = _forward(model, source, view, more)
        with torch.enable_grad():
            through = _flow(model, ways, source, run, (run.calls, {}), (view, more))
        heat = _by_place(through.mean(-1), source, grid)
    return heat.float().cpu().numpy()


def _shares(heat: Tensor) -> Tensor:
    """Heat that sums to one, or none at all."""
    return heat / heat.sum().clamp(min=1e-30)


def _by_place(values: Tensor, source: Tokens, grid: Grid) -> Tensor:
    """Values of tokens as the source lays them out → (t', h', w'), at least 0."""
    return source.arrange(values[..., None], grid)[1][0, ..., 0].clamp(min=0)


def _content(model: Any, source: Tokens, run: _Run, target: Target, inputs: tuple[Tensor, Any]) -> Tensor:
    """What each token's own content does for the class, in the source's layout: integrated gradients."""
    tokens = [one.detach() for one in run.tokens]
    mean = torch.cat([one.reshape(-1, one.shape[-1]) for one in tokens]).mean(0)
    pull = [torch.zeros_like(one) for one in tokens]
    module = model.get_submodule(source.module)
    for step in range(STEPS):
        leaves = [(mean + (step + 0.5) / STEPS * (one - mean)).requires_grad_() for one in tokens]
        coming = iter(leaves)
        with patched({(module, "forward"): lambda *_, coming=coming: next(coming)}):
            score = log_odds(model(inputs[0], **inputs[1])[0], target)
        for total, part in zip(pull, torch.autograd.grad(score, leaves), strict=True):
            total += part / STEPS
    parts = zip(pull, tokens, strict=True)
    return torch.cat([(total * (one - mean)).sum(-1) for total, one in parts])


def _forward(model: Any, source: Tokens, view: Tensor, more: Mapping[str, Tensor]) -> _Run:
    pooled: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(partial(_keep, pooled, name))
        for name in averaged(model)
    ]
    try:
        with watched(model) as calls, outputs_of(model, source.module) as outputs:
            logits = model(view, **more)[0]
    finally:
        for handle in handles:
            handle.remove()
    return _Run(logits, calls, outputs, pooled)


def _keep(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    kept[name] = output


def averaged(model: Any) -> list[str]:
    """Names of the modules whose output tokens a model averages, rather than reading its class token."""
    if model.architecture == "attentive":  # its pooler attends to them
        return []
    found = [
        f"{name}.norm" for name in ("encoder", "spatial", "temporal") if _pools(getattr(model, name, None))
    ]
    if model.architecture == "videomae" and model.config.pool == "mean":
        found.append("norm")
    backbone = getattr(model, "backbone", None)
    if (
        hasattr(backbone, "blocks")
        and getattr(backbone, "cls_token", None) is None
        and hasattr(backbone, "norm")
    ) or getattr(backbone, "global_pool", "token") == "avg":
        found.append("backbone.norm")
    return found


def _pools(encoder: Any) -> bool:
    return getattr(encoder, "pool", "token") != "token"


def _class_specific(run: _Run, target: Target) -> tuple[list[Call], dict[str, Tensor]]:
    """max(A * gradient, 0) in place of each A, and weights for the tokens that are averaged."""
    weights = [weight for call in run.calls for weight in call.weights]
    wanted = [*weights, *run.pooled.values()]
    found = torch.autograd.grad(log_odds(run.logits, target), wanted, allow_unused=True)
    products = [
        torch.zeros_like(one) if gradient is None else (one * gradient).detach()
        for one, gradient in zip(wanted, found, strict=True)
    ]
    positive = iter([product.clamp(min=0) for product in products[: len(weights)]])
    flows = [Call(call.site, [next(positive) for _ in call.weights]) for call in run.calls]
    seeds = {}
    for name, product in zip(run.pooled, products[len(weights) :], strict=True):
        speaks = product.sum(-1, keepdim=True)
        seeds[name] = speaks - speaks.amin(tuple(range(1, speaks.ndim)), keepdim=True)
    return flows, seeds


def log_odds(logits: Tensor, target: Target) -> Tensor:
    """How much more likely a class is than not, from logits (k,); see `vidcls.explain.occlusion.Target`."""
    index, alone = target
    others = torch.cat([logits[:index], logits[index + 1 :]])
    return logits[index] if alone or not len(others) else logits[index] - others.logsumexp(0)


def _nothing(call: Call) -> Call:
    return Call(call.site, [torch.zeros_like(weight) for weight in call.weights])


def _flow(
    model: Any,
    ways: Mapping[str, tuple[nn.Module, str]],
    source: Tokens,
    run: _Run,
    flow: tuple[list[Call], dict[str, Tensor]],
    inputs: tuple[Tensor, Mapping[str, Tensor]],
) -> Tensor:
    """What each token that leaves the source contributes to the classifier's view, in the source's own layout."""
    calls, seeds = flow
    leaves = [inputs[0].new_zeros(shape).requires_grad_() for shape in (one.shape for one in run.tokens)]
    coming, steps = iter(leaves), iter(calls)
    changes: dict[tuple[nn.Module, str], Any] = {}
    for name, module in model.named_modules():
        if name in seeds:
            changes[module, "forward"] = partial(_weighted, seeds[name])
        elif forward := _linear_part(name, module):
            changes[module, "forward"] = forward
    for site, (module, way) in ways.items():
        changes[module, way] = partial(_mix, site, module, way, steps)
    changes[model.get_submodule(source.module), "forward"] = lambda *_: next(coming)
    with patched(changes):
        out = model(inputs[0], **inputs[1])
    found = torch.autograd.grad(out.sum() / out.shape[-1], leaves, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, found, strict=True)]
    )


def _mix(site: str, module: nn.Module, way: str, steps: Any, *inputs: Any, **more: Any) -> Tensor:
    call = next(steps)
    assert call.site == site, f"{site} is called where {call.site} was"
    return mixer(module, way, call.weights)(*inputs, **more)


def _weighted(weights: Tensor, tokens: Tensor) -> Tensor:
    return tokens * weights


def _linear_part(name: str, module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What stands for a module where only the tokens' way counts; None for one that stays as it is."""
    kind = type(module).__name__
    if isinstance(module, Mlp) or kind.endswith("Mlp") or kind.startswith("SwiGLU"):  # ours, or one of timm's
        return torch.zeros_like
    if isinstance(module, nn.LayerNorm) or kind in ("LayerScale", "RmsNorm", "RMSNorm"):
        return _same
    if name in ("head", "pre_logits") or (
        name.removeprefix("backbone.").startswith("blocks.") and name.endswith("_fc")
    ):
        return _same
    return None


def _same(x: Tensor) -> Tensor:
    return x


def _by_visual_tokens(model: VTFrames, view: Tensor, target: Target, method: str) -> Floats:
    """Where the visual tokens of each frame look; for ``gradient`` each counts as it speaks for the class."""
    frames = view[0].transpose(0, 1)
    name = (
        f"backbone.stage5.{len(model.backbone.stage5) - 1}.transformer"
        if isinstance(model.backbone, VTResNet)
        else "backbone.transformer"
    )
    with torch.enable_grad(), outputs_of(model, name) as outputs:
        logits = model(view)[0]
        gradient = torch.autograd.grad(log_odds(logits, target), outputs[0])[0]
    with torch.no_grad():
        maps = model.tokens(frames)[1]  # (t, modules, L, h', w')
    if method == "rollout":
        found = maps.mean((1, 2)) / maps.shape[0]
    else:
        speaks = (outputs[0] * gradient).sum(-1).clamp(min=0).detach()  # (t, L), or (t, 4 L) of a pyramid
        if speaks.shape[1] == maps.shape[2]:  # stage 5: all modules look for the last one's tokens
            found = (maps.mean(1) * speaks[..., None, None]).sum(1)
        else:
            found = (maps * speaks.reshape(*maps.shape[:3], 1, 1)).sum((1, 2))
    return found.float().cpu().numpy()


def _check_memory(model: Any, grid: Grid) -> None:
    """Refuse what would fill the memory: joint attention over many tokens keeps n × n weights in every layer."""
    if model.architecture == "attentive":
        model = model.backbone
    config = model.config
    depth, heads = int(getattr(config, "depth", 12)), int(getattr(config, "num_heads", 12))
    joint = model.architecture in ("vivit-st", "timesformer-joint", "videomae", "vjepa2")
    tokens = grid[0] * grid[1] * grid[2] if joint else grid[1] * grid[2]
    size = 4 * 3 * depth * heads * tokens**2 * (1 if joint else grid[0])
    if size > MAX_BYTES:
        problem = f"its attention over {tokens:,} tokens takes {size >> 30:,} GB"
        raise DeviceError(model.architecture, problem, "use method=occlusion, or fewer frames")
