"""TimeSformer's five schemes: published sizes and costs, who attends to whom, and views of other sizes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vidcls.errors import ConfigError
from vidcls.models import ARCHITECTURES, build
from vidcls.models.layers import Attention
from vidcls.models.timesformer import AxialBlock, DividedBlock, LocalGlobalBlock, StepBlock, TimeSformerConfig

SCHEMES = [name for name in ARCHITECTURES if name.startswith("timesformer-")]
TIMED = [name for name in SCHEMES if name != "timesformer-space"]
TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "num_classes": 5}


def tiny(architecture: str, **config: object) -> nn.Module:
    """A small model whose every parameter is random, so that zeros of the initialization hide nothing."""
    torch.manual_seed(0)
    model = build(architecture, **{**TINY, "image_size": 32, "num_frames": 4, **config}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


# --- published figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "config", "params", "gmacs"),
    [
        ("timesformer-divided", {}, 121.57, 195.8),
        ("timesformer-divided", {"num_frames": 16, "image_size": 448}, 122.02, 1702.7),
        ("timesformer-divided", {"num_frames": 96}, 121.63, 2379.9),
        ("timesformer-divided", {"num_frames": 64, "num_classes": 174}, None, 1579.2),
        ("timesformer-joint", {}, 86.11, 179.6),
        ("timesformer-space", {}, 86.11, 140.5),
        ("timesformer-space", {"num_classes": 174}, 85.93, None),
        ("timesformer-joint", {"num_classes": 174}, 85.94, None),
        ("timesformer-divided", {"num_classes": 174}, 121.39, None),
        ("timesformer-local-global", {"num_classes": 174}, 121.39, None),
        ("timesformer-axial", {"num_classes": 174}, 156.846, None),
    ],
)
def test_published_size_and_cost(
    architecture: str, config: dict[str, int], params: float | None, gmacs: float | None
) -> None:
    with torch.device("meta"):
        model = build(architecture, **config).eval()
    if params is not None:
        ours = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert ours == pytest.approx(params, abs=0.006)
    if gmacs is not None:
        views = torch.empty(1, 3, model.config.num_frames, *model.config.image_size, device="meta")
        with FlopCounterMode(display=False) as counter:
            model(views)
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.001)


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("timesformer-space", [197]),
        ("timesformer-joint", [1569]),
        ("timesformer-divided", [8, 197]),  # the paper's 206 counts the class token in both steps
        ("timesformer-local-global", [393, 197]),  # 590
        ("timesformer-axial", [9, 15, 15]),  # 39
    ],
)
def test_keys_of_each_patch(architecture: str, keys: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    attend = Attention.attend

    def counting(self: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is None
        seen.append(k.shape[-2])
        return attend(self, q, k, v)

    monkeypatch.setattr(Attention, "attend", counting)
    model = tiny(architecture, image_size=112, num_frames=8, depth=1, embed_dim=4)
    with torch.no_grad():
        model(torch.randn(1, 3, 8, 112, 112))
    assert seen == keys


# --- who attends to whom -------------------------------------------------------------------------------------

Place = tuple[int, int, int]  # (frame, row, column)


def same_quadrant(a: Place, b: Place, grid: Place) -> bool:
    _, height, width = grid
    return all(
        (2 * x >= side) == (2 * y >= side) for x, y, side in zip(a[1:], b[1:], (height, width), strict=True)
    )


STEPS = {
    "divided over time": (DividedBlock, "temporal", lambda a, b, grid: a[1:] == b[1:]),
    "divided over space": (DividedBlock, "last", lambda a, b, grid: a[0] == b[0]),
    "local": (LocalGlobalBlock, "local", same_quadrant),
    "global": (
        LocalGlobalBlock,
        "last",
        lambda a, b, grid: all((x - y) % 2 == 0 for x, y in zip(a, b, strict=True)),
    ),
    "axial over time": (AxialBlock, "temporal", lambda a, b, grid: a[1:] == b[1:]),
    "axial over width": (AxialBlock, "width", lambda a, b, grid: (a[0], a[1]) == (b[0], b[1])),
    "axial over height": (AxialBlock, "last", lambda a, b, grid: (a[0], a[2]) == (b[0], b[2])),
}
GRIDS = [(2, 4, 6), (4, 2, 2), (3, 4, 2), (1, 1, 4)]


def random_block(block_class: type[StepBlock]) -> StepBlock:
    torch.manual_seed(1)
    block = block_class(TimeSformerConfig(embed_dim=8, num_heads=2), 0.0).eval().double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return block


def places(grid: Place) -> list[Place]:
    """OutputPaths of the patches in the order of the tokens: time fastest, then columns, then rows."""
    t, h, w = grid
    return [(f, y, x) for y, x, f in product(range(h), range(w), range(t))]


def only_step(block: StepBlock, step: str) -> None:
    """Silence a block's other attention steps and its MLP, so that its forward pass is this one step."""
    with torch.no_grad():
        for name in (*block.early_steps, "last"):
            if name != step:
                last = block.get_submodule("attn.proj" if name == "last" else f"{name}_fc")
                for parameter in last.parameters():
                    parameter.zero_()
        for parameter in block.mlp.fc2.parameters():
            parameter.zero_()


def attend_one_by_one(block: StepBlock, step: str, tokens: Tensor, grid: Place, sees: object) -> Tensor:
    """The same step from its definition: for each patch, a softmax over the list of tokens that it sees."""
    prefix = "" if step == "last" else f"{step}_"
    norm, attn = block.get_submodule(f"{prefix}norm1"), block.get_submodule(f"{prefix}attn")
    with_class_token = (type(block), step) != (DividedBlock, "temporal")
    q, k, v = attn.qkv(norm(tokens[0])).chunk(3, dim=-1)

    def attend(query: int, keys: list[int]) -> Tensor:
        heads = []
        for part in torch.arange(tokens.shape[-1]).chunk(attn.num_heads):
            weights = (k[keys][:, part] @ q[query][part] / len(part) ** 0.5).softmax(0)
            heads.append(weights @ v[keys][:, part])
        out: Tensor = attn.proj(torch.cat(heads))
        return block.get_submodule(f"{prefix}fc")(out) if prefix else out

    where = places(grid)
    groups = {}
    out = tokens[0].clone()
    for number, place in enumerate(where):
        group = [1 + other for other, there in enumerate(where) if sees(place, there, grid)]  # type: ignore[operator]
        groups[tuple(group)] = None
        out[1 + number] += attend(1 + number, [0, *group] if with_class_token else group)
    if with_class_token:  # once in each group, then the mean
        out[0] += torch.stack([attend(0, [0, *group]) for group in groups]).mean(0)
    return out[None]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_a_softmax_over_the_patches_it_sees(step: str, grid: Place) -> None:
    block_class, name, sees = STEPS[step]
    block = random_block(block_class)
    only_step(block, name)
    tokens = torch.randn(1, 1 + grid[0] * grid[1] * grid[2], 8, dtype=torch.float64)
    with torch.no_grad():
        expected = attend_one_by_one(block, name, tokens, grid, sees)
        assert torch.allclose(block(tokens, grid), expected, atol=1e-10)


@pytest.mark.parametrize("step", STEPS)
def test_a_changed_patch_changes_those_that_see_it_and_no_others(step: str) -> None:
    grid = (4, 6, 5)
    block_class, name, sees = STEPS[step]
    block = random_block(block_class)
    only_step(block, name)
    where = places(grid)
    tokens = torch.randn(1, 1 + len(where), 8, dtype=torch.float64)
    with torch.no_grad():
        before = block(tokens, grid)[0, 1:]
        for changed in range(0, len(where), 7):
            other = tokens.clone()
            other[0, 1 + changed] += torch.linspace(-1, 1, 8).square()
            moved = (block(other, grid)[0, 1:] - before).abs().amax(1) > 1e-9
            assert moved.tolist() == [sees(where[changed], place, grid) for place in where]


@pytest.mark.parametrize("architecture", TIMED)
def test_one_block_reaches_the_whole_clip(architecture: str) -> None:
    model = tiny(architecture, depth=1)
    views = torch.randn(1, 3, 4, 32, 32, requires_grad=True)
    model(views)[0, 0].backward()
    assert views.grad is not None
    assert bool((views.grad != 0).all())


def test_space_only_does_not_know_the_order_of_frames() -> None:
    views = torch.randn(2, 3, 4, 32, 32)
    shuffled = views[:, :, [2, 0, 3, 1]]
    with torch.no_grad():
        for architecture in SCHEMES:
            model = tiny(architecture)
            moved = (model(views) - model(shuffled)).abs().max()
            assert (moved < 1e-5) == (architecture == "timesformer-space"), architecture


# --- views of other sizes ------------------------------------------------------------------------------------


def nearest(old: int, new: int) -> np.ndarray:
    return np.arange(new) * old // new


@pytest.mark.parametrize("architecture", SCHEMES)
@pytest.mark.parametrize(
    ("frames", "height", "width"), [(4, 32, 48), (6, 16, 24), (3, 56, 40), (9, 32, 32), (2, 72, 64)]
)
def test_other_sizes_in_forward_take_the_nearest_in_space_and_in_time(
    architecture: str, frames: int, height: int, width: int
) -> None:
    model = tiny(architecture)
    rows, columns = nearest(4, height // 8), nearest(4, width // 8)
    table = model.pos_embed[0, 1:].detach().numpy().reshape(4, 4, -1)
    resized = table[rows][:, columns].reshape(-1, table.shape[-1])

    twin = tiny(architecture, image_size=(height, width), num_frames=frames)
    state = model.state_dict()
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], torch.from_numpy(resized)[None]], dim=1)
    if "time_embed" in state:
        state["time_embed"] = state["time_embed"][:, nearest(4, frames)]
    twin.load_state_dict(state)
    views = torch.randn(2, 3, frames, height, width)
    with torch.no_grad():
        assert torch.allclose(model(views), twin(views), atol=1e-6)


def test_the_same_number_of_patches_keeps_the_table_as_it_is() -> None:
    """The released code compares numbers of patches, not shapes: 2 × 8 patches get the 4 × 4 table row by row."""
    model = tiny("timesformer-joint")
    twin = tiny("timesformer-joint", image_size=(16, 64))
    twin.load_state_dict(model.state_dict())
    views = torch.randn(1, 3, 4, 16, 64)
    with torch.no_grad():
        assert torch.equal(model(views), twin(views))


def test_where_other_sizes_are_not_defined_they_are_refused() -> None:
    model = tiny("timesformer-divided", any_size=False)
    model(torch.randn(1, 3, 4, 32, 32))
    for shape in ((6, 32, 32), (4, 32, 40), (4, 16, 64)):
        with pytest.raises(ConfigError, match=r"was built for 4 frames of \(32, 32\) pixels.*num_frames="):
            model(torch.randn(1, 3, *shape))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"num_heads": 5}, "num_heads: 16 channels cannot be split into 5 heads"),
        ({"patch_size": 64}, "no patch of"),
        ({"patch_size": 0}, "no patch of"),
        ({"num_frames": 0}, "num_frames: 0 is not positive"),
        ({"activation": "swish"}, "activation: 'swish' is unknown"),
    ],
)
def test_sizes_that_make_no_model_are_named(config: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        tiny("timesformer-divided", **config)


# --- training and export -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SCHEMES)
def test_initialization_is_the_released_one(architecture: str) -> None:
    model = build(architecture, **TINY, image_size=32, num_frames=4)
    zero = {name for name, parameter in model.named_parameters() if not parameter.any()}
    weights = {name for name in zero if name.endswith("weight")}
    assert weights == {name for name, _ in model.named_parameters() if name.endswith("_fc.weight")}
    assert ("time_embed" in zero) == (architecture != "timesformer-space")
    assert "pos_embed" not in zero
    assert "cls_token" not in zero


@pytest.mark.parametrize("architecture", SCHEMES)
def test_every_parameter_gets_a_gradient(architecture: str) -> None:
    model = tiny(architecture, drop_path_rate=0.0).train()
    model(torch.randn(2, 3, 4, 32, 32)).logsumexp(1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("architecture", SCHEMES)
def test_random_parts_are_off_in_eval(architecture: str) -> None:
    model = tiny(architecture, drop_path_rate=0.5, dropout=0.3, attn_dropout=0.3)
    plain = tiny(architecture, drop_path_rate=0.0)
    plain.load_state_dict(model.state_dict())
    views = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        together = model(views)
        assert torch.equal(together, model(views))
        assert torch.equal(together, plain(views))
        assert torch.allclose(together[1:2], model(views[1:2]), atol=1e-5)
        assert not torch.allclose(model.train()(views), together, atol=1e-3)


@pytest.mark.parametrize("architecture", SCHEMES)
def test_export(architecture: str) -> None:
    model = tiny(architecture, depth=1)
    views = torch.randn(2, 3, 4, 32, 32)
    exported = torch.export.export(model, (views,)).module()
    with torch.no_grad():
        assert torch.allclose(exported(views), model(views), atol=1e-5)


def test_reset_head() -> None:
    model = tiny("timesformer-axial")
    model.reset_head(9)
    assert model.num_classes == model.config.num_classes == 9
    assert model(torch.randn(1, 3, 4, 32, 32)).shape == (1, 9)
    assert not model.head.bias.any()
    assert 0.01 < model.head.weight.std() < 0.03
