"""Image ViTs of timm: a state dict in ``.pth`` or safetensors, or a repository folder with ``config.json``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from vidcls.checkpoints import timesformer_fb
from vidcls.checkpoints.base import Checkpoint, Raw, require_tensor
from vidcls.checkpoints.class_names import class_names
from vidcls.checkpoints.families import Family
from vidcls.checkpoints.timm_config import input_fields, model_args
from vidcls.checkpoints.vit_tensors import ViTTensors, vit_checkpoint

NAME = "timm_vit"

FAMILY = Family(
    "an image ViT of timm's names",
    r"blocks\.\d+\.attn\.(qkv|proj)\.|patch_embed\.proj\.",
    ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
)

PLAIN_NAME = re.compile(r"|(vit|deit)_(tiny|small|medium|base|large|huge|giant)_patch\d+_\d+(_in21k)?")
PLAIN_ARGUMENTS = frozenset(
    "img_size patch_size embed_dim depth num_heads mlp_ratio qkv_bias num_classes in_chans global_pool".split()
)
PLAIN_TENSOR = re.compile(
    r"cls_token|pos_embed|(patch_embed\.proj|norm|head|pre_logits\.fc|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))"
    r"\.(weight|bias)"
)

# Tensors that make the file a video model's or a text-and-image model's, though it holds a ViT.
FOREIGN = ("time_embed", "temporal_", "visual.", "text.")


def matches(raw: Raw) -> bool:
    """Whether there is a ViT of timm's names, and nothing of a TimeSformer's."""
    return (
        raw.kind in ("torch", "safetensors", "timm")
        and all(name in raw.tensors for name in FAMILY.needed)
        and raw.tensors["patch_embed.proj.weight"].ndim == 4
        and not any(part in name for name in raw.tensors for part in FOREIGN)
        and (raw.kind != "timm" or _is_plain(raw))
    )


def _is_plain(raw: Raw) -> bool:
    """Whether a folder holds a ViT as in the paper; of all others timm itself builds the model."""
    config = raw.meta["config"]
    arguments = model_args(raw)
    return (
        PLAIN_NAME.fullmatch(str(config.get("architecture", ""))) is not None
        and arguments.keys() <= PLAIN_ARGUMENTS
        and arguments.get("global_pool", "token") == "token"
        and all(PLAIN_TENSOR.fullmatch(name) for name in raw.tensors)
    )


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a ViT for `vidcls.models.vit.ViTFrames`.

    Args:
        raw: The file.
        architecture: ``vit-frames`` or None; ``timesformer-space`` has the same tensors and is read as such.
        config: ``num_heads`` where 64 does not divide the width, ``image_size`` to resize the position table
            (bicubic, antialiased, as timm does), ``representation_size=0`` to leave such a layer out as timm 1.0 does,
            and any other keyword of the architecture.

    Raises:
        CheckpointError: The file is incomplete, contradicts a keyword, or does not say how many heads it has.
    """
    if architecture == "timesformer-space":
        return timesformer_fb.read(raw, architecture, config)
    if not matches(raw):
        raise raw.error("holds no ViT of timm's names", "try without format=")
    tensors = dict(raw.tensors)
    if "pre_logits.fc.weight" in tensors:  # timm's name, until it dropped the layer
        for part in ("weight", "bias"):
            tensors[f"pre_logits.0.{part}"] = require_tensor(tensors, f"pre_logits.fc.{part}", raw.path)
            del tensors[f"pre_logits.fc.{part}"]
    if raw.kind != "timm":
        return vit_checkpoint(NAME, ViTTensors(raw, tensors, "timm"), architecture, config)
    given = {key: value for key, value in model_args(raw).items() if key == "num_heads"}
    head = tensors.get("head.weight")
    labels, notes = (None, ()) if head is None else class_names(raw, head.shape[0])
    seen = input_fields(raw)
    vit = ViTTensors(raw, tensors, "timm", seen["image_size"])
    found = vit_checkpoint(NAME, vit, architecture, {**given, **config}, labels=labels, input=seen)
    return replace(found, notes=found.notes + notes)
