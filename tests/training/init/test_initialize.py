"""Starting from an image ViT: the published rules, checked value by value against the references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.conftest import golden_dirs
from vidcls.checkpoints import Checkpoint, open_raw, scenic
from vidcls.errors import CheckpointError, ConfigError
from vidcls.models import build
from vidcls.models.grids import resize_positions
from vidcls.training.init.inflate import fit_positions, inflate_filters
from vidcls.training.init.initialize import initialize

SCENIC = golden_dirs("scenic-init")
TIMESFORMER = golden_dirs("timesformer-fb-init-from-vit")
VARIANTS = {
    "spacetime": "vivit-st",
    "factorized_encoder": "vivit-fe",
    "factorized_self_attention_block": "vivit-fsa",
    "factorized_dot_product_attention": "vivit-fdp",
}
METHODS = {"central": "central", "average": "average", "average_arp": "average_arp"}


def scenic_models() -> list[Any]:
    cases = []
    for folder in SCENIC:
        for name, case in json.loads((folder / "case.json").read_text())["models"].items():
            cases.append(pytest.param(folder, name, case, id=f"{folder.parents[1].name}-{name}"))
    return cases


def scenic_config(case: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Keywords of our model for a golden's configuration."""
    old = case["config"]
    height, width, steps = old["patch_hwt"]
    space = old.get("spatial_transformer", old)
    config: dict[str, Any] = {
        "image_size": old["crop_size"],
        "num_frames": old["num_frames"],
        "tubelet_size": (steps, height, width),
        "num_classes": old["num_classes"],
        "embed_dim": old["hidden_size"],
        "depth": space["num_layers"],
        "num_heads": space["num_heads"],
        "mlp_ratio": space["mlp_dim"] / old["hidden_size"],
        "pool": old["classifier"],
    }
    if "temporal_transformer" in old:
        config["temporal_depth"] = old["temporal_transformer"]["num_layers"]
    if "attention_config_extra" in old:
        config["attention_order"] = old["attention_config_extra"]["attention_order"]
    return VARIANTS[old["variant"]], config


def functions(folder: Path) -> dict[str, Tensor]:
    with np.load(folder / "functions.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def ids(folder: Path) -> str:
    return folder.parents[1].name


@pytest.mark.parametrize("folder", SCENIC, ids=ids)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_filters_are_inflated_as_in_scenic(folder: Path, method: str, steps: int) -> None:
    arrays = functions(folder)
    flat = arrays["kernel2d"].permute(3, 2, 0, 1)  # (h, w, c, d) → (d, c, h, w)
    expected = arrays[f"kernel3d/{method}_frame_initializer/t{steps}"].permute(4, 3, 0, 1, 2)
    torch.testing.assert_close(inflate_filters(flat, steps, method), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("folder", SCENIC, ids=ids)
@pytest.mark.parametrize(
    ("key", "source", "grid", "frames", "cls", "how"),
    [
        ("model1_token_tile_T4_4x4", "cls_grid4x4", (4, 4), 4, True, "tile"),
        ("model1_gap_tile_T4_4x4", "cls_grid4x4", (4, 4), 4, False, "tile"),
        ("model1_token_tile_T4_4x4_from_vit_without_cls", "nocls_grid4x4", (4, 4), 4, True, "tile"),
        ("model1_token_resize_tile_T4_6x6", "cls_grid4x4", (6, 6), 4, True, "resize_tile"),
        ("model1_token_resize_tile_T4_3x3", "cls_grid4x4", (3, 3), 4, True, "resize_tile"),
        ("model2_spatial_token_same_grid_4x4", "cls_grid4x4", (4, 4), 1, True, "tile"),
        ("model2_spatial_gap_same_grid_4x4", "cls_grid4x4", (4, 4), 1, False, "tile"),
        ("model2_spatial_token_resize_6x6", "cls_grid4x4", (6, 6), 1, True, "resize"),
        ("model2_spatial_token_resize_3x3", "cls_grid4x4", (3, 3), 1, True, "resize"),
    ],
)
@pytest.mark.parametrize("auto", [False, True])
def test_positions_are_fitted_as_in_scenic(
    folder: Path, key: str, source: str, grid: tuple[int, int], frames: int, cls: bool, how: str, auto: bool
) -> None:
    arrays = functions(folder)
    expected = arrays[f"pos/{key}"]
    start = torch.zeros_like(expected)
    start[:, :1] = arrays["target_init_pos/model1_token_T4_4x4"][:, :1]
    fitted = fit_positions(
        arrays[f"vit_pos/{source}"],
        start,
        grid=grid,
        num_frames=frames,
        source_cls=not source.startswith("nocls"),
        target_cls=cls,
        how="auto" if auto else how,
    )
    torch.testing.assert_close(fitted, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("folder", SCENIC, ids=ids)
@pytest.mark.parametrize(("key", "frames"), [("token_T8_to_T16", 16), ("token_T8_to_T4", 4)])
def test_temporal_positions_are_resized_as_in_scenic(folder: Path, key: str, frames: int) -> None:
    arrays = functions(folder)
    source, expected = arrays["fe_temporal_pos/cls_T8"], arrays[f"pos/model2_temporal_{key}"]
    fitted = resize_positions(source, (8,), (frames,))
    torch.testing.assert_close(fitted, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("folder", "name", "case"), scenic_models())
def test_model_starts_as_in_scenic(folder: Path, name: str, case: dict[str, Any]) -> None:
    architecture, config = scenic_config(case)
    torch.manual_seed(0)
    model = build(architecture, **config).eval()
    method = case["kernel_init_method"].removesuffix("_frame_initializer")
    temporal = "zero" if case["init_from_extra"].get("init_temporal_transformer") is False else "copy"
    report = initialize(
        model, folder / "vit_params.npz", method, case["positional_embed_size_change"], temporal=temporal
    )
    expected = scenic.read(open_raw(folder / f"{name}.npz"), architecture, {}).state
    own = model.state_dict()
    assert set(own) == set(expected)
    for key in (*report.copied, *report.transformed):
        torch.testing.assert_close(own[key], expected[key], atol=1e-6, rtol=0, msg=key)
    constant = [key for key in report.fresh if expected[key].unique().numel() == 1]
    for key in constant:
        torch.testing.assert_close(own[key], expected[key], atol=0, rtol=0, msg=key)
    if architecture != "vivit-fe":
        assert set(report.fresh) == set(constant)
    assert set(report.unused) <= {"head.weight", "head.bias", "cls_token"}
    # What stayed random differs by the generator; with the reference's draw in its place, so does the output agree.
    model.load_state_dict({**own, **{key: expected[key] for key in report.fresh}})
    with np.load(folder / "video.npz") as arrays:
        views = torch.from_numpy(arrays["x"]).permute(0, 4, 1, 2, 3)
        wanted = torch.from_numpy(arrays[f"pre_logits/{name}"])
    with torch.inference_mode():
        torch.testing.assert_close(model.features(views), wanted, atol=2e-5, rtol=0)
        assert not model(views).any()  # the classifier starts at zero


@pytest.mark.skipif(
    not TIMESFORMER, reason="the case is too large to copy, and ../shared/goldens is not here"
)
@pytest.mark.parametrize("folder", TIMESFORMER, ids=ids)
def test_timesformer_starts_as_released(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())["config"]
    fields = "patch_size embed_dim depth num_heads num_frames num_classes".split()
    model = build(
        "timesformer-divided", image_size=case["img_size"], **{key: case[key] for key in fields}
    ).eval()
    report = initialize(model, folder / "vit.safetensors")
    expected = {k.removeprefix("model."): v for k, v in load_file(folder / "model.safetensors").items()}
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=0, rtol=0, msg=key)
    assert not report.unused
    assert all("_fc." in key or key == "time_embed" for key in report.fresh)
    with np.load(folder / "io.npz") as arrays, torch.inference_mode():
        logits = model(torch.from_numpy(arrays["input"]))
        torch.testing.assert_close(logits, torch.from_numpy(arrays["logits"]), atol=2e-5, rtol=0)


def image_vit(classes: int = 5, image_size: int = 32, **config: Any) -> Checkpoint:
    """A tiny image ViT with random weights everywhere."""
    fields: dict[str, Any] = dict(
        image_size=image_size, patch_size=8, embed_dim=16, depth=2, num_heads=2, **config
    )
    torch.manual_seed(3)
    vit = build("vit-frames", num_classes=classes, **fields)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Checkpoint("timm", "vit-frames", fields, vit.state_dict())


TINY: dict[str, Any] = {
    "image_size": 32,
    "num_frames": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 3,
}
VIVIT: dict[str, Any] = dict(TINY, tubelet_size=(2, 8, 8))


@pytest.mark.parametrize("temporal", ["identity", "zero"])
def test_model_3_starts_blind_to_the_order_of_frames(temporal: str) -> None:
    """With zero temporal branches, tokens of different times meet in the pooling alone."""
    model = build("vivit-fsa", **dict(VIVIT, mlp_ratio=4.0)).eval()
    initialize(model, image_vit(), temporal=temporal)
    views = torch.randn(2, 3, 4, 32, 32)
    swapped = views[:, :, [2, 3, 0, 1]]
    with torch.inference_mode():
        torch.testing.assert_close(model.features(views), model.features(swapped), atol=1e-5, rtol=0)
        initialize(model, image_vit(), temporal="copy")
        assert (model.features(views) - model.features(swapped)).abs().max() < 1e-4  # still symmetric in time


def test_model_3_learns_over_time_from_identity_but_not_from_zero() -> None:
    """The published all-zero start is a saddle: no gradient reaches the temporal projections."""
    views = torch.randn(2, 3, 4, 32, 32)
    reached = {}
    for temporal in ("identity", "zero"):
        model = build("vivit-fsa", **VIVIT)
        initialize(model, image_vit(), temporal=temporal)
        nn.init.normal_(model.head.weight)
        model(views).square().sum().backward()
        weights = [p for n, p in model.named_parameters() if ".attn_time." in n and n.endswith("weight")]
        reached[temporal] = sum(float(p.grad.abs().sum()) for p in weights if p.grad is not None)
    assert reached["zero"] == 0
    assert reached["identity"] > 0


def test_factorized_encoder_takes_the_class_tokens_place_but_not_the_token() -> None:
    model = build("vivit-fe", **VIVIT)
    source = image_vit()
    initialize(model, source)
    assert not model.spatial.cls_token.any()
    torch.testing.assert_close(model.spatial.pos_embed[:, 0], source.state["backbone.pos_embed"][:, 0])


@pytest.mark.parametrize("architecture", ["vit-frames", "vtn"])
def test_models_by_frame_take_the_whole_image_model(architecture: str) -> None:
    source = image_vit(classes=3)
    backbone = dict(source.config.items())
    config = {**backbone, "num_classes": 3}
    if architecture == "vtn":
        config = {"backbone": {k: v for k, v in backbone.items() if k != "image_size"}, "image_size": 32}
        config |= {"num_classes": 3, "depth": 1, "num_heads": 2, "mlp_dim": 16}
        from vidcls.models import config_keys

        config = {k: v for k, v in config.items() if k in config_keys("vtn")}
    model = build(architecture, **config)
    report = initialize(model, source)
    for name, tensor in source.state.items():
        if name.startswith("backbone.") or architecture == "vit-frames":
            torch.testing.assert_close(model.state_dict()[name], tensor)
    assert ("head.weight" in report.copied) == (architecture == "vit-frames")


def test_fine_tuning_keeps_the_classifier_only_for_the_same_classes() -> None:
    torch.manual_seed(1)
    old = build("vivit-fe", **VIVIT)
    nn.init.normal_(old.head.weight)
    checkpoint = Checkpoint("native", "vivit-fe", VIVIT, old.state_dict())
    same, other = build("vivit-fe", **VIVIT), build("vivit-fe", **dict(VIVIT, num_classes=7))
    assert not initialize(same, checkpoint).fresh
    torch.testing.assert_close(same.head.weight, old.head.weight)
    assert set(initialize(other, checkpoint).fresh) == {"head.weight", "head.bias"}
    torch.testing.assert_close(other.patch_embed.proj.weight, old.patch_embed.proj.weight)


def test_fine_tuning_at_another_size_resizes_positions() -> None:
    old = build("vivit-fe", **VIVIT)
    checkpoint = Checkpoint("native", "vivit-fe", VIVIT, old.state_dict())
    model = build("vivit-fe", **dict(VIVIT, image_size=48, num_frames=8))
    initialize(model, checkpoint)
    assert model.spatial.pos_embed.shape == (1, 37, 16)
    torch.testing.assert_close(model.spatial.pos_embed[:, [0, 1, -1]], old.spatial.pos_embed[:, [0, 1, -1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"embed_dim": 32}, "shape"), ({"depth": 1}, "deeper"), ({"tubelet_size": (2, 4, 4)}, "shape")],
)
def test_a_source_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=message):
        initialize(build("vivit-st", **{**VIVIT, **change}), image_vit())


def test_wrong_options_are_named() -> None:
    model = build("vivit-fsa", **VIVIT)
    with pytest.raises(ConfigError, match="choose one of"):
        initialize(model, image_vit(), method="median")
    with pytest.raises(ConfigError, match="choose one of"):
        initialize(model, image_vit(), positions="wrap")
    with pytest.raises(ConfigError, match="choose one of"):
        initialize(model, image_vit(), temporal="random")
    with pytest.raises(ConfigError, match="resize_tile"):
        initialize(build("vivit-st", **dict(VIVIT, image_size=48)), image_vit(), positions="tile")
