"""Hugging Face TimeSformer folders: goldens, fresh weights against transformers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import golden_dirs
from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.config import InputSpec
from vidcls.errors import CheckpointError, ConfigError

transformers = pytest.importorskip("transformers")

ATTENTION = {"timesformer-divided": "divided_space_time", "timesformer-joint": "joint_space_time"}
SIZES: list[dict[str, Any]] = [
    {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 48, "num_attention_heads": 3},
    {
        "image_size": 48,
        "patch_size": 16,
        "num_frames": 5,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_labels": 11,
    },
    {
        "image_size": 20,
        "patch_size": 4,
        "num_frames": 3,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
    },
    {
        "image_size": 30,
        "patch_size": 8,
        "num_frames": 1,
        "hidden_size": 16,
        "num_attention_heads": 1,
        "num_channels": 1,
    },
    {"qkv_bias": False, "layer_norm_eps": 1e-3, "hidden_act": "gelu_new", "intermediate_size": 40},
]


def save_hf(folder: Path, attention: str, **config: Any) -> nn.Module:
    """Write a small model of transformers with every parameter random."""
    torch.manual_seed(3)
    settings = {**SIZES[0], "num_hidden_layers": 2, "intermediate_size": 64, "num_labels": 5, **config}
    hf_config = transformers.TimesformerConfig(attention_type=attention, **settings)
    model = transformers.TimesformerForVideoClassification(hf_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    processor = {
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "size": {"shortest_edge": 36},
    }
    processor |= {
        "image_processor_type": "VideoMAEImageProcessor",
        "image_mean": [0.45] * 3,
        "image_std": [0.225] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def clip(model: nn.Module, batch: int = 2) -> Tensor:
    """Views (b, c, t, h, w) of the model's own size; HF wants (b, t, c, h, w)."""
    c = model.config
    return torch.randn(batch, c.num_channels, c.num_frames, c.image_size, c.image_size)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("folder", golden_dirs("timesformer-hf-divided", "timesformer-hf-joint"), ids=str)
def test_goldens(folder: Path) -> None:
    model = load_checkpoint(folder)
    with np.load(folder / "io.npz") as io, torch.no_grad():
        views = torch.from_numpy(io["input"]).transpose(1, 2)
        assert np.abs(model(views).numpy() - io["logits"]).max() < 2e-5
        features = model.forward_features(views).numpy()
        assert np.abs(features - io["last_hidden_state"][:, 0]).max() < 2e-5


@pytest.mark.parametrize("folder", golden_dirs("timesformer-hf-space"), ids=str)
def test_space_only_golden_is_refused_or_averaged_by_frame(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="space_only"):
        load_checkpoint(folder)
    with np.load(folder / "io.npz") as io, torch.no_grad():
        views = torch.from_numpy(io["input"]).transpose(1, 2)
        logits = load_checkpoint(folder, "vit-frames")(views).numpy()
        assert np.abs(logits - io["logits"].reshape(len(views), views.shape[2], -1).mean(1)).max() < 2e-5


@pytest.mark.parametrize("architecture", ATTENTION)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fresh_weights_equal_transformers(architecture: str, size: dict[str, Any], tmp_path: Path) -> None:
    theirs = save_hf(tmp_path, ATTENTION[architecture], **size)
    ours = load_checkpoint(tmp_path)
    assert ours.architecture == architecture
    views = clip(theirs)
    with torch.no_grad():
        expected = theirs(views.transpose(1, 2)).logits
        assert (ours(views) - expected).abs().max() < 2e-5
        assert expected.std() > 0.1  # logits that differ are compared, not zeros


@pytest.mark.parametrize(("frames", "height", "width"), [(6, 32, 32), (4, 48, 16), (2, 24, 56)])
def test_joint_attention_takes_other_sizes_as_transformers_does(
    frames: int, height: int, width: int, tmp_path: Path
) -> None:
    theirs = save_hf(tmp_path, "joint_space_time")
    views = torch.randn(2, 3, frames, height, width)
    with torch.no_grad():
        expected = theirs(views.transpose(1, 2)).logits
        assert (load_checkpoint(tmp_path)(views) - expected).abs().max() < 2e-5


def test_divided_attention_refuses_the_sizes_that_transformers_garbles(tmp_path: Path) -> None:
    theirs = save_hf(tmp_path, "divided_space_time", num_frames=8)
    ours = load_checkpoint(tmp_path)
    views = torch.randn(1, 3, 12, 32, 32)
    with torch.no_grad():
        garbled = theirs(views.transpose(1, 2)).logits  # the numbers divide, and it says nothing
        with pytest.raises(ConfigError, match=r"was built for 8 frames.*num_frames="):
            ours(views)
        asked = load_checkpoint(tmp_path, num_frames=12)(views)
    assert (asked - garbled).abs().max() > 1e-3


def test_sizes_asked_for_while_loading_follow_facebooks_rule(tmp_path: Path) -> None:
    theirs = save_hf(tmp_path, "divided_space_time").timesformer.embeddings
    ours = load_checkpoint(tmp_path, num_frames=6, image_size=48)
    places = theirs.position_embeddings.detach()[:, 1:][:, np.arange(36) * 16 // 36]
    assert torch.equal(ours.pos_embed[:, 1:], places)
    assert torch.equal(ours.time_embed, theirs.time_embeddings[:, np.arange(6) * 4 // 6])
    ours(torch.randn(1, 3, 6, 48, 48))


def test_released_space_only_averages_before_the_norm(tmp_path: Path) -> None:
    """Facebook's form, put together from the parts of transformers, in the file that Facebook would write."""
    theirs = save_hf(tmp_path, "space_only")
    for asked in (None, "timesformer-space", "timesformer-divided"):
        with pytest.raises(CheckpointError, match=r'space_only.*architecture="vit-frames"'):
            load_checkpoint(tmp_path, asked)
    by_frame = load_checkpoint(tmp_path, "vit-frames")
    state = {
        f"model.{name.removeprefix('backbone.')}": tensor for name, tensor in by_frame.state_dict().items()
    }
    torch.save({"model_state": state}, tmp_path / "space.pyth")
    ours = load_checkpoint(tmp_path / "space.pyth", num_heads=3)
    views = clip(theirs)
    with torch.no_grad():
        logits = theirs(views.transpose(1, 2)).logits.unflatten(0, (2, 4)).mean(1)
        assert (by_frame(views) - logits).abs().max() < 2e-5
        norm, theirs.timesformer.layernorm = theirs.timesformer.layernorm, nn.Identity()
        tokens = theirs.timesformer(views.transpose(1, 2)).last_hidden_state.unflatten(0, (2, 4))
        expected = theirs.classifier(norm(tokens.mean(1)[:, 0]))
        assert (ours(views) - expected).abs().max() < 2e-5
        assert (expected - logits).abs().max() > 1e-2


def test_labels_and_input(tmp_path: Path) -> None:
    save_hf(tmp_path, "divided_space_time")
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.labels is None  # transformers' placeholders name nothing
    assert checkpoint.input is not None
    spec = InputSpec(**checkpoint.input)
    assert (spec.num_frames, spec.image_size, spec.resize, spec.num_crops) == (4, (32, 32), 36, 1)
    assert (spec.mean, spec.std, spec.scale, spec.offset) == ((0.45,) * 3, (0.225,) * 3, 1 / 255, 0)
    assert "sampling" not in checkpoint.input
    edit_config(tmp_path, id2label={str(i): f"class {i}" for i in range(5)})
    assert read_checkpoint(tmp_path).labels == tuple(f"class {i}" for i in range(5))
    larger = read_checkpoint(tmp_path, image_size=48, num_frames=8).input
    assert larger is not None
    assert (larger["image_size"], larger["resize"], larger["num_frames"]) == ((48, 48), 48, 8)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"attention_type": "joint_space_time"},
            "attention_type 'joint_space_time', its tensors make timesformer-div",
        ),
        ({"attention_type": "sideways"}, "attention_type 'sideways'"),
        ({"num_frames": 8}, "8 frames of 32×32 pixels, but its tensors hold 4 times and 16 places"),
        ({"image_size": 48}, "4 frames of 48×48 pixels, but its tensors hold 4 times and 16 places"),
        ({"image_size": "32"}, "image_size is '32'"),
        ({"hidden_act": "xielu"}, "hidden_act 'xielu' has trained weights of its own"),
        ({"hidden_act": "gleu"}, "unknown hidden_act 'gleu'"),
        ({"hidden_act": ["gelu"]}, "unknown hidden_act"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small', not a number"),
        ({"num_attention_heads": None}, "num_attention_heads is None"),
    ],
)
def test_configurations_that_cannot_be_are_refused(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    save_hf(tmp_path, "divided_space_time")
    edit_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("asked", "keywords", "text"),
    [
        ("timesformer-joint", {}, "holds timesformer-divided, not timesformer-joint"),
        ("vit-frames", {}, "holds timesformer-divided, not vit-frames"),
        (None, {"num_heads": 4}, "has num_heads 3, but num_heads=4 was given"),
        (None, {"num_classes": 9}, "has num_classes 5"),
    ],
)
def test_contradictions(asked: str | None, keywords: dict[str, Any], text: str, tmp_path: Path) -> None:
    save_hf(tmp_path, "divided_space_time")
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path, asked, **keywords)


def test_a_folder_without_classifier_is_read_but_not_run(tmp_path: Path) -> None:
    save_hf(tmp_path, "divided_space_time").timesformer.save_pretrained(tmp_path)
    assert "the file has no classifier (head)" in read_checkpoint(tmp_path).notes
    with pytest.raises(CheckpointError, match=r"has no classifier: .*give a fine-tuned checkpoint"):
        load_checkpoint(tmp_path)
