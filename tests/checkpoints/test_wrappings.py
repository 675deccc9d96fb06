"""State dicts wrapped as training scripts wrap them, and image ViTs that have the tensors of a TimeSformer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm.models.vision_transformer as timm_vit
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidcls.checkpoints import load_checkpoint, read_checkpoint
from vidcls.errors import CheckpointError
from vidcls.models import build

Tensors = dict[str, Tensor]


def prefixed(state: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in state.items()}


def wrapped(state: Tensors, wrapping: str) -> dict[str, Any]:
    """Wrap a state dict, ``a.b.`` meaning a file's entry ``a`` whose names start with ``b.``."""
    outer, _, inner = wrapping.partition(".")
    named = prefixed(state, inner)
    return {outer: named, "epoch": 3} if outer else named


WRAPPINGS = [
    "",
    ".module.",
    "model.",
    "model.module.",
    "state_dict.",
    "state_dict.module.",
    "state_dict_ema.",
    # Lightning's modules, torch.compile, DistributedDataParallel, moving averages, in any order and number.
    ".net.",
    "state_dict.model.",
    "state_dict.net.",
    "state_dict.module.model.",
    "model.model.",
    "model.module._orig_mod.",
    "model_ema.module.",
    "ema.",
    ".module._orig_mod.",
    ".backbone.",
    "state_dict._forward_module.model.net.module.",
]
VIT: dict[str, Any] = {
    "img_size": (16, 32),
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 5,
}


@pytest.fixture(scope="module")
def image_vit() -> timm_vit.VisionTransformer:
    torch.manual_seed(0)
    model = timm_vit.VisionTransformer(**VIT).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@torch.no_grad()
def test_timm(image_vit: timm_vit.VisionTransformer, wrapping: str, tmp_path: Path) -> None:
    torch.save(wrapped(image_vit.state_dict(), wrapping), tmp_path / "vit.pth")
    model = load_checkpoint(tmp_path / "vit.pth", num_heads=4, image_size=(16, 32))
    assert model.architecture == "vit-frames"
    frames = torch.randn(2, 3, 16, 32)
    assert (model(frames.unsqueeze(2)) - image_vit(frames)).abs().max() < 2e-5


@pytest.mark.parametrize("wrapping", ["model_state.", "model_state.model.", "model_state.module.model."])
@torch.no_grad()
def test_an_image_vit_in_facebooks_wrapping(
    image_vit: timm_vit.VisionTransformer, wrapping: str, tmp_path: Path
) -> None:
    """It is a space-only TimeSformer's until the user says that it is not."""
    torch.save(wrapped(image_vit.state_dict(), wrapping), tmp_path / "vit.pyth")
    keywords: dict[str, Any] = {"num_heads": 4, "image_size": (16, 32)}
    assert read_checkpoint(tmp_path / "vit.pyth", **keywords).architecture == "timesformer-space"
    frames = torch.randn(2, 3, 16, 32)
    for said in ({"architecture": "vit-frames"}, {"format": "timm_vit"}):
        model = load_checkpoint(tmp_path / "vit.pyth", **said, **keywords)
        assert (model(frames.unsqueeze(2)) - image_vit(frames)).abs().max() < 2e-5


def test_model_and_moving_average(image_vit: timm_vit.VisionTransformer, tmp_path: Path) -> None:
    state = image_vit.state_dict()
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model_ema": other, "model": state}, tmp_path / "vit.pth")
    model = load_checkpoint(tmp_path / "vit.pth", num_heads=4, image_size=(16, 32))
    assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])


def released_names(model: torch.nn.Module) -> Tensors:
    """A VTN's tensors under the names of its release."""
    outside = {
        "position_embed": "embeddings.position_embeddings",
        "type_embed": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
    }
    inside = {
        "attn.proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    out: Tensors = {}
    for name, tensor in model.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        if stem.startswith("head."):
            out[f"mlp_{name}"] = tensor
        elif not name.startswith("temporal_encoder."):
            out[name] = tensor
        elif not stem.startswith("temporal_encoder.layers."):
            out[f"temporal_encoder.{outside[stem.split('.')[1]]}.{leaf}"] = tensor
        else:
            number, own = stem.removeprefix("temporal_encoder.layers.").split(".", 1)
            layer = f"temporal_encoder.encoder.layer.{number}"
            if own in inside:
                out[f"{layer}.{inside[own]}.{leaf}"] = tensor
                continue
            suffix = own.removeprefix("attn.qkv")
            for role, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[f"{layer}.attention.self.{role}{suffix}.{leaf}"] = part
    return out


@pytest.mark.parametrize(
    "wrapping", [*WRAPPINGS, "model_state.", "model_state.module.", "model_state.model."]
)
@torch.no_grad()
def test_vtn(wrapping: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 4}
    sizes: dict[str, Any] = {"image_size": (16, 32), "num_classes": 5, "temporal_num_heads": 2}
    windows = {"temporal_depth": 3, "attention_window": (2, 6, 4), "max_positions": 30, "mlp_dim": 9}
    original = build("vtn", backbone=backbone, temporal_mlp_dim=40, **sizes, **windows).eval()
    torch.save(wrapped(released_names(original), wrapping), tmp_path / "vtn.pyth")
    loaded = load_checkpoint(
        tmp_path / "vtn.pyth",
        image_size=(16, 32),
        num_heads=4,
        temporal_num_heads=2,
        attention_window=[2, 6, 4],
    )
    views, indices = torch.randn(2, 3, 11, 16, 32), torch.arange(22).view(2, 11) * 3
    assert torch.equal(loaded(views, indices), original(views, indices))


def test_a6_words_inside_a_model(image_vit: timm_vit.VisionTransformer, tmp_path: Path) -> None:
    """Compiled or checkpointed blocks have a word in the middle of their names."""
    state = {
        name.replace("blocks.1.", "blocks.1._orig_mod.").replace(
            "blocks.0.", "blocks.0._checkpoint_wrapped_module."
        ): tensor
        for name, tensor in image_vit.state_dict().items()
    }
    torch.save({"state_dict": prefixed(state, "model.")}, tmp_path / "vit.ckpt")
    model = load_checkpoint(tmp_path / "vit.ckpt", num_heads=4, image_size=(16, 32))
    frames = torch.randn(2, 3, 16, 32)
    assert (model(frames.unsqueeze(2)) - image_vit(frames)).abs().max() < 2e-5


HF_FOLDERS = {
    "vit": ("ViTForImageClassification", {"patch_size": 8, "image_size": 16}),
    "vivit": (
        "VivitForVideoClassification",
        {"tubelet_size": [2, 8, 8], "image_size": 16, "num_frames": 4},
    ),
    "timesformer": (
        "TimesformerForVideoClassification",
        {"patch_size": 8, "image_size": 16, "num_frames": 2},
    ),
}


@pytest.mark.parametrize("prefix", ["net.", "model.module.", "module._orig_mod.", "backbone.", "model."])
@pytest.mark.parametrize("family", list(HF_FOLDERS))
def test_a6_hugging_face_folders(family: str, prefix: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    name, sizes = HF_FOLDERS[family]
    model_class = getattr(transformers, name)
    config = model_class.config_class(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        num_labels=3,
        **sizes,
    )
    model_class(config).save_pretrained(tmp_path)
    expected = load_checkpoint(tmp_path).state_dict()
    weights = tmp_path / "model.safetensors"
    save_file({**prefixed(load_file(weights), prefix), "criterion.weight": torch.ones(3)}, weights)
    if prefix == "backbone.":  # a word that Hugging Face uses itself: only where all names begin with it
        save_file({k: v for k, v in load_file(weights).items() if k.startswith(prefix)}, weights)
    loaded = load_checkpoint(tmp_path).state_dict()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["blocks.0.attn.qkv.weight", "patch_embed.proj.weight"],
            "an image ViT of timm's names without pos_embed",
        ),
        (
            ["blocks.0.temporal_attn.qkv.weight", "time_embed"],
            "a TimeSformer of Facebook's names without cls_token",
        ),
        (["temporal_encoder.encoder.layer.0.output.dense.weight"], "a VTN of PySlowFast's names without"),
        (["layer1.0.conv1.weight", "layer1.0.bn1.weight"], "a ResNet, which vidcls does not read"),
        (["s1.pathway0_stem.conv.weight"], "SlowFast, X3D or other network of PySlowFast, which"),
        (["something.else"], "its first are something.else"),
    ],
)
@pytest.mark.parametrize("wrapping", ["state_dict.", "state_dict.model.", ".module."])
def test_i15_7_what_a_refused_file_looks_like(
    names: list[str], said: str, wrapping: str, tmp_path: Path
) -> None:
    torch.save(wrapped({name: torch.ones(2) for name in names}, wrapping), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load_checkpoint(tmp_path / "model.pth")
