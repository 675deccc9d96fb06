"""Visual Transformers: each equation against numpy, the published sizes, and the ResNet below against timm's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidcls.errors import CheckpointError, ConfigError
from vidcls.models import build
from vidcls.models.resnet import ResNet
from vidcls.models.visual_transformer import (
    VTFPN,
    FilterTokenizer,
    Projector,
    RecurrentTokenizer,
    TokenTransformer,
    VTConfig,
    VTFrames,
    VTResNet,
    build_backbone,
)
from vidcls.models.visual_transformer_config import RESNETS
from vidcls.training.init.initialize import initialize

# Millions of parameters and giga-multiply-adds: Tables 2 and 8 of the paper.
PUBLISHED = {
    "vt-resnet18": (11.6, 1.579),
    "vt-resnet34": (21.8, 3.299),
    "vt-resnet50": (21.4, 3.412),
    "vt-resnet101": (41.5, 7.129),
}
RESNET_GMACS = {"resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.802}
TINY = {"width": 8, "num_tokens": 4, "map_dim": 24, "token_dim": 24, "num_classes": 5, "image_size": 64}


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def matrix(layer: nn.Linear) -> np.ndarray:
    """A linear layer's matrix as the paper writes it, (inputs, outputs)."""
    return layer.weight.detach().numpy().T


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 15, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def spread(module: nn.Module) -> nn.Module:
    """The module in double precision, with weights large enough for a softmax to tell its axes apart."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * 0.5
    return module


@pytest.mark.parametrize("value_dim", [None, 8])
def test_filter_tokenizer_is_equation_1(pixels: torch.Tensor, value_dim: int | None) -> None:
    layer = spread(FilterTokenizer(12, 4, value_dim))
    got, weights = layer(pixels)
    for x, t, w in zip(pixels.numpy(), got.detach().numpy(), weights.detach().numpy(), strict=True):
        a = softmax(x @ matrix(layer.filter), axis=0)  # over the pixels
        expected = a.T @ x if value_dim is None else a.T @ (x @ matrix(layer.value))
        np.testing.assert_allclose(t, expected, rtol=1e-12)
        np.testing.assert_allclose(w, a.T, rtol=1e-12)


def test_recurrent_tokenizer_is_equation_2(pixels: torch.Tensor, tokens: torch.Tensor) -> None:
    layer = spread(RecurrentTokenizer(12, 8))
    got, weights = layer(pixels, tokens)
    for x, t_in, t, w in zip(pixels, tokens, got.detach().numpy(), weights.detach().numpy(), strict=True):
        w_r = t_in.numpy() @ matrix(layer.token_filter)
        a = softmax(x.numpy() @ w_r.T, axis=0)
        np.testing.assert_allclose(t, a.T @ x.numpy(), rtol=1e-12)
        np.testing.assert_allclose(w, a.T, rtol=1e-12)


def test_token_transformer_is_equations_3_and_4(tokens: torch.Tensor) -> None:
    layer = spread(TokenTransformer(8, 3, 5))
    for t, got in zip(tokens.numpy(), layer(tokens).detach().numpy(), strict=True):
        logits = (t @ matrix(layer.key)) @ (t @ matrix(layer.query)).T
        # Row i of the product sums over tokens j: the softmax runs over that axis.
        mixed = np.stack(
            [t[i] + sum(softmax(logits[i], 0)[j] * t[j] for j in range(len(t))) for i in range(len(t))]
        )
        hidden = np.maximum(mixed @ matrix(layer.fc1), 0)
        np.testing.assert_allclose(got, mixed + hidden @ matrix(layer.fc2), rtol=1e-12)


@pytest.mark.parametrize("token_dim", [8, 12])
def test_projector_is_equation_5(pixels: torch.Tensor, token_dim: int) -> None:
    tokens = torch.randn(2, 4, token_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    layer = spread(Projector(12, token_dim))
    assert (layer.value is None) == (token_dim == 12)
    for x, t, got in zip(pixels.numpy(), tokens.numpy(), layer(pixels, tokens).detach().numpy(), strict=True):
        a = softmax((x @ matrix(layer.query)) @ (t @ matrix(layer.key)).T, axis=1)
        np.testing.assert_allclose(
            got, x + a @ (t if layer.value is None else t @ matrix(layer.value)), rtol=1e-11
        )


def count(variant: str, height: int = 224, width: int = 224, **config: object) -> tuple[float, float]:
    """Parameters (10⁶) and multiply-adds of one frame (10⁹), counted on the meta device."""
    with torch.device("meta"):
        model = VTFrames(VTConfig(variant, **config)).eval()  # type: ignore[arg-type]
        frames = torch.empty(1, 3, 1, height, width)
    return sum(p.numel() for p in model.parameters()) / 1e6, macs(model, frames)


def macs(model: nn.Module, inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    return counter.get_total_flops() / 2e9


def resnet_macs(name: str, layers: int = 4) -> float:
    with torch.device("meta"):
        return macs(ResNet(name, layers).eval(), torch.empty(1, 3, 224, 224))


@pytest.mark.parametrize("variant", PUBLISHED)
def test_sizes_are_the_published_ones_within_3_percent(variant: str) -> None:
    params, gmacs = count(variant)
    assert params == pytest.approx(PUBLISHED[variant][0], rel=0.03)
    assert gmacs == pytest.approx(PUBLISHED[variant][1], rel=0.03)


@pytest.mark.parametrize("name", RESNET_GMACS)
def test_the_counter_agrees_with_the_published_resnets(name: str) -> None:
    head = 1000 * ResNet(name, 4, width=64).to("meta").channels[-1] / 1e9
    assert resnet_macs(name) + head == pytest.approx(RESNET_GMACS[name], rel=0.008)


def test_advanced_resnet34_is_the_one_with_512_channels() -> None:
    params, gmacs = count("vt-resnet34", map_dim=512)
    assert params == pytest.approx(19.2, rel=0.03)
    assert gmacs == pytest.approx(3.236, rel=0.03)


@pytest.mark.parametrize(
    ("variant", "tokens", "gmacs"),
    [
        ("vt-resnet18", 32, 1.711),
        ("vt-resnet18", 64, 1.979),
        ("vt-resnet34", 32, 3.514),
        ("vt-resnet34", 64, 3.951),
    ],
)
def test_more_tokens_cost_what_is_published(variant: str, tokens: int, gmacs: float) -> None:
    assert count(variant, num_tokens=tokens)[1] == pytest.approx(gmacs, rel=0.03)


@pytest.mark.parametrize(
    ("variant", "without_projector", "transformers"),
    [("vt-resnet18", 9.3, 3.1), ("vt-resnet34", 17.3, 4.7)],
)
def test_ablations_hold_the_published_parameters(
    variant: str, without_projector: float, transformers: float
) -> None:
    with torch.device("meta"):
        model = VTFrames(VTConfig(variant))

    def millions(kind: type[nn.Module]) -> float:
        return sum(p.numel() for m in model.modules() if isinstance(m, kind) for p in m.parameters()) / 1e6

    assert millions(VTFrames) - millions(Projector) == pytest.approx(without_projector, rel=0.03)
    assert millions(TokenTransformer) == pytest.approx(transformers, rel=0.03)


@pytest.mark.parametrize(("name", "saving"), [("resnet18", 2.4), ("resnet34", 642.2 / (3299 - 3664 + 642.2))])
def test_stage_5_costs_less_than_the_one_it_replaces(name: str, saving: float) -> None:
    # "5.0x" is printed for ResNet-34; its own table says 642 MMACs of stage 5 became 277.
    replaced = resnet_macs(name) - resnet_macs(name, 3)
    tokens = count(f"vt-{name}")[1] - resnet_macs(name, 3)
    assert replaced / tokens == pytest.approx(saving, rel=0.12)


@pytest.mark.parametrize("variant", ["vt-resnet18", "vt-resnet34", "vt-resnet50", "vt-resnet101"])
def test_printed_reading_has_the_main_texts_shapes(variant: str) -> None:
    with torch.device("meta"):
        backbone = VTResNet(VTConfig(variant, "printed"))
    dim = 1024 if variant in ("vt-resnet50", "vt-resnet101") else 256
    assert len(backbone.stage5) == (2 if variant == "vt-resnet18" else 3)
    assert isinstance(backbone.widen, nn.Identity)
    shapes = {name: tuple(p.shape) for name, p in backbone.stage5.named_parameters()}
    assert shapes.pop("0.tokenizer.filter.weight") == (16, dim)
    assert set(shapes.values()) == {(dim, dim)}
    assert not any("value" in name for name in shapes)


def tiny(variant: str = "vt-resnet18", **config: object) -> VTFrames:
    torch.manual_seed(0)
    model = build("vt-frames", **{**TINY, "variant": variant, **config})
    assert isinstance(model, VTFrames)
    return model


@pytest.mark.parametrize("reading", ["table", "printed"])
@pytest.mark.parametrize("variant", ["vt-resnet18", "vt-resnet34", "vt-resnet50", "vt-fpn-resnet18"])
def test_every_parameter_gets_a_gradient(variant: str, reading: str) -> None:
    widths = {} if reading == "table" else {"map_dim": None, "token_dim": None}
    model = tiny(variant, reading=reading, **widths)
    logits = model(torch.randn(2, 3, 2, 64, 64))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("variant", ["vt-resnet18", "vt-fpn-resnet18"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (75, 53)])
def test_any_size_and_eval_is_deterministic_and_batch_invariant(variant: str, size: tuple[int, int]) -> None:
    model = tiny(variant, dropout=0.5).eval()
    views = torch.randn(3, 3, 2, *size)
    with torch.no_grad():
        logits = model(views)
        torch.testing.assert_close(model(views), logits, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([model(view[None]) for view in views]), logits)


@pytest.mark.parametrize("variant", ["vt-resnet18", "vt-fpn-resnet18"])
def test_logits_are_the_mean_over_frames(variant: str) -> None:
    model = tiny(variant).eval()
    views = torch.randn(2, 3, 3, 64, 64)
    with torch.no_grad():
        each = torch.stack([model.head(model.backbone(views[:, :, t])) for t in range(3)])
        torch.testing.assert_close(model(views), each.mean(0))
        features = model.encode_frames(views)
        torch.testing.assert_close(
            model.classify(features, torch.zeros(2, 3, dtype=torch.int64)), model(views)
        )
    assert features.shape == (2, 3, model.backbone.embed_dim)


@pytest.mark.parametrize(
    ("variant", "modules", "per_frame", "grid"),
    [("vt-resnet18", 2, 4, (3, 5)), ("vt-resnet34", 3, 4, (3, 5)), ("vt-fpn-resnet18", 4, 16, (12, 20))],
)
def test_maps_say_where_the_tokens_look(
    variant: str, modules: int, per_frame: int, grid: tuple[int, int]
) -> None:
    model = tiny(variant).eval()
    frames = torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        tokens, maps = model.tokens(frames)
        assert tokens.shape == (2, per_frame, 24)
        assert maps.shape == (2, modules, 4, *grid)
        torch.testing.assert_close(maps.sum((-2, -1)), torch.ones(2, modules, 4))
        if not isinstance(model.backbone, VTFPN):
            torch.testing.assert_close(tokens.mean(1), model.backbone(frames))


def test_first_map_weights_the_pixels_of_its_token() -> None:
    """The map is oriented like the picture: a token is the map's average over the feature map."""
    model = tiny("vt-resnet18", reading="printed").eval()
    backbone = model.backbone
    assert isinstance(backbone, VTResNet)
    frames = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        _, maps = model.tokens(frames)
        grid = backbone.widen(backbone.resnet(frames)[-1])
        pooled = torch.einsum("blhw,bchw->blc", maps[:, 0], grid)
        expected, _ = backbone.stage5[0].tokenizer(grid.flatten(2).transpose(1, 2))
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("variant", ["vt-resnet18", "vt-fpn-resnet18"])
def test_export(variant: str) -> None:
    model = tiny(variant).eval()
    views = torch.randn(2, 3, 2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(model, (views,)).module()(views), model(views))


def test_reset_head_keeps_the_rest() -> None:
    model = tiny()
    before = model.backbone.state_dict()
    model.reset_head(7)
    assert model.num_classes == model.config.num_classes == 7
    assert model(torch.randn(2, 3, 1, 64, 64)).shape == (2, 7)
    assert model.backbone.state_dict().keys() == before.keys()


def test_backbone_for_vtn() -> None:
    settings = {key: value for key, value in TINY.items() if key != "num_classes"}
    backbone = build_backbone("vt-resnet18", **settings)
    assert backbone.embed_dim == backbone.num_features == 24
    assert backbone(torch.randn(2, 3, 64, 64)).shape == (2, 24)
    assert build_backbone("vt-fpn-resnet18", **settings).embed_dim == 4 * 24


def test_a_resolved_config_builds_the_same_model() -> None:
    config = VTConfig("vt-resnet18", "printed", width=8)
    assert replace(config, num_classes=3).map_dim == 32
    assert VTConfig(**vars(config)) == config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"variant": "vt-resnet19"}, "vt-resnet18"),
        ({"reading": "printd"}, "printed"),
        ({"value_map": "some"}, "needed, first, all"),
        ({"num_tokens": 0}, "at least 1"),
        ({"tokens": 4}, "num_tokens"),
    ],
)
def test_bad_configs_say_what_to_do(config: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build("vt-frames", **config)


def test_unknown_backbone_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="num_tokens"):
        build_backbone("vt-resnet18", num_token=3)


def randomized(resnet: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for name, buffer in resnet.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return resnet.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_equals_timm(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = randomized(timm.create_model(name, num_classes=3))
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    ours = ResNet(name).eval()
    assert initialize(ours, tmp_path / "resnet.pth").unused == ("fc.weight", "fc.bias")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)[-1], theirs.forward_features(images), rtol=1e-5, atol=1e-5)


def plain_state(name: str, **config: int) -> dict[str, torch.Tensor]:
    """What torchvision would have saved: the whole ResNet with its classifier."""
    torch.manual_seed(7)
    resnet = randomized(ResNet(name, **config))
    fc = nn.Linear(resnet.channels[-1], 3)
    return {**resnet.state_dict(), **{f"fc.{key}": value for key, value in fc.state_dict().items()}}


@pytest.mark.parametrize("file", ["plain.pth", "wrapped.pth", "plain.safetensors", "old.pth"])
def test_stages_1_to_4_start_from_a_file(file: str, tmp_path: Path) -> None:
    state = plain_state("resnet18", width=8)
    if file == "plain.safetensors":
        save_file(state, tmp_path / file)
    elif file == "wrapped.pth":
        wrapped = {f"module.{key}": value for key, value in state.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / file)
    elif file == "old.pth":  # before batch counters
        torch.save({key: value for key, value in state.items() if "num_batches" not in key}, tmp_path / file)
    else:
        torch.save(state, tmp_path / file)
    model = tiny()
    stage5 = {key: value.clone() for key, value in model.backbone.stage5.state_dict().items()}
    left_out = initialize(model, tmp_path / file).unused
    assert {key.split(".")[0] for key in left_out} == {"layer4", "fc"}
    for key, value in model.backbone.resnet.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    for key, value in model.backbone.stage5.state_dict().items():
        torch.testing.assert_close(value, stage5[key], rtol=0, atol=0)
    assert set(initialize(tiny("vt-fpn-resnet18"), tmp_path / file).unused) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("variant", "name", "width", "words"),
    [
        ("vt-resnet50", "resnet34", 8, "missing"),
        ("vt-resnet18", "resnet50", 8, "shape"),
        ("vt-resnet18", "resnet18", 16, "shape"),
        # ResNet-34's tensors contain those of ResNet-18 by name and shape, yet they are another network's.
        ("vt-resnet18", "resnet34", 8, "more blocks"),
    ],
)
def test_another_network_is_refused_and_changes_nothing(
    variant: str, name: str, width: int, words: str, tmp_path: Path
) -> None:
    torch.save(plain_state(name, width=width), tmp_path / "other.pth")
    model = tiny(variant)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words):
        initialize(model, tmp_path / "other.pth")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_a_model_without_resnet_is_refused(tmp_path: Path) -> None:
    torch.save(plain_state("resnet18", width=8), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="a ResNet"):
        initialize(nn.Linear(2, 2), tmp_path / "weights.pth")


def test_unknown_resnets_are_named() -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        ResNet("resnet19")
    assert len(RESNETS) == 4
