"""Image ViTs of timm: a state dict in ``.pth`` or safetensors, bare or under ``state_dict`` or ``model``."""

from __future__ import annotations

from typing import Any

from vidcls.checkpoints import timesformer_fb
from vidcls.checkpoints.base import Checkpoint, Raw, take
from vidcls.checkpoints.vit_tensors import ROOTS, ViTTensors, vit_checkpoint

NAME = "timm_vit"

# Tensors that make the file a video model's or a text-and-image model's, though it holds a ViT.
FOREIGN = ("time_embed", "temporal_", "visual.", "text.")


def matches(raw: Raw) -> bool:
    """Whether there is a ViT of timm's names, and nothing of a TimeSformer's."""
    return raw.kind in ("torch", "safetensors") and find_root(raw) is not None


def find_root(raw: Raw) -> str | None:
    """Return the prefix of the ViT's names in the file, None where there is no ViT."""
    if any(part in name for name in raw.tensors for part in FOREIGN):
        return None
    needed = ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
    roots = [root for root in ROOTS if all(root + name in raw.tensors for name in needed)]
    if (
        raw.kind == "safetensors"
    ):  # nothing wraps those, and in a TimeSformer of space only all names begin so
        roots = [root for root in roots if not root.startswith("model.")]
    return roots[0] if roots else None


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
    root = find_root(raw)
    if root is None:
        raise raw.error("holds no ViT of timm's names", "try without format=")
    tensors = {name.removeprefix(root): t for name, t in raw.tensors.items() if name.startswith(root)}
    if "pre_logits.fc.weight" in tensors:  # timm's name, until it dropped the layer
        for part in ("weight", "bias"):
            tensors[f"pre_logits.0.{part}"] = take(tensors, f"pre_logits.fc.{part}", raw.path)
            del tensors[f"pre_logits.fc.{part}"]
    return vit_checkpoint(NAME, ViTTensors(raw, tensors, "timm"), architecture, config)
