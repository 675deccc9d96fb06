"""Facebook's TimeSformer files: goldens, wrappings, schemes, sizes changed while loading, image ViTs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import golden_dirs
from vidcls.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from vidcls.checkpoints.timesformer_fb import inflate_image_vit
from vidcls.config import InputSpec
from vidcls.errors import CheckpointError, ConfigError
from vidcls.models import build

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "num_classes": 5, "image_size": 32}
FB_SCHEMES = ["timesformer-divided", "timesformer-joint", "timesformer-space"]


def golden_files(pattern: str) -> list[Any]:
    files = [path for folder in golden_dirs(pattern) for path in sorted(folder.iterdir())]
    return [
        pytest.param(path, id=f"{path.parent.name}-{path.name}-{path.parents[2].name}")
        for path in files
        if path.suffix in (".safetensors", ".pyth") and path.name != "vit.safetensors"
    ]


def golden_input(io: Any) -> Tensor:
    if "input" in io:
        return torch.from_numpy(io["input"])
    return torch.randn(tuple(io["shape"]), generator=torch.Generator().manual_seed(int(io["seed"])))


@pytest.mark.parametrize("path", golden_files("timesformer-fb-*"))
def test_goldens(path: Path) -> None:
    case = json.loads((path.parent / "case.json").read_text())
    model = load_checkpoint(path, num_heads=case["config"]["num_heads"])
    with np.load(path.parent / "io.npz") as io, torch.no_grad():
        views = golden_input(io)
        assert np.abs(model(views).numpy() - io["logits"]).max() < 2e-5
        assert np.abs(model.forward_features(views).numpy() - io["features"]).max() < 2e-5
        assert np.abs(model.double()(views.double()).numpy() - io["logits_f64"]).max() < 1e-9


def random_state(architecture: str, **config: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = build(architecture, **{**TINY, "num_frames": 4, **config}).state_dict()
    return {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in state.items()}


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def settings(attention: str = "divided_space_time", **data: Any) -> str:
    test = {"NUM_ENSEMBLE_VIEWS": 1, "NUM_SPATIAL_CROPS": 3, "DATASET": data.pop("dataset", "kinetics")}
    return yaml.safe_dump({"DATA": data, "TEST": test, "TIMESFORMER": {"ATTENTION_TYPE": attention}})


WRAPPINGS = {
    "as released": lambda s: {
        "epoch": 14,
        "model_state": prefixed(s, "model."),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        "cfg": settings(),
    },
    "model_state without the wrapper's prefix": lambda s: {"model_state": s},
}
TEMPORAL_WRAPPINGS = {
    "model with prefix": lambda s: {"model": prefixed(s, "model.")},
    "module with prefix": lambda s: {"module": prefixed(s, "model.")},
    "state_dict, distributed": lambda s: {"state_dict": prefixed(s, "module.model."), "epoch": 3},
    "model": lambda s: {"model": s},
    "module": lambda s: {"module": s},
    "state_dict": lambda s: {"state_dict": prefixed(s, "module.")},
    "prefix only": lambda s: prefixed(s, "model."),
    "bare": lambda s: s,
}


@pytest.mark.parametrize("architecture", FB_SCHEMES)
@pytest.mark.parametrize("wrapping", WRAPPINGS | TEMPORAL_WRAPPINGS)
def test_wrappings(architecture: str, wrapping: str, tmp_path: Path) -> None:
    state = random_state(architecture)
    path = tmp_path / "model.pyth"
    torch.save((WRAPPINGS | TEMPORAL_WRAPPINGS)[wrapping](state), path)
    # Without anything temporal these could as well be timm's or Lightning's; then the user says what it is.
    said = architecture if architecture == "timesformer-space" and wrapping in TEMPORAL_WRAPPINGS else None
    model = load_checkpoint(path, said, num_heads=2)
    assert model.architecture == architecture
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("architecture", FB_SCHEMES)
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_safetensors(architecture: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(prefixed(random_state(architecture), prefix), path)
    checkpoint = read_checkpoint(path, num_heads=2)
    plain_vit = architecture == "timesformer-space" and not prefix
    assert checkpoint.architecture == ("vit-frames" if plain_vit else architecture)


def test_a_vit_with_two_readings_is_what_the_user_says(tmp_path: Path) -> None:
    path = tmp_path / "deit.pth"
    torch.save({"model": random_state("timesformer-space")}, path)
    assert read_checkpoint(path, num_heads=2).architecture == "vit-frames"
    assert read_checkpoint(path, format="timesformer_fb", num_heads=2).architecture == "timesformer-space"
    assert read_checkpoint(path, "timesformer-space", num_heads=2).architecture == "timesformer-space"
    wrapped = tmp_path / "space.pyth"
    torch.save({"model_state": prefixed(random_state("timesformer-space"), "model.")}, wrapped)
    assert read_checkpoint(wrapped, num_heads=2).architecture == "timesformer-space"


@pytest.mark.parametrize("architecture", ["timesformer-local-global", "timesformer-axial"])
def test_unreleased_schemes_live_in_our_own_format(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(architecture, **TINY, num_frames=4).eval()
    save_checkpoint(model, tmp_path / "own.safetensors")
    loaded = load_checkpoint(tmp_path / "own.safetensors")
    views = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(views), model(views))


# --- what the file does not tell, or contradicts -------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "asked", "keywords", "text"),
    [
        ("timesformer-divided", None, {}, r"how many attention heads its 16 channels make; give num_heads="),
        ("timesformer-divided", "timesformer-joint", {}, "holds timesformer-divided, not timesformer-joint"),
        ("timesformer-divided", "timesformer-space", {}, "holds timesformer-divided, not timesformer-space"),
        ("timesformer-joint", "timesformer-axial", {}, "holds timesformer-joint, not timesformer-axial"),
        ("timesformer-joint", None, {"patch_size": 4, "num_heads": 2}, r"has patch_size \(8, 8\)"),
        ("timesformer-joint", None, {"num_classes": 9, "num_heads": 2}, r"has num_classes 5.*reset_head"),
    ],
)
def test_contradictions(
    architecture: str, asked: str | None, keywords: dict[str, Any], text: str, tmp_path: Path
) -> None:
    torch.save({"model_state": random_state(architecture)}, tmp_path / "x.pyth")
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "x.pyth", asked, **keywords)


def test_heads_of_the_published_width_are_known(tmp_path: Path) -> None:
    state = random_state("timesformer-joint", embed_dim=128, depth=1)
    torch.save({"model_state": state}, tmp_path / "x.pyth")
    assert read_checkpoint(tmp_path / "x.pyth").config["num_heads"] == 2


@pytest.mark.parametrize(
    "name", ["blocks.1.temporal_fc.bias", "head.bias", "head.weight", "time_embed", "norm.weight"]
)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    state = random_state("timesformer-divided")
    del state[name]
    torch.save({"model_state": state}, tmp_path / "x.pyth")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_checkpoint(tmp_path / "x.pyth", num_heads=2)


def test_positions_that_make_no_square_need_a_size(tmp_path: Path) -> None:
    torch.save({"model_state": random_state("timesformer-joint", image_size=(32, 48))}, tmp_path / "x.pyth")
    with pytest.raises(CheckpointError, match="24 position embeddings make no square; give image_size="):
        read_checkpoint(tmp_path / "x.pyth", num_heads=2)
    checkpoint = read_checkpoint(tmp_path / "x.pyth", num_heads=2, image_size=(32, 48))
    assert checkpoint.config["image_size"] == (32, 48)
    assert not checkpoint.notes


# --- sizes changed while loading -----------------------------------------------------------------------------


def nearest(old: int, new: int) -> np.ndarray:
    return np.arange(new) * old // new


@pytest.mark.parametrize(
    ("size", "grid", "frames"),
    [(48, (6, 6), 8), (16, (2, 2), 2), ((24, 40), (3, 5), 6), (64, (8, 8), 4), (32, (4, 4), 3)],
)
def test_places_are_resized_along_one_row_and_times_along_time(
    size: Any, grid: tuple[int, int], frames: int, tmp_path: Path
) -> None:
    state = random_state("timesformer-divided")
    torch.save({"model_state": state}, tmp_path / "x.pyth")
    model = load_checkpoint(tmp_path / "x.pyth", num_heads=2, image_size=size, num_frames=frames)
    flat = state["pos_embed"].numpy()
    expected = np.concatenate([flat[:, :1], flat[:, 1:][:, nearest(16, grid[0] * grid[1])]], axis=1)
    assert np.array_equal(model.pos_embed.detach().numpy(), expected)
    assert np.array_equal(
        model.time_embed.detach().numpy(), state["time_embed"].numpy()[:, nearest(4, frames)]
    )
    assert model.config.num_frames == frames


def test_loading_and_forward_resize_places_differently_and_times_alike(tmp_path: Path) -> None:
    torch.save({"model_state": random_state("timesformer-divided")}, tmp_path / "x.pyth")
    published = load_checkpoint(tmp_path / "x.pyth", num_heads=2)
    longer, views = (
        load_checkpoint(tmp_path / "x.pyth", num_heads=2, num_frames=6),
        torch.randn(1, 3, 6, 32, 32),
    )
    larger, big = (
        load_checkpoint(tmp_path / "x.pyth", num_heads=2, image_size=48),
        torch.randn(1, 3, 4, 48, 48),
    )
    with torch.no_grad():
        assert torch.equal(longer(views), published(views))
        assert (larger(big) - published(big)).abs().max() > 1e-3


def test_what_was_resized_is_noted(tmp_path: Path) -> None:
    torch.save({"model_state": random_state("timesformer-joint")}, tmp_path / "x.pyth")
    notes = read_checkpoint(tmp_path / "x.pyth", num_heads=2, image_size=48, num_frames=8).notes
    assert "16 position embeddings were resized to 36" in notes[0]
    assert "4 time embeddings were resized to 8" in notes[1]


# --- the settings inside a .pyth -----------------------------------------------------------------------------


def read_with(cfg: Any, tmp_path: Path, **keywords: Any) -> Any:
    torch.save({"model_state": random_state("timesformer-divided"), "cfg": cfg}, tmp_path / "x.pyth")
    return read_checkpoint(tmp_path / "x.pyth", num_heads=2, **keywords)


def test_input_is_the_stored_one(tmp_path: Path) -> None:
    cfg = settings(
        SAMPLING_RATE=16, TARGET_FPS=30, TRAIN_CROP_SIZE=32, TEST_CROP_SIZE=40, MEAN=[0.4, 0.5, 0.6]
    )
    spec = InputSpec(**read_with(cfg, tmp_path).input)
    assert (spec.num_frames, spec.stride, spec.fps, spec.num_views, spec.num_crops) == (4, 16, 30, 1, 3)
    assert (spec.image_size, spec.resize, spec.resize_rule, spec.center_crop) == (
        (40, 40),
        40,
        "float",
        "ceil",
    )
    assert (spec.scale, spec.offset, spec.mean, spec.std) == (1 / 255, 0, (0.4, 0.5, 0.6), (0.225,) * 3)
    assert (spec.sampling, spec.channels) == ("timesformer", "rgb")


def test_a_size_of_the_users_own_wins(tmp_path: Path) -> None:
    seen = read_with(settings(TEST_CROP_SIZE=40), tmp_path, image_size=48, num_frames=8).input
    assert (seen["image_size"], seen["resize"], seen["num_frames"]) == ((48, 48), 48, 8)


def test_something_something_is_sampled_in_segments_and_in_bgr(tmp_path: Path) -> None:
    seen = read_with(settings(dataset="ssv2", REVERSE_INPUT_CHANNEL=True), tmp_path).input
    assert (seen["sampling"], seen["channels"]) == ("segments", "bgr")


def test_a_crop_that_is_no_multiple_of_the_patch_is_kept(tmp_path: Path) -> None:
    assert read_with(settings(TRAIN_CROP_SIZE=37), tmp_path).config["image_size"] == (37, 37)
    assert read_with(settings(TRAIN_CROP_SIZE=224), tmp_path).config["image_size"] == (32, 32)


@pytest.mark.parametrize(
    "cfg",
    ["{", "- 1", "!!python/object/apply:os.system ['true']", "&a [*a]", "x" * (1 << 21), 5],
)
def test_settings_that_cannot_be_read_leave_the_tensors_readable(cfg: Any, tmp_path: Path) -> None:
    checkpoint = read_with(cfg, tmp_path)
    assert checkpoint.input == {"num_frames": 4, "image_size": (32, 32), "resize": 32}


@pytest.mark.parametrize(
    "data",
    [
        {"TEST_CROP_SIZE": -1},
        {"TEST_CROP_SIZE": ["a", 1]},
        {"SAMPLING_RATE": "fast"},
        {"MEAN": [1, 2]},
        {"STD": [0, 0, 0]},
    ],
)
def test_settings_out_of_bounds_are_noted(data: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = read_with(settings(**data), tmp_path)
    assert checkpoint.input == {"num_frames": 4, "image_size": (32, 32), "resize": 32}
    assert "its stored cfg is not usable" in checkpoint.notes[0]


# --- from an image ViT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", golden_dirs("timesformer-fb-init-from-vit"), ids=str)
def test_inflation_golden(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())["config"]
    state = inflate_image_vit(
        load_file(folder / "vit.safetensors"),
        "timesformer-divided",
        image_size=case["img_size"],
        num_frames=case["num_frames"],
        num_classes=case["num_classes"],
    )
    expected = {name.removeprefix("model."): t for name, t in load_file(folder / "model.safetensors").items()}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def vit_state(**config: Any) -> dict[str, Tensor]:
    return random_state("timesformer-space", **config)  # the tensors of an image ViT, under timm's names


@pytest.mark.parametrize("architecture", [*FB_SCHEMES, "timesformer-local-global", "timesformer-axial"])
def test_inflated_state_fits(architecture: str) -> None:
    state = inflate_image_vit(vit_state(), architecture, image_size=32, num_frames=4, num_classes=5)
    build(architecture, **TINY, num_frames=4).load_state_dict(state)


def test_inflated_model_starts_as_the_image_vit() -> None:
    source = vit_state()
    state = inflate_image_vit(source, "timesformer-divided", image_size=32, num_frames=4, num_classes=5)
    divided = build("timesformer-divided", **TINY, num_frames=4).eval()
    divided.load_state_dict(state)
    image = build("timesformer-space", **TINY, num_frames=1).eval()
    image.load_state_dict(source)
    still = torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(divided(still.expand(-1, -1, 4, -1, -1)), image(still), atol=1e-5)


def test_inflation_resizes_places_and_drops_a_head_of_other_classes() -> None:
    source = prefixed(vit_state(image_size=24), "backbone.")
    state = inflate_image_vit(source, "timesformer-axial", image_size=(32, 40), num_frames=6, num_classes=9)
    assert "head.weight" not in state
    assert "head.bias" not in state
    flat = source["backbone.pos_embed"].numpy()
    assert np.array_equal(state["pos_embed"][:, 1:].numpy(), flat[:, 1:][:, nearest(9, 20)])
    assert not state["time_embed"].any()
    assert state["time_embed"].shape == (1, 6, 16)
    for step in ("temporal", "width"):
        assert torch.equal(
            state[f"blocks.1.{step}_attn.qkv.weight"], source["backbone.blocks.1.attn.qkv.weight"]
        )
        assert torch.equal(state[f"blocks.1.{step}_norm1.bias"], source["backbone.blocks.1.norm1.bias"])
        assert not state[f"blocks.1.{step}_fc.weight"].any()


def test_inflation_refuses_what_is_no_image_vit() -> None:
    sizes = {"image_size": 32, "num_frames": 4, "num_classes": 5}
    with pytest.raises(CheckpointError, match="no tensor 'cls_token'"):
        inflate_image_vit({k: t for k, t in vit_state().items() if k != "cls_token"}, FB_SCHEMES[0], **sizes)
    with pytest.raises(CheckpointError, match=r"dist_token have no place in a TimeSformer"):
        inflate_image_vit({**vit_state(), "dist_token": torch.zeros(1)}, FB_SCHEMES[0], **sizes)
    with pytest.raises(ConfigError, match="vit-frames: is not a TimeSformer"):
        inflate_image_vit(vit_state(), "vit-frames", **sizes)
