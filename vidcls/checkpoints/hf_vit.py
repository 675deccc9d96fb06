"""Hugging Face folders of ``ViTForImageClassification``, and of ``ViTModel`` to start other models from."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint

NAME = "hf_vit"

EMBEDDINGS = {
    "vit.embeddings.cls_token": "cls_token",
    "vit.embeddings.position_embeddings": "pos_embed",
    "vit.embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "vit.embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "vit.layernorm.weight": "norm.weight",
    "vit.layernorm.bias": "norm.bias",
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
}
BLOCK = {
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def matches(raw: Raw) -> bool:
    """Whether the folder's configuration says that it is a ViT."""
    return raw.kind == "hf" and raw.meta["config"].get("model_type") == "vit"


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a ViT for `vidcls.models.vit.ViTFrames`, with its labels and its preprocessing.

    LayerNorm's epsilon, the activation and the number of heads are the configuration's, with HF's defaults where it
    is silent (epsilon 1e-12). ``image_size`` resizes the position table as HF's ``interpolate_pos_encoding`` does.

    Raises:
        CheckpointError: A tensor is missing, an entry of the configuration is unknown, or a keyword contradicts the
            file.
    """
    defaults = {
        "activation": hf_config.activation(raw),
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-12),
        "dropout": hf_config.number(raw, "hidden_dropout_prob", 0.0),
        "attn_dropout": hf_config.number(raw, "attention_probs_dropout_prob", 0.0),
    }
    tensors = timm_names(raw)
    num_heads = hf_config.whole(raw, "num_attention_heads", 12)
    head = tensors.get("head.weight")
    return vit_checkpoint(
        NAME,
        ViTTensors(raw, tensors, "hf", hf_config.sides(raw, "image_size", 224)),
        architecture,
        settle(raw, {"num_heads": num_heads}, config),
        defaults,
        labels=None if head is None else hf_config.labels(raw, head.shape[0]),
        input=hf_config.preprocessing(raw),
    )


def timm_names(raw: Raw) -> dict[str, Tensor]:
    """Rename the tensors to timm's names and join queries, keys and values; unknown names stay as they are.

    Raises:
        CheckpointError: A tensor of a block is missing.
    """
    tensors = hf_config.with_prefix(raw.tensors, "vit.")
    out: dict[str, Tensor] = {}
    block = re.compile(r"vit\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
    for name, tensor in tensors.items():
        found = block.fullmatch(name)
        if name.startswith("vit.pooler."):
            continue  # HF's classifier does not use it either
        if found is None:
            out[EMBEDDINGS.get(name, name)] = tensor
        elif found[2] in BLOCK:
            out[f"blocks.{found[1]}.{BLOCK[found[2]]}.{found[3]}"] = tensor
        elif not found[2].startswith("attention.attention."):
            out[name] = tensor
    for number in range(count_layers(tensors, r"vit\.encoder\.layer\.(\d+)\.", raw.path)):
        source = f"vit.encoder.layer.{number}.attention.attention"
        for part in ("weight", "bias"):
            names = [f"{source}.{role}.{part}" for role in ("query", "key", "value")]
            if part == "weight" or names[0] in tensors:  # qkv_bias=False leaves no bias
                out[f"blocks.{number}.attn.qkv.{part}"] = torch.cat(
                    [require_tensor(tensors, name, raw.path) for name in names]
                )
    return out
