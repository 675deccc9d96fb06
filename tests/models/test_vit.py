"""The image ViT and its use frame by frame; published weights are in ``tests/checkpoints/test_vit_formats.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vidcls.errors import ConfigError
from vidcls.models import sizes
from vidcls.models.layers import ACTIVATIONS
from vidcls.models.vit import ViTConfig, ViTFrames, ViTFramesConfig


def tiny(**changes: Any) -> ViTFrames:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "image_size": (16, 24),
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 5,
    }
    model = ViTFrames(ViTFramesConfig(**{**config, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def clip(batch: int = 2, num_frames: int = 4) -> Tensor:
    return torch.randn(batch, 3, num_frames, 16, 24, generator=torch.Generator().manual_seed(1))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"pool": "gap"},
    {"representation_size": 16},
    {"qkv_bias": False, "activation": "gelu_tanh", "norm_eps": 1e-12},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_logits_are_averaged_over_frames(changes: dict[str, Any]) -> None:
    model, views = tiny(**changes), clip()
    with torch.no_grad():
        logits = model(views)
        alone = torch.stack([model(views[:, :, t : t + 1]) for t in range(4)])
        assert logits.shape == (2, 5)
        assert (logits - alone.mean(0)).abs().max() < 1e-5
        assert (alone[0] - alone[1]).abs().max() > 1e-3
        assert (model(views.flip(2)) - logits).abs().max() < 1e-5


@pytest.mark.parametrize("changes", VARIANTS)
def test_features_may_be_computed_once_and_shared(changes: dict[str, Any]) -> None:
    model, views = tiny(**changes), clip()
    with torch.no_grad():
        features = model.encode_frames(views)
        assert features.shape == (2, 4, changes.get("representation_size", 24))
        assert torch.equal(model.classify(features), model(views))
        assert (model.classify(features[:, 1:3]) - model(views[:, :, 1:3])).abs().max() < 1e-5


@pytest.mark.parametrize("changes", VARIANTS)
def test_learns_exports_and_ignores_its_batch(changes: dict[str, Any]) -> None:
    model, views = tiny(**changes), clip(3)
    model(views).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        whole = model(views)
        assert (torch.export.export(model, (views,)).module()(views) - whole).abs().max() < 1e-6
        for row in range(3):
            assert (model(views[row : row + 1]) - whole[row : row + 1]).abs().max() < 1e-5


def test_dropout_is_off_in_eval_and_on_in_training() -> None:
    views = clip()
    for name in ("dropout", "attn_dropout", "drop_path_rate"):
        model = tiny(**{name: 0.5})
        with torch.no_grad():
            assert torch.equal(model(views), model(views))
            model.train()
            assert not torch.equal(model(views), model(views)), name


def test_full_size_is_the_published_one() -> None:
    with torch.device("meta"):
        model = ViTFrames(ViTFramesConfig())
    assert sum(p.numel() for p in model.parameters()) == 86_567_656  # timm's vit_base_patch16_224


def test_reset_head() -> None:
    model, views = tiny(), clip()
    features = model.encode_frames(views)
    model.reset_head(9)
    assert model.num_classes == model.config.num_classes == 9
    assert model(views).shape == (2, 9)
    assert torch.equal(features, model.encode_frames(views))


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(24, 16\) pixels.*built for \(16, 24\).*image_size="):
        tiny()(clip().transpose(-1, -2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "patch_size"),
        ({"image_size": 4}, "patch_size"),
        ({"num_heads": 5}, "num_heads"),
        ({"num_heads": 0}, "num_heads"),
        ({"pool": "max"}, "pool"),
        ({"activation": "gelu_quick"}, "activation"),
    ],
)
def test_what_makes_no_model_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViTConfig(**{"image_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, **changes})


def test_every_activation_has_its_module() -> None:
    assert tuple(ACTIVATIONS) == sizes.ACTIVATIONS
