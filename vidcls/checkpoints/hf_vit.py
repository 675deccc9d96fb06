"""Hugging Face folders of ``ViTForImageClassification``, and of ``ViTModel`` to start other models from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import Checkpoint, Raw, Rename, count_layers, joined, rename
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint

NAME = "hf_vit"

PREFIX = "vit."


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
    tensors = {
        name: tensor
        for name, tensor in hf_config.with_prefix(raw.tensors, PREFIX).items()
        if not name.startswith("vit.pooler.")  # HF's classifier does not use it either
    }
    depth = count_layers(tensors, r"vit\.encoder\.layer\.(\d+)\.", raw.path)
    state = rename(tensors, _renames(tensors, depth), raw.path, "vit-frames")
    defaults = {
        "activation": hf_config.activation(raw),
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-12),
        **hf_config.dropouts(raw),
    }
    head = state.get("head.weight")
    return vit_checkpoint(
        NAME,
        ViTTensors(raw, state, "hf", hf_config.sides(raw, "image_size", 224)),
        architecture,
        settle(raw, {"num_heads": hf_config.whole(raw, "num_attention_heads", 12)}, config),
        defaults,
        labels=None if head is None else hf_config.labels(raw, len(head)),
        input=hf_config.preprocessing(raw),
    )


def _renames(tensors: dict[str, Tensor], depth: int) -> Iterator[Rename]:
    yield Rename("cls_token", ("vit.embeddings.cls_token",))
    yield Rename("pos_embed", ("vit.embeddings.position_embeddings",))
    yield from joined("patch_embed.proj", "vit.embeddings.patch_embeddings.projection")
    for i in range(depth):
        bias = f"vit.encoder.layer.{i}.attention.attention.query.bias" in tensors
        yield from hf_config.block(f"blocks.{i}", f"vit.encoder.layer.{i}", bias)
    yield from joined("norm", "vit.layernorm")
    if not hf_config.is_headless(tensors, PREFIX):
        yield from joined("head", "classifier")
