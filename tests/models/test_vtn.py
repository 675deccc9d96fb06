"""VTN: the three ways to see a video, its backbones, its sizes."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from vidcls.errors import ConfigError, DependencyError
from vidcls.models.vtn import VTN, VTNConfig, backbone_names, build_backbone

TINY_VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def tiny(**changes: Any) -> VTN:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "backbone": TINY_VIT,
        "image_size": 16,
        "num_classes": 5,
        "temporal_depth": 2,
        "temporal_num_heads": 4,
        "temporal_mlp_dim": 32,
        "attention_window": 4,
        "max_positions": 32,
        "mlp_dim": 12,
    }
    model = VTN(VTNConfig(**{**config, **changes})).eval()
    for name, parameter in model.named_parameters():  # first weights are so small that all frames look alike
        if parameter.ndim > 1 and not name.startswith("cls_token"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def clip(batch: int = 2, num_frames: int = 37) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    views = torch.randn(batch, 3, num_frames, 16, 16, generator=generator)
    return views, torch.randint(0, 500, (batch, num_frames), generator=generator)


@pytest.mark.parametrize("batch", [1, 2])
def test_three_ways_to_see_a_video_are_one(batch: int) -> None:
    model = tiny()
    views, indices = clip(batch)
    with torch.no_grad():
        whole = model(views, indices)
        assert whole.shape == (batch, 5)
        stored = model.encode_frames(views)
        assert (model.classify(stored, indices) - whole).abs().max() <= 1e-5
        for chunk in (1, 4, 5, 100):
            features = model.encode_frames(views, frame_chunk=chunk)
            assert (model.classify(features, indices) - whole).abs().max() <= 1e-5
            model.frame_chunk = chunk
            assert (model(views, indices) - whole).abs().max() <= 1e-5
            model.frame_chunk = None
        streamed = model.encode_stream(views.split(6, dim=2))
        assert (model.classify(streamed, indices) - whole).abs().max() <= 1e-5
    # Where gradients are wanted the last layer is computed whole, which must not show in the logits.
    assert (model(views, indices) - whole).abs().max() <= 1e-5


@pytest.mark.parametrize("num_frames", [8, 64])
def test_chunks_bound_what_the_backbone_holds(num_frames: int) -> None:
    model = tiny()
    model.frame_chunk = 4
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with torch.no_grad():
        model(clip(2, num_frames)[0])
    assert max(seen) == 4
    assert sum(seen) == 2 * num_frames


def test_frame_indices_default_to_counting_and_wrap() -> None:
    model = tiny()
    views, _ = clip(2, 9)
    counted = torch.arange(9).expand(2, -1)
    with torch.no_grad():
        plain = model(views)
        assert torch.equal(plain, model(views, counted))
        assert torch.equal(plain, model(views, counted + 3 * 30))  # 32 rows, two of them kept
        assert (plain - model(views, counted * 2)).abs().max() > 1e-4


def test_order_of_frames_matters_only_with_their_indices() -> None:
    model = tiny(attention_window=16)
    views, indices = clip(1, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(views, indices)
        # The window covers all nine frames, so a frame is known by its index alone.
        assert (model(views[:, :, order], indices[:, order]) - whole).abs().max() < 1e-5
        assert (model(views[:, :, order], indices) - whole).abs().max() > 1e-4


def test_dropout_is_off_in_eval_and_on_in_training() -> None:
    model = tiny()
    views, indices = clip()
    with torch.no_grad():
        assert torch.equal(model(views, indices), model(views, indices))
        model.train()
        assert not torch.equal(model(views, indices), model(views, indices))


@pytest.mark.parametrize("training", [False, True])
def test_every_parameter_has_a_gradient(training: bool) -> None:
    model = tiny().train(training)
    views, indices = clip()
    model(views, indices).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_exports_in_every_mode() -> None:
    model = tiny()
    views, indices = clip(1, 12)
    with torch.no_grad():
        expected = model(views, indices)
        exported = torch.export.export(model, (views, indices)).module()
        assert (exported(views, indices) - expected).abs().max() < 1e-5
    exported = torch.export.export(model, (views, indices)).module()
    assert (exported(views, indices) - expected).abs().max() < 1e-5


def count(model: torch.nn.Module) -> dict[str, float]:
    return {name: sum(p.numel() for p in child.parameters()) / 1e6 for name, child in model.named_children()}


def test_full_size_is_the_released_one() -> None:
    with torch.device("meta"):
        model = VTN(VTNConfig())
    parts = count(model)
    assert parts["backbone"] == pytest.approx(85.80, abs=0.005)
    assert parts["temporal_encoder"] == pytest.approx(26.80, abs=0.005)
    assert parts["head"] == pytest.approx(0.90, abs=0.005)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(113.50, abs=0.005)
    # 228 entries of the file, less its buffer and four of six projections in each layer, which are joined in two.
    assert len(model.state_dict()) == 228 - 1 - 3 * 8


@pytest.mark.parametrize(
    ("changes", "millions"),
    [
        ({"temporal_depth": 1}, 96),
        ({"backbone": "resnet50", "temporal_mlp_dim": 4096}, 168),
        ({"backbone": "resnet101", "temporal_mlp_dim": 4096}, 187),
    ],
)
def test_sizes_of_the_paper(changes: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        model = VTN(VTNConfig(**changes))
    assert sum(count(model).values()) == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("name", backbone_names())
def test_every_named_backbone_makes_a_model(name: str) -> None:
    with torch.device("meta"):
        model = VTN(VTNConfig(backbone=name, image_size=64, num_classes=3)).eval()
        assert model(torch.zeros(2, 3, 4, 64, 64)).shape == (2, 3)


def test_backbones_may_be_spelled_with_underscores_and_shaped() -> None:
    with torch.device("meta"):
        assert build_backbone("deit_tiny", (32, 32), 3).num_features == 192
        small = build_backbone({"variant": "vt-resnet18", "token_dim": 32, "width": 8}, (32, 32), 1)
        assert small(torch.zeros(2, 1, 32, 32)).shape == (2, 32)


def test_resnet_equals_timms() -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet50", num_classes=0).eval()
    ours = build_backbone("resnet50", (64, 64), 3).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (ours(images) - theirs(images)).abs().max() < 2e-5


@pytest.mark.parametrize(
    "name", ["timm:resnet18", "timm:deit_tiny_distilled_patch16_224", "timm:mobilenetv3_small_050"]
)
def test_any_model_of_timm_is_a_backbone(name: str) -> None:
    pytest.importorskip("timm")
    model = VTN(VTNConfig(backbone=name, image_size=64, num_classes=3, temporal_depth=1)).eval()
    views = torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(views)
        assert logits.shape == (2, 3)
        assert (model(views[:1]) - logits[:1]).abs().max() < 1e-4


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DependencyError, match=r"pip install 'vidcls\[timm\]'"):
        VTN(VTNConfig(backbone="timm:resnet18"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet5"}, "did you mean 'resnet50'"),
        ({"backbone": {**TINY_VIT, "widht": 3}}, "widht"),
        ({"backbone": {"variant": "vt-resnet17"}}, "vt-resnet18"),
        ({"attention_window": 5}, "attention_window"),
        ({"attention_window": (4, 4, 4)}, "attention_window"),
        ({"temporal_num_heads": 5}, "temporal_num_heads"),
        ({"max_positions": 2}, "max_positions"),
    ],
)
def test_what_makes_no_model_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


def test_unknown_models_of_timm_are_said() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
        tiny(backbone="timm:resnet5O")


def test_what_does_not_fit_the_model_is_said() -> None:
    model = tiny()
    views, indices = clip(1, 6)
    with pytest.raises(ConfigError, match="frame_indices"):
        model(views, indices[:, :5])
    with pytest.raises(ConfigError, match="frame_chunk"):
        model.encode_frames(views, frame_chunk=0)
    with pytest.raises(ConfigError, match="image_size"):
        model(views[..., :8])
    with pytest.raises(ConfigError, match="no frames"):
        model.encode_stream([])


def test_reset_head_replaces_the_classifier_only() -> None:
    model = tiny()
    views, indices = clip(1, 6)
    before = model.encode_sequence(model.encode_frames(views), indices)
    model.reset_head(9)
    assert model.num_classes == model.config.num_classes == 9
    assert model(views, indices).shape == (1, 9)
    assert torch.equal(before, model.encode_sequence(model.encode_frames(views), indices))
