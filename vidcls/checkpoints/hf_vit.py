"""Hugging Face folders of ``ViTForImageClassification``, and of ``ViTModel`` to start other models from."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint

NAME = "hf_vit"

# ``gelu_new`` and ``gelu_fast`` are the tanh approximation with its constant spelled in other ways.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

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
    settings = raw.meta["config"]
    activation = settings.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise raw.error(f"config.json: unknown hidden_act {activation!r}", f"known: {', '.join(ACTIVATIONS)}")
    defaults = {
        "activation": ACTIVATIONS[activation],
        "norm_eps": _number(raw, "layer_norm_eps", 1e-12),
        "dropout": _number(raw, "hidden_dropout_prob", 0.0),
        "attn_dropout": _number(raw, "attention_probs_dropout_prob", 0.0),
    }
    tensors = timm_names(raw)
    num_heads = int(_number(raw, "num_attention_heads", 12))
    return vit_checkpoint(
        NAME,
        ViTTensors(raw, tensors, "hf", _image_size(raw)),
        architecture,
        settle(raw, {"num_heads": num_heads}, config),
        defaults,
        labels=labels(settings, tensors["head.weight"].shape[0]) if "head.weight" in tensors else None,
        input=_input(raw),
    )


def timm_names(raw: Raw) -> dict[str, Tensor]:
    """Rename the tensors to timm's names and join queries, keys and values; unknown names stay as they are.

    Raises:
        CheckpointError: A tensor of a block is missing.
    """
    tensors = raw.tensors
    if "embeddings.cls_token" in tensors:  # saved from the bare ViTModel, without a classifier
        tensors = {f"vit.{name}": tensor for name, tensor in tensors.items()}
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


def labels(settings: dict[str, Any], num_classes: int) -> tuple[str, ...] | None:
    """Return the class names of a configuration, None where they are HF's placeholders or not complete."""
    names = settings.get("id2label")
    if not isinstance(names, dict):
        return None
    try:
        found = tuple(str(names[str(index)]) for index in range(num_classes))
    except KeyError:
        return None
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(found)) else found


def _input(raw: Raw) -> dict[str, Any] | None:
    if not raw.meta["preprocessor"]:
        return None
    from vidcls.views.transform import input_from_preprocessor

    fields: dict[str, Any] = input_from_preprocessor(raw.meta["config"], raw.meta["preprocessor"])
    return fields


def _image_size(raw: Raw) -> tuple[int, int]:
    size = raw.meta["config"].get("image_size", 224)
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise raw.error(f"config.json: image_size is {size!r}", "fetch the folder again")
    return sides[0], sides[1]


def _number(raw: Raw, key: str, default: float) -> float:
    value = raw.meta["config"].get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise raw.error(f"config.json: {key} is {value!r}, not a number", "fetch the folder again")
    return float(value)
