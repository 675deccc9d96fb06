"""Attention as it was in the model's own forward pass, and what is made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.test_all_architectures import FRAMES, SIZE, every_architecture, tiny, views
from vidcls.errors import UsageError
from vidcls.explain.attention import explain_view
from vidcls.explain.watch import attentions, watched
from vidcls.models.layers import Attention, every_token
from vidcls.models.tokens import grid_of


def numbers(architecture: str) -> Tensor | None:
    return torch.arange(FRAMES)[None] if architecture == "vtn" else None


def explained(model: Any, method: str, view: Tensor, target: int = 1) -> np.ndarray:
    return explain_view(model, view, numbers(model.architecture), (target, False), method)


@every_architecture
def test_watching_changes_nothing_and_leaves_no_trace(architecture: str) -> None:
    model = tiny(architecture)
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with torch.no_grad(), every_token():
        expected = model(views())
        with watched(model) as calls:
            found = model(views())
    assert (found - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    assert len({call.site for call in calls}) == len(attentions(model))
    for call in calls:
        for weights in call.weights:
            assert (weights.sum(-1) - 1).abs().max() < 1e-5
    for method in ("rollout", "gradient"):
        explained(model, method, views(1))
    assert torch.equal(model(views()), expected) or (model(views()) - expected).abs().max() < 1e-5
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys(), name


@every_architecture
@pytest.mark.parametrize("method", ["rollout", "gradient"])
def test_heat_is_on_the_models_own_grid(architecture: str, method: str) -> None:
    model = tiny(architecture)
    heat = explained(model, method, views(1))
    expected = (FRAMES, 1, 2) if architecture == "vt-frames" else grid_of(model, FRAMES, SIZE)
    assert heat.shape == expected
    assert np.isfinite(heat).all()
    assert heat.min() >= 0
    # Random weights may speak against one class everywhere, but not against both of two.
    assert heat.max() > 0 or explained(model, method, views(1), 0).max() > 0
    np.testing.assert_allclose(explained(model, method, views(1)), heat, rtol=1e-4, atol=1e-9)


def head_means(model: nn.Module, view: Tensor) -> dict[str, Tensor]:
    """Each attention's weights, worked out once more from what its projection gave; heads averaged."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Attention):

            def keep(own: Any, inputs: Any, output: Tensor, name: str = name) -> None:
                q, k, _ = output.unflatten(-1, (3, own.num_heads, -1)).unbind(-3)
                q, k = q.transpose(-3, -2), k.transpose(-3, -2)
                found[name] = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1).mean(-3)

            handles.append(
                module.qkv.register_forward_hook(lambda m, i, o, keep=keep, own=module: keep(own, i, o))
            )
    with torch.no_grad(), every_token():
        model(view)
    for handle in handles:
        handle.remove()
    return found


def product(weights: list[Tensor]) -> Tensor:
    """The product of I + A, the last layer's first."""
    whole = torch.eye(weights[0].shape[-1])
    for one in weights:
        whole = (torch.eye(one.shape[-1]) + one) @ whole
    return whole


def test_rollout_of_joint_attention_is_the_product_of_its_matrices() -> None:
    model = tiny("vivit-st")
    found = head_means(model, views(1))
    expected = product(list(found.values()))[0, 0, 1:].reshape(2, 2, 3)
    heat = explained(model, "rollout", views(1))
    np.testing.assert_allclose(heat / heat.sum(), (expected / expected.sum()).numpy(), rtol=1e-4)


def test_rollout_of_a_factorized_encoder_is_space_times_time() -> None:
    model = tiny("vivit-fe")
    found = head_means(model, views(1))
    space = product([w for name, w in found.items() if name.startswith("spatial")])  # (t, 1 + s, 1 + s)
    time = product([w for name, w in found.items() if name.startswith("temporal")])  # (1, 1 + t, 1 + t)
    expected = time[0, 0, 1:, None] * space[:, 0, 1:]
    heat = explained(model, "rollout", views(1)).reshape(2, 6)
    np.testing.assert_allclose(heat / heat.sum(), (expected / expected.sum()).numpy(), rtol=1e-4)


def test_rollout_of_divided_attention_is_the_product_over_both_steps() -> None:
    """The matrices over all tokens, written out: time at each place, then space in each frame with the class token."""
    model = tiny("timesformer-divided")
    found = head_means(model, views(1))
    t, s = FRAMES, 6
    whole = torch.eye(1 + s * t)
    for block in range(2):
        time = torch.zeros(1 + s * t, 1 + s * t)
        for place, weights in enumerate(found[f"blocks.{block}.temporal_attn"]):
            rows = 1 + place * t + torch.arange(t)
            time[rows[:, None], rows] = weights
        space = torch.zeros(1 + s * t, 1 + s * t)
        for frame, weights in enumerate(found[f"blocks.{block}.attn"]):
            rows = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.arange(s) * t + frame])
            space[rows[1:, None], rows] = weights[1:]
            space[0, rows] += weights[0] / t
        eye = torch.eye(1 + s * t)
        whole = (eye + space) @ (eye + time) @ whole
    expected = whole[0, 1:].reshape(s, t).T
    heat = explained(model, "rollout", views(1)).reshape(t, s)
    np.testing.assert_allclose(heat / heat.sum(), (expected / expected.sum()).numpy(), rtol=1e-4)


UNEVEN = {
    "timesformer-local-global": "an odd grid has neighborhoods of different sizes",
    "vt-frames": "its maps come from filters, not from attention",
    "vtn": "the class token sees through the last layers, and frames through their windows",
}


@every_architecture
def test_where_attention_is_even_so_is_the_rollout(architecture: str) -> None:
    """Nothing in the way back prefers a place or a moment: the layout of tokens is undone as it was made."""
    if architecture in UNEVEN:
        pytest.skip(UNEVEN[architecture])
    model = tiny(architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("qkv", "pool.q", "pooler.attn.q", "q_bias")):
                parameter.zero_()
    heat = explained(model, "rollout", views(1))
    np.testing.assert_allclose(heat / heat.mean(), 1, rtol=1e-3)


def test_a_model_without_attention_is_told_from_one_with() -> None:
    from vidcls.models import build

    model = build("timm-frames", model="resnet18", num_classes=3, image_size=32, num_frames=2).eval()
    with pytest.raises(UsageError, match="use method=occlusion"):
        explain_view(model, torch.randn(1, 3, 2, 32, 32), None, (0, False), "gradient")
