from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.checkpoints.vivit_files import flatten, pre_linen, scenic_tree, write_msgpack
from tests.conftest import golden_dirs
from tests.models import vivit_naive
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError

TOLERANCE = 2e-5
ARCHITECTURES = {
    "spacetime": "vivit-st",
    "factorized_encoder": "vivit-fe",
    "factorized_self_attention_block": "vivit-fsa",
    "factorized_dot_product_attention": "vivit-fdp",
}


def golden_files() -> list[Path]:
    """Every parameter file of every ViViT golden; the image ViTs among scenic's have no variant."""
    files: list[Path] = []
    for folder in golden_dirs("scenic-*"):
        if (folder / "io.npz").is_file() and "variant" in json.loads((folder / "case.json").read_text()):
            files += [folder / "params.npz", *sorted(folder.glob("*.msgpack"))]
    return [file for file in files if file.is_file()]


def views_of(pixels: Any) -> Tensor:
    """Golden input (b, t, h, w, c), floats or bytes, → views (b, c, t, h, w)."""
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) * np.float32(2 / 255) - 1
    return torch.from_numpy(pixels).permute(0, 4, 1, 2, 3)


def wanted_config(case: dict[str, Any]) -> dict[str, Any]:
    """What must be inferred from the tensors of a golden, by its description."""
    spatial = case.get("spatial_transformer", case)
    wanted = {
        "tubelet_size": tuple(case["tubelet_thw"]),
        "num_classes": case["num_classes"],
        "embed_dim": case["hidden_size"],
        "depth": spatial["num_layers"],
        "num_heads": spatial["num_heads"],
        "mlp_ratio": spatial["mlp_dim"] / case["hidden_size"],
    }
    if "temporal_transformer" in case:
        temporal = case["temporal_transformer"]
        wanted |= {
            "num_frames": case["num_frames"],
            "image_size": (case["crop_size"],) * 2,
            "temporal_depth": temporal["num_layers"],
            "temporal_num_heads": temporal["num_heads"],
            "temporal_mlp_ratio": temporal["mlp_dim"] / case["hidden_size"],
        }
    return wanted


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: f"{path.parent.name}-{path.name}")
@torch.no_grad()
def test_goldens(path: Path) -> None:
    case = json.loads((path.parent / "case.json").read_text())
    architecture = ARCHITECTURES[case["variant"]]
    keywords: dict[str, Any] = {}
    if architecture == "vivit-fsa":
        keywords["attention_order"] = case["attention_config_extra"]["attention_order"]
    asked = architecture if architecture == "vivit-fdp" else None
    checkpoint = read_checkpoint(path, asked, **keywords)
    assert (checkpoint.format, checkpoint.architecture) == ("scenic", architecture)
    assert checkpoint.config.items() >= wanted_config(case).items()
    keywords |= {"num_frames": case["num_frames"], "image_size": case["crop_size"]}
    model: Any = load_checkpoint(path, asked, **keywords)
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) == case["n_params"]
    with np.load(path.parent / "io.npz") as io:
        views = views_of(io["x"])
        for name, found in (("pre_logits", model.features(views)), ("logits", model(views))):
            assert (found - torch.from_numpy(io[name])).abs().max() < TOLERANCE, name


def feature_files() -> list[Path]:
    return [
        file
        for folder in golden_dirs("scenic-features", "scenic-init")
        for file in sorted(folder.glob("model*.npz"))
    ]


@pytest.mark.parametrize("path", feature_files(), ids=lambda path: f"{path.parent.name}-{path.stem}")
@torch.no_grad()
def test_features_of_initialized_models(path: Path) -> None:
    """scenic's freshly initialized models: heads at zero, features before them known."""
    case = json.loads((path.parent / "case.json").read_text())
    described = case.get("configs") or {name: entry["config"] for name, entry in case["models"].items()}
    config = described[path.stem]
    architecture = ARCHITECTURES[config["variant"]]
    keywords = {"num_frames": config["num_frames"], "image_size": config["crop_size"]}
    if architecture == "vivit-fsa":
        keywords["attention_order"] = config["attention_config_extra"]["attention_order"]
    model: Any = load_checkpoint(path, architecture, **keywords)
    own = path.with_name("features.npz")
    with np.load(own if own.is_file() else path.with_name("video.npz")) as io:
        expected = io[path.stem] if own.is_file() else io[f"pre_logits/{path.stem}"]
        features = model.features(views_of(io["x"]))
    assert features.std() > 0.1
    assert (features - torch.from_numpy(expected)).abs().max() < TOLERANCE


SIZES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("spacetime", {"heads": 3, "depth": 3, "grid": (3, 2, 4), "tubelet": (4, 5, 3)}, {}),
    ("spacetime", {"token": False, "representation": 6, "grid": (5, 1, 3)}, {"pool": "gap"}),
    ("spacetime", {"token": False, "grid": (2, 4, 2)}, {"pool": "gmp"}),
    ("factorized_encoder", {"depth": 1, "temporal_depth": 4, "grid": (7, 2, 3), "representation": 4}, {}),
    ("factorized_encoder", {"token": False, "heads": 6, "temporal_heads": 4, "tubelet": (1, 4, 2)}, {}),
    ("factorized_encoder", {"temporal_depth": 0, "grid": (3, 2, 2)}, {}),
    (
        "factorized_self_attention_block",
        {"token": False, "grid": (3, 4, 2)},
        {"attention_order": "time_space"},
    ),
    ("factorized_self_attention_block", {"token": False, "depth": 4}, {"attention_order": "space_time"}),
    ("factorized_dot_product_attention", {"token": False, "heads": 4, "grid": (4, 3, 1)}, {}),
]


@pytest.mark.parametrize(("variant", "sizes", "keywords"), SIZES)
@pytest.mark.parametrize("layout", ["npz", "old", "pre_linen", "new"])
@torch.no_grad()
def test_any_size_in_any_layout(
    variant: str, sizes: dict[str, Any], keywords: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    tree = scenic_tree(variant, **sizes)
    momentum = {key: np.full_like(value, 9) for key, value in flatten(tree).items()}
    path = tmp_path / "checkpoint"
    if layout == "npz":
        with path.open("wb") as file:
            np.savez(file, **flatten(tree))
    elif layout == "new":
        state = {
            "opt_state": {"0": {"trace": tree}},
            "params": tree,
            "global_step": np.int32(7),
            "model_state": {},
        }
        write_msgpack(
            path, {**state, "rng": np.arange(2, dtype=np.uint32), "metadata": {"chrono": {"time": 1.5}}}
        )
    else:
        target = {"params": pre_linen(tree)} if layout == "pre_linen" else tree
        optimizer = {"target": target, "state": {"step": np.int32(7), "param_states": momentum}}
        write_msgpack(path, {"global_step": np.int32(7), "optimizer": optimizer, "model_state": None})
    grid, tubelet = sizes.get("grid", (2, 3, 3)), sizes.get("tubelet", (2, 4, 4))
    frames, *image = (n * step for n, step in zip(grid, tubelet, strict=True))
    model: Any = load_checkpoint(
        path, ARCHITECTURES[variant], num_frames=frames, image_size=tuple(image), **keywords
    )
    assert model.config.grid_size == grid
    views = torch.rand(2, 3, frames, *image, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = torch.from_numpy(vivit_naive.logits(model, views)).float()
    # The naive model sees our tensors, so one of the file's is checked by itself.
    kernel = tree["embedding"]["kernel"]
    assert np.array_equal(model.patch_embed.proj.weight.numpy().transpose(2, 3, 4, 1, 0), kernel)
    torch.testing.assert_close(model(views), expected, rtol=1e-5, atol=TOLERANCE)


@torch.no_grad()
def test_layouts_agree(tmp_path: Path) -> None:
    """The golden says that params.npz is right; here the other layouts are held against the flat one."""
    tree = scenic_tree("factorized_encoder")
    np.savez(tmp_path / "flat.npz", **flatten(tree))
    files = [
        write_msgpack(tmp_path / "a", {"params": tree}),
        write_msgpack(tmp_path / "b", {"optimizer": {"target": {"params": pre_linen(tree)}}}),
    ]
    flat = load_checkpoint(tmp_path / "flat.npz").state_dict()
    for file in files:
        state = load_checkpoint(file).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in flat.items())


def test_chunked_and_bfloat16_arrays(tmp_path: Path) -> None:
    tree = scenic_tree()
    kernel = tree["embedding"]["kernel"]
    pieces = np.array_split(kernel.reshape(-1), 3)
    tree["embedding"]["kernel"] = {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(kernel.shape)},
        "chunks": {str(i): piece for i, piece in enumerate(pieces)},
    }
    rounded = torch.from_numpy(tree["cls"]).bfloat16()
    tree["cls"] = rounded.view(torch.int16).numpy().view("V2")
    model: Any = load_checkpoint(write_msgpack(tmp_path / "checkpoint", {"params": tree}))
    assert np.array_equal(model.patch_embed.proj.weight.detach().numpy().transpose(2, 3, 4, 1, 0), kernel)
    assert torch.equal(model.encoder.cls_token.detach(), rounded.float())
    listed = {"__msgpack_chunked_array__": True, "shape": list(kernel.shape), "chunks": pieces}
    tree["embedding"]["kernel"] = listed
    again: Any = load_checkpoint(write_msgpack(tmp_path / "lists", {"params": tree}))
    assert torch.equal(again.patch_embed.proj.weight, model.patch_embed.proj.weight)


@pytest.mark.parametrize(
    ("grid", "tubelet", "keywords", "frames", "image", "guess"),
    [
        ((16, 14, 14), (2, 16, 16), {}, 32, (224, 224), False),  # as released
        (
            (16, 14, 14),
            (2, 16, 16),
            {"num_frames": 8},
            32,
            (224, 224),
            False,
        ),  # 8 frames of 448 would fit, too
        ((4, 4, 4), (2, 8, 8), {"num_frames": 8, "image_size": 32}, 8, (32, 32), False),
        ((4, 4, 4), (2, 8, 8), {"num_frames": 8}, 8, (32, 32), False),
        ((4, 4, 4), (2, 8, 8), {"image_size": 32}, 8, (32, 32), False),
        ((3, 5, 2), (2, 8, 8), {"image_size": (40, 16)}, 6, (40, 16), False),
        ((16, 2, 2), (2, 8, 8), {}, 32, (16, 16), True),
        ((5, 7, 7), (2, 8, 8), {}, 10, (56, 56), True),
    ],
)
def test_size_of_the_views(
    grid: Any, tubelet: Any, keywords: Any, frames: int, image: Any, guess: bool, tmp_path: Path
) -> None:
    tree = scenic_tree(dim=6, depth=1, grid=grid, tubelet=tubelet)
    path = write_msgpack(tmp_path / "checkpoint", {"params": tree})
    checkpoint = read_checkpoint(path, **keywords)
    wanted = {"num_frames": frames, "image_size": image}
    wanted |= {
        key: (v, v) if key == "image_size" and isinstance(v, int) else v for key, v in keywords.items()
    }
    assert checkpoint.config.items() >= wanted.items()
    assert checkpoint.input is not None
    assert checkpoint.input.items() >= wanted.items()
    assert any("size of its views" in note for note in checkpoint.notes) == guess
    stored = torch.from_numpy(tree["Transformer"]["posembed_input"]["pos_embedding"])
    positions = checkpoint.state["encoder.pos_embed"]
    if frames == wanted["num_frames"]:
        assert torch.equal(positions, stored)
    else:  # the corners of the grid stay what they were
        assert positions.shape[1] == 1 + 4 * 14 * 14
        assert torch.equal(positions[:, :2], stored[:, :2])
        torch.testing.assert_close(positions[:, -1], stored[:, -1])


def test_sizes_that_no_rule_finds_must_be_given(tmp_path: Path) -> None:
    path = write_msgpack(tmp_path / "checkpoint", {"params": scenic_tree(grid=(3, 5, 2))})
    with pytest.raises(CheckpointError, match="num_frames= and image_size="):
        read_checkpoint(path)
    tree = scenic_tree("factorized_encoder", grid=(3, 5, 2))
    path = write_msgpack(tmp_path / "fe", {"params": tree})
    with pytest.raises(CheckpointError, match="image_size="):
        read_checkpoint(path)
    model: Any = load_checkpoint(path, image_size=(20, 8))
    assert model.config.grid_size == (3, 5, 2)


def test_what_the_file_leaves_open(tmp_path: Path) -> None:
    gap = write_msgpack(tmp_path / "gap", {"params": scenic_tree(token=False)})
    checkpoint = read_checkpoint(gap)
    assert checkpoint.architecture == "vivit-st"
    assert checkpoint.config["pool"] == "gap"
    assert any("vivit-fdp" in note for note in checkpoint.notes)
    dots: Any = load_checkpoint(gap, "vivit-fdp")
    assert (dots.architecture, dots.config.pool) == ("vivit-fdp", "gap")
    assert not any("vivit-fdp" in note for note in read_checkpoint(gap, "vivit-fdp").notes)
    tree = scenic_tree("factorized_self_attention_block", token=False)
    fsa = write_msgpack(tmp_path / "fsa", {"params": tree})
    assert any("attention_order" in note for note in read_checkpoint(fsa).notes)
    assert read_checkpoint(fsa, attention_order="time_space").config["attention_order"] == "time_space"


@pytest.mark.parametrize(
    ("architecture", "keywords", "words"),
    [
        ("vivit-fe", {}, "holds vivit-st, not vivit-fe"),
        ("vivit-fdp", {}, "holds vivit-st, not vivit-fdp"),
        (None, {"num_heads": 3}, "has num_heads 2, but num_heads=3 was given"),
        (None, {"num_classes": 3}, "reset_head"),
        (None, {"attention_window": 3}, "takes no attention_window"),
        (None, {"tubelet_size": 4}, "has tubelet_size"),
    ],
)
def test_contradictions(architecture: str | None, keywords: Any, words: str, tmp_path: Path) -> None:
    path = write_msgpack(tmp_path / "checkpoint", {"params": scenic_tree()})
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path, architecture, **keywords)


def test_every_wrong_key_is_named(tmp_path: Path) -> None:
    flat = flatten(scenic_tree(depth=3))
    for i in range(3):
        del flat[f"Transformer/encoderblock_{i}/LayerNorm_1/scale"]
    del flat["Transformer/encoderblock_1/MultiHeadDotProductAttention_0/key/bias"]
    flat["Transformer/encoderblock_0/gate/kernel"] = np.zeros(3, np.float32)
    flat["output_projection/kernel"] = np.zeros((12, 4), np.float32)
    np.savez(tmp_path / "wrong.npz", **flat)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "wrong.npz")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'wrong.npz'}: its tensors do not fit vivit-st: 4 missing")
    assert "Transformer/encoderblock_{0-2}/LayerNorm_1/scale" in text
    assert "Transformer/encoderblock_1/MultiHeadDotProductAttention_0/key/bias" in text
    assert "1 unexpected (Transformer/encoderblock_0/gate/kernel)" in text
    flat = flatten(scenic_tree())
    flat["output_projection/kernel"] = np.zeros((12, 4), np.float32)
    flat["Transformer/encoderblock_1/MultiHeadDotProductAttention_0/out/kernel"] = np.zeros(
        (12, 12), np.float32
    )
    np.savez(tmp_path / "wrong.npz", **flat)
    with pytest.raises(
        CheckpointError, match=r"1 misshapen \(Transformer/encoderblock_1.*out/kernel \(12, 12\)"
    ):
        load_checkpoint(tmp_path / "wrong.npz")
    flat = flatten(scenic_tree())
    flat["output_projection/kernel"] = np.zeros((12, 4), np.float32)
    flat["Transformer/encoder_norm/scale"] = np.zeros(12, np.int32)
    np.savez(tmp_path / "wrong.npz", **flat)
    with pytest.raises(
        CheckpointError, match=r"2 misshapen.*int32 where weights.*head.weight: file \(4, 12\)|head"
    ):
        load_checkpoint(tmp_path / "wrong.npz")


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    flat = {key: v for key, v in flatten(scenic_tree(depth=3)).items() if "encoderblock_1" not in key}
    np.savez(tmp_path / "hole.npz", **flat)
    with pytest.raises(CheckpointError, match="layer 1 of 3 is missing"):
        load_checkpoint(tmp_path / "hole.npz")
