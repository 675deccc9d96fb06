from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.models import vivit_naive
from vidcls.errors import ConfigError
from vidcls.models import build
from vidcls.models.grids import resize_positions
from vidcls.models.layers import DropPath, TubeletEmbedding

SMALL: dict[str, Any] = {
    "image_size": (12, 20),
    "num_frames": 6,
    "tubelet_size": (2, 4, 5),
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 1.5,
}
ARCHITECTURES = ("vivit-st", "vivit-fe", "vivit-fsa", "vivit-fdp")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("vivit-st", {}),
    ("vivit-st", {"pool": "gap", "representation_size": 7}),
    ("vivit-st", {"pool": "gmp", "in_channels": 1}),
    ("vivit-st", {"pool": "gsp", "qkv_bias": False}),
    ("vivit-fe", {"temporal_depth": 3, "temporal_num_heads": 2, "temporal_mlp_ratio": 0.5}),
    ("vivit-fe", {"pool": "gap", "temporal_depth": 1}),
    ("vivit-fe", {"temporal_depth": 0}),
    ("vivit-fe", {"pool": "gap", "temporal_depth": 0, "representation_size": 9}),
    ("vivit-fsa", {"attention_order": "space_time"}),
    ("vivit-fsa", {"attention_order": "time_space", "pool": "gsp"}),
    ("vivit-fdp", {}),
    ("vivit-fdp", {"pool": "gmp", "tubelet_size": (1, 6, 4)}),
    ("vivit-fdp", {"tubelet_size": (4, 5, 6)}),  # what does not fill a tubelet is left out
]


def small(architecture: str, **config: Any) -> nn.Module:
    """A tiny model all of whose parameters are random, the classifier's too."""
    torch.manual_seed(1)
    model = build(architecture, **{**SMALL, **config})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def views_of(model: Any, batch: int = 2) -> Tensor:
    config = model.config
    shape = (batch, config.in_channels, config.num_frames, *config.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize(("architecture", "config"), VARIANTS)
@torch.no_grad()
def test_equals_the_papers_formulas(architecture: str, config: dict[str, Any]) -> None:
    model = small(architecture, **config).double()
    views = views_of(model).double()
    expected = torch.from_numpy(vivit_naive.logits(model, views))
    assert expected.std() > 0.1
    torch.testing.assert_close(model(views), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_view_does_not_see_its_batch(architecture: str) -> None:
    model = small(architecture, dropout=0.5, attn_dropout=0.5)
    views = views_of(model, 3)
    together = model(views)
    assert torch.equal(together, model(views)), "dropout must be off in eval"
    torch.testing.assert_close(together[1:2], model(views[1:2]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_learns(architecture: str) -> None:
    model = small(architecture).train()
    model(views_of(model)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_can_be_exported(architecture: str) -> None:
    model = small(architecture)
    views = views_of(model)
    exported = torch.export.export(model, (views,)).module()
    torch.testing.assert_close(exported(views), model(views), rtol=0, atol=1e-6)


FULL = [
    ("vivit-st", {}, 88_954_000, 455.2),
    ("vivit-fe", {}, 115_062_928, 284.4),
    ("vivit-fsa", {}, 117_319_312, 372.3),
    ("vivit-fdp", {}, 88_952_464, 277.1),
]
LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
# Counted from the reference; multiply-adds by the analytic formula of the facts.
RELEASED_LARGE = [
    ("vivit-st", {}, 307_508_624, 1436.0),
    ("vivit-fe", {}, 354_903_440, 988.2),
    ("vivit-fe", {"temporal_depth": 24}, 606_827_920, 992.5),
    ("vivit-fe", {"temporal_depth": 24, "num_classes": 600}, 607_032_920, 992.5),
    ("vivit-fe", {"num_classes": 397}, 354_900_365, 988.2),
    ("vivit-fe", {"num_classes": 174, "image_size": 256}, 354_733_230, 1301.0),
]


@pytest.mark.parametrize(
    ("architecture", "config", "params", "gmacs", "tolerance"),
    [(*case, 0.015) for case in FULL] + [(a, {**LARGE, **c}, p, g, 0.001) for a, c, p, g in RELEASED_LARGE],
)
def test_published_sizes(
    architecture: str, config: dict[str, Any], params: int, gmacs: float, tolerance: float
) -> None:
    """Parameters exactly as published, multiply-adds of one view within the paper's rounding."""
    with torch.device("meta"):
        model: Any = build(architecture, **config).eval()
        views = torch.empty(1, 3, 32, *model.config.image_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    with FlopCounterMode(display=False) as counter:
        assert model(views).shape == (1, model.num_classes)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=tolerance)


@torch.no_grad()
def test_factorized_encoder_in_two_halves() -> None:
    """Time steps are encoded apart, so that overlapping views can share them."""
    model: Any = small("vivit-fe")
    views = views_of(model)
    features = model.encode_frames(views)
    assert features.shape == (2, 3, 24)
    torch.testing.assert_close(model.classify(features), model(views))
    reverse = views.unflatten(2, (3, 2)).flip(2).flatten(2, 3)
    torch.testing.assert_close(model.encode_frames(reverse), features.flip(1), rtol=0, atol=1e-6)


@torch.no_grad()
def test_spatial_only_takes_any_number_of_frames() -> None:
    model: Any = small("vivit-fe", temporal_depth=0)
    views = views_of(model)
    halves = [model.features(half) for half in (views[:, :, :2], views[:, :, 2:])]
    expected = halves[0] / 3 + halves[1] * 2 / 3
    torch.testing.assert_close(model.features(views), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_wrong_views_are_refused() -> None:
    for architecture in ARCHITECTURES:
        model = small(architecture)
        with pytest.raises(ValueError, match="positions for"):
            model(views_of(model)[:, :, :, :8])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_starts_as_scenic_does(architecture: str) -> None:
    torch.manual_seed(0)
    sizes = {**SMALL, "embed_dim": 96, "image_size": 32, "representation_size": 48, "pool": "gap"}
    model: Any = build(architecture, **sizes)
    weights = dict(model.named_parameters())
    assert not model.head.weight.any()
    attention = next(name for name in weights if name.endswith("qkv.weight"))
    bound = (6 / (96 + 96)) ** 0.5
    assert bound * 0.98 < weights[attention].abs().max() <= bound
    position = next(name for name in weights if name.endswith("pos_embed"))
    assert weights[position].std() == pytest.approx(0.02, rel=0.1)
    kernel = weights["patch_embed.proj.weight"]
    assert kernel.std() == pytest.approx(kernel[0].numel() ** -0.5, rel=0.1)
    assert 0 < weights[next(n for n in weights if n.endswith("fc1.bias"))].abs().max() < 1e-5


def test_reset_head() -> None:
    model: Any = small("vivit-fe", representation_size=7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.reset_head(11)
    assert model.num_classes == model.config.num_classes == 11
    assert not model(views_of(model)).any()
    changed = {n for n, t in model.state_dict().items() if t.shape != before[n].shape}
    assert changed == {"head.weight", "head.bias"}


def test_stochastic_depth_is_linear_and_keeps_the_scale() -> None:
    def rates(encoder: Any) -> list[float]:
        return [block.drop_path.rate for block in encoder.blocks]

    one: Any = small("vivit-st", depth=5, drop_path_rate=0.4)
    assert rates(one.encoder) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    two: Any = small("vivit-fe", depth=3, temporal_depth=2, drop_path_rate=0.4)
    assert rates(two.spatial) == pytest.approx([0, 0.2, 0.4])
    assert rates(two.temporal) == pytest.approx([0, 0.4])
    three = small("vivit-fsa")
    assert not any(isinstance(module, DropPath) for module in three.modules())
    torch.manual_seed(0)
    kept = one.encoder.blocks[-1].drop_path.train()(torch.ones(4000, 2, 3))
    assert set(kept.unique().tolist()) == {0.0, 1.0}, "what is kept is not scaled up"
    assert (kept == kept[:, :1, :1]).all(), "a whole example is dropped at once"
    assert kept.mean() == pytest.approx(0.6, abs=0.03)


def test_positions_are_interpolated_between_corners() -> None:
    line = torch.tensor([0.0, 1.0, 4.0]).reshape(1, 3, 1)
    assert resize_positions(line, (3,), (5,)).flatten().tolist() == [0, 0.5, 1, 2.5, 4]
    token = torch.cat([torch.full((1, 1, 1), 9.0), line], dim=1)
    assert resize_positions(token, (3,), (2,)).flatten().tolist() == [9, 0, 4]
    grid = torch.arange(8.0).reshape(1, 8, 1)  # 4·t + 2·h + w
    wanted = [4 * t + 2 * h + w for t in (0, 0.5, 1) for h in (0, 1) for w in (0, 0.5, 1)]
    assert resize_positions(grid, (2, 2, 2), (3, 2, 3)).flatten().tolist() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="do not make a grid"):
        resize_positions(line, (2, 2), (3, 3))


@pytest.mark.parametrize(
    ("architecture", "config", "words"),
    [
        ("vivit-fsa", {"pool": "token"}, "pool must be one of gap"),
        ("vivit-fdp", {"num_heads": 3}, "num_heads must be even"),
        ("vivit-fdp", {"pool": "token"}, "pool must be one of gap"),
        ("vivit-fe", {"pool": "gmp"}, "pool must be one of token, gap"),
        ("vivit-fe", {"temporal_depth": -1}, "temporal_depth"),
        ("vivit-st", {"num_heads": 5}, "5 heads"),
        ("vivit-st", {"num_frames": 1}, "no whole tubelet"),
        ("vivit-st", {"depth": 0}, "depth must be at least 1"),
        ("vivit-st", {"activation": "swish"}, "activation must be one of"),
        ("vivit-fsa", {"attention_order": "both"}, "attention_order"),
        ("vivit-fsa", {"drop_path_rate": 0.1}, "takes no drop_path_rate"),
        ("vivit-st", {"embed_dims": 8}, "did you mean embed_dim?"),
        ("vivit-sf", {}, "did you mean vivit-"),
    ],
)
def test_impossible_configurations(architecture: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(architecture, **{**SMALL, **config})


@pytest.mark.parametrize(
    ("size", "shape"),
    [((2, 16, 16), (2, 3, 32, 64, 48)), ((4, 8, 16), (1, 3, 9, 41, 50)), ((1, 16, 16), (3, 1, 2, 32, 32))],
)
def test_tubelets_as_a_matrix_product(size: tuple[int, int, int], shape: tuple[int, ...]) -> None:
    """What CUDA devices compute is the convolution, also where the view is no multiple of the tubelet."""
    embedding = TubeletEmbedding(size, shape[1], 24).double()
    views = torch.randn(shape, dtype=torch.double)
    torch.testing.assert_close(embedding.project_tubelets(views), embedding(views), atol=1e-12, rtol=0)
