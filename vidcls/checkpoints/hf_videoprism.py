"""Hugging Face folders of ``VideoPrismForVideoClassification`` (transformers 5.24 and later).

Encoders alone (``VideoPrismVisionModel``), the only ones that Google released, are read as a start for training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import (
    Checkpoint,
    Raw,
    Rename,
    count_layers,
    each,
    joined,
    rename,
    require_tensor,
)
from vidcls.checkpoints.resizing import resize_state
from vidcls.checkpoints.vit_tensors import settle
from vidcls.models.sizes import pair
from vidcls.models.videoprism_config import VideoPrismConfig

NAME = "hf_videoprism"
ARCHITECTURE = "videoprism"

BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def matches(raw: Raw) -> bool:
    """Whether the folder's configuration says that it is VideoPrism's vision model."""
    return raw.kind == "hf" and str(raw.meta["config"].get("model_type")).startswith("videoprism")


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a VideoPrism with its classifier, its labels and its preprocessing.

    Args:
        raw: The folder.
        architecture: ``videoprism`` or None.
        config: ``image_size`` and ``num_frames`` resize the position tables as ``interpolate_pos_encoding`` does; any
            other keyword of the architecture.

    Raises:
        CheckpointError: It is a text-and-video model, is incomplete, or contradicts a keyword.
    """
    raw.expect(architecture, ARCHITECTURE)
    if raw.meta["config"].get("model_type") != "videoprism_vision_model":
        raise raw.error(
            "is a VideoPrism without a classifier, one that compares videos with texts",
            "give a folder saved from VideoPrismForVideoClassification, or from VideoPrismVisionModel to train from",
        )
    tensors = hf_config.with_prefix(raw.tensors, "vision_model.", "spatial_embeddings.")
    found, stored = _sizes(raw, tensors)
    state = rename(tensors, _renames(found), raw.path, ARCHITECTURE)
    settled = {**stored, **settle(raw, found, config)}
    state = _fit(raw, state, stored, settled)
    seen = {**hf_config.preprocessing(raw), "num_frames": settled["num_frames"]}
    if "image_size" in config or "image_size" not in seen:
        seen |= {"image_size": pair(settled["image_size"]), "resize": pair(settled["image_size"])}
    return hf_config.checkpoint(raw, NAME, ARCHITECTURE, settled, state, seen)


def _sizes(raw: Raw, names: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the tensors determine, and what the configuration says besides."""
    kernel = require_tensor(
        names, "vision_model.spatial_embeddings.patch_embeddings.projection.weight", raw.path, 5
    )
    hidden = require_tensor(names, "vision_model.spatial_layers.0.mlp.fc1.weight", raw.path, 2)
    cap = raw.meta["config"].get("attn_logit_softcapping", 50.0)
    found = {
        "tubelet_size": tuple(kernel.shape[2:]),
        "in_channels": kernel.shape[1],
        "embed_dim": kernel.shape[0],
        "depth": count_layers(names, r"vision_model\.spatial_layers\.(\d+)\.", raw.path),
        "temporal_depth": count_layers(names, r"vision_model\.temporal_layers\.(\d+)\.", raw.path),
        "num_heads": hf_config.whole(raw, "num_attention_heads", 12),
        "mlp_ratio": hidden.shape[0] / kernel.shape[0],
        "qkv_bias": "vision_model.spatial_layers.0.attention.q_proj.bias" in names,
        "activation": hf_config.activation(raw, "gelu_python"),
    }
    if not hf_config.is_headless(names, "vision_model."):
        found["num_classes"] = require_tensor(names, "classifier.weight", raw.path, 2).shape[0]
    stored = {
        "num_frames": hf_config.whole(raw, "num_frames", 16),
        "image_size": hf_config.sides(raw, "image_size", 288),
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-6),
        "softcap": None if cap is None else hf_config.number(raw, "attn_logit_softcapping", 50.0),
        **hf_config.dropouts(raw),
    }
    return found, stored


def _fit(
    raw: Raw, state: dict[str, Tensor], stored: dict[str, Any], wanted: dict[str, Any]
) -> dict[str, Tensor]:
    """Resize both position tables to the size of views that is wanted."""
    old = VideoPrismConfig(
        **{**wanted, "num_frames": stored["num_frames"], "image_size": stored["image_size"]}
    )
    steps, height, width = old.grid_size
    for part, places in (("spatial", height * width), ("temporal", steps)):
        table = state[f"{part}.pos_embed"]
        if table.ndim != 3 or table.shape[1] != places:
            raise raw.error(
                f"config.json's sizes make {places} positions, but its {part} table has the shape "
                f"{tuple(table.shape)}",
                "fetch the folder again",
            )
    return resize_state(ARCHITECTURE, state, old, VideoPrismConfig(**wanted))


def _renames(found: dict[str, Any]) -> Iterator[Rename]:
    qkv_bias = found["qkv_bias"]
    yield from joined("patch_embed.proj", "vision_model.spatial_embeddings.patch_embeddings.projection")
    for number, (part, depth) in enumerate((("spatial", "depth"), ("temporal", "temporal_depth")), 1):
        yield Rename(f"{part}.pos_embed", (f"vision_model.{part}_embeddings.position_embeddings",))
        yield from joined(f"{part}.norm", f"vision_model.layernorm{number}")
        for i in range(found[depth]):
            ours, theirs = f"{part}.blocks.{i}", f"vision_model.{part}_layers.{i}"
            roles = tuple(f"{theirs}.attention.{role}_proj" for role in "qkv")
            yield from joined(f"{ours}.attn.qkv", *roles, bias=qkv_bias)
            yield from each(ours, theirs, BLOCK)
    if "num_classes" not in found:
        return
    yield Rename("pool.query", ("head.pooling_attention_query",))
    yield Rename("pool.scale", ("head.per_dim_scale",))
    yield from joined("pool.q", "head.q_proj", bias=qkv_bias)
    yield from joined("pool.kv", "head.k_proj", "head.v_proj", bias=qkv_bias)
    yield from joined("pool.proj", "head.o_proj")
    yield from joined("pool_norm", "head_layernorm")
    yield from joined("head", "classifier")
