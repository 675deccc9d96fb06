"""Image ViTs of google-research/scenic: an ``.npz`` of its flat parameter tree, or its msgpack checkpoint.

Told from the ViViTs of the same names by the embedding's kernel, which has no time axis. flax's default GELU is
the tanh approximation.
"""

from __future__ import annotations

from typing import Any

from vidcls.checkpoints.base import Checkpoint, Raw
from vidcls.checkpoints.google_npz import FlaxNames, find_root, timm_names
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint

NAME = "scenic_vit"

LINEN = FlaxNames("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0", "output_projection")

# Flat; scenic's new TrainState; its old layout with the optimizer around the parameters.
ROOTS = ("", "params/", "optimizer/target/", "optimizer/target/params/")


def matches(raw: Raw) -> bool:
    """Whether there is an image ViT with Linen's numbering and scenic's classifier."""
    return raw.kind in ("npz", "msgpack") and find_root(raw, LINEN, ROOTS) is not None


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a ViT for `vidcls.models.vit.ViTFrames`; keywords as for `vidcls.checkpoints.google_npz.read`.

    Raises:
        CheckpointError: The file is incomplete, or contradicts a keyword.
    """
    root = find_root(raw, LINEN, ROOTS)
    if root is None:
        raise raw.error("holds no image ViT of scenic's names", "try without format=")
    tensors, num_heads = timm_names(raw, root, LINEN)
    defaults = {"activation": "gelu_tanh", "norm_eps": 1e-6}
    return vit_checkpoint(
        NAME,
        ViTTensors(raw, tensors, "npz"),
        architecture,
        settle(raw, {"num_heads": num_heads}, config),
        defaults,
    )
