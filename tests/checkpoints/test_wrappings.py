"""State dicts wrapped as training scripts wrap them, and image ViTs that have the tensors of a TimeSformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm.models.vision_transformer as timm_vit
import torch
from torch import Tensor

from vidcls.checkpoints import load_checkpoint, read_checkpoint
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


@pytest.mark.parametrize("wrapping", ["model_state.", "model_state.model.", "state_dict.module.model."])
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
