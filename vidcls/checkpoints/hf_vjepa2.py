"""Hugging Face folders of ``VJEPA2ForVideoClassification``.

transformers, ``models/vjepa2/modeling_vjepa2.py``. Its pooler has the encoder's heads and epsilon, where the authors'
probes have 16 heads and 1e-5: `pooler_num_heads` and `pooler_norm_eps` given while loading compute the latter. Where
`clips_per_view` is given, views are cut as the authors test: all clips of a crop in one view, the short side as long as
the crop, three crops (``evals/video_classification_frozen``). The
predictor that the folders hold beside the classifier is for pre-training and is left out. Encoders alone
(``VJEPA2Model``) are read as a start for training.
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
from vidcls.checkpoints.vit_tensors import settle
from vidcls.models.sizes import pair

NAME = "hf_vjepa2"
ARCHITECTURE = "vjepa2"

BLOCK = {"norm1": "norm1", "attn.proj": "attention.proj", "norm2": "norm2"}
POOLER_BLOCK = {"norm1": "layer_norm1", "attn.proj": "self_attn.out_proj", "norm2": "layer_norm2"}
MLP = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
POOLER = "pooler.self_attention_layers"
CROSS = "pooler.cross_attention_layer"


def matches(raw: Raw) -> bool:
    """Whether the folder's configuration says that it is a V-JEPA 2."""
    return raw.kind == "hf" and raw.meta["config"].get("model_type") == "vjepa2"


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a V-JEPA 2 with its classifier, its labels and its preprocessing.

    Args:
        raw: The folder.
        architecture: ``vjepa2`` or None.
        config: ``image_size`` for views of another size, ``num_frames``, ``clips_per_view`` for the authors' test
            protocol, or any other keyword of the architecture.

    Raises:
        CheckpointError: It is incomplete, or contradicts a keyword.
    """
    raw.expect(architecture, ARCHITECTURE)
    named = hf_config.with_prefix(raw.tensors, "vjepa2.", "encoder.")
    tensors = {name: t for name, t in named.items() if not name.startswith("vjepa2.predictor.")}
    found = _sizes(raw, tensors)
    state = rename(tensors, _renames(found), raw.path, ARCHITECTURE)
    clips = config.get("clips_per_view", 1)
    chosen = {
        "num_frames": hf_config.whole(raw, "frames_per_clip", 64) * clips,
        "image_size": hf_config.sides(raw, "crop_size", 256),
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-6),
        "attn_dropout": hf_config.number(raw, "attention_probs_dropout_prob", 0.0),
        "drop_path_rate": hf_config.number(raw, "drop_path_rate", 0.0),
    }
    settled = {**chosen, **settle(raw, found, config)}
    seen = {**hf_config.preprocessing(raw), "num_frames": settled["num_frames"]}
    if "image_size" in config or "image_size" not in seen:
        size = pair(settled["image_size"])
        seen |= {"image_size": size, "resize": int(min(size) * 256 / 224)}
    if "clips_per_view" in config:
        seen |= authors_views(pair(settled["image_size"]), clips)
    return hf_config.checkpoint(raw, NAME, ARCHITECTURE, settled, state, seen)


def authors_views(size: tuple[int, int], clips: int) -> dict[str, Any]:
    """How the authors test: fields of `vidcls.config.InputSpec`."""
    return {
        "sampling": "vjepa2",
        "clips_per_view": clips,
        "num_views": 1,
        "num_crops": 3,
        "three_crops": "steps",
        "image_size": size,
        "resize": min(size),
        "resize_rule": "opencv",
        "average": "probs",
    }


def _sizes(raw: Raw, tensors: dict[str, Tensor]) -> dict[str, Any]:
    kernel = require_tensor(tensors, "vjepa2.encoder.embeddings.patch_embeddings.proj.weight", raw.path, 5)
    hidden = require_tensor(tensors, "vjepa2.encoder.layer.0.mlp.fc1.weight", raw.path, 2)
    dim = kernel.shape[0]
    return _head_sizes(raw, tensors, dim) | {
        "tubelet_size": tuple(kernel.shape[2:]),
        "in_channels": kernel.shape[1],
        "embed_dim": dim,
        "depth": count_layers(tensors, r"vjepa2\.encoder\.layer\.(\d+)\.", raw.path),
        "num_heads": hf_config.whole(raw, "num_attention_heads", 16),
        "mlp_ratio": hidden.shape[0] / dim,
        "qkv_bias": "vjepa2.encoder.layer.0.attention.query.bias" in tensors,
        "activation": hf_config.activation(raw),
    }


def _head_sizes(raw: Raw, tensors: dict[str, Tensor], dim: int) -> dict[str, Any]:
    """Sizes of the pooler and the classifier; only the pooler's depth, from config.json, where there are neither."""
    if hf_config.is_headless(tensors, "vjepa2."):
        return {"pooler_depth": hf_config.whole(raw, "num_pooler_layers", 3)}
    pooled = require_tensor(tensors, f"{CROSS}.mlp.fc1.weight", raw.path, 2)
    return {
        "pooler_depth": count_layers(tensors, r"pooler\.self_attention_layers\.(\d+)\.", raw.path),
        "pooler_mlp_ratio": pooled.shape[0] / dim,
        "num_classes": require_tensor(tensors, "classifier.weight", raw.path, 2).shape[0],
    }


def _renames(found: dict[str, Any]) -> Iterator[Rename]:
    yield from joined("patch_embed.proj", "vjepa2.encoder.embeddings.patch_embeddings.proj")
    yield from joined("norm", "vjepa2.encoder.layernorm")
    for i in range(found["depth"]):
        ours, theirs = f"blocks.{i}", f"vjepa2.encoder.layer.{i}"
        roles = tuple(f"{theirs}.attention.{role}" for role in hf_config.ROLES)
        yield from joined(f"{ours}.attn.qkv", *roles, bias=found["qkv_bias"])
        yield from each(ours, theirs, BLOCK | MLP)
    if "num_classes" in found:
        yield from _head_renames(found["pooler_depth"])


def _head_renames(pooler_depth: int) -> Iterator[Rename]:
    for i in range(pooler_depth):
        ours, theirs = f"pooler.blocks.{i}", f"{POOLER}.{i}"
        yield from joined(f"{ours}.attn.qkv", *(f"{theirs}.self_attn.{role}_proj" for role in "qkv"))
        yield from each(ours, theirs, POOLER_BLOCK | MLP)
    yield Rename("pooler.query", ("pooler.query_tokens",))
    yield from joined("pooler.attn.q", f"{CROSS}.cross_attn.q_proj")
    yield from joined("pooler.attn.kv", *(f"{CROSS}.cross_attn.{role}_proj" for role in "kv"))
    yield from each("pooler", CROSS, {"norm1": "layer_norm1", "norm2": "layer_norm2"} | MLP)
    yield from joined("head", "classifier")
