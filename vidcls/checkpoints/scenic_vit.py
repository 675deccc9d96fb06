"""Image ViTs of google-research/scenic: an ``.npz`` of its flat parameter tree, or its msgpack checkpoint.

Told from the ViViTs of the same names by the embedding's kernel, which has no time axis. flax's default GELU is
the tanh approximation.
"""

from __future__ import annotations

from typing import Any

from vidcls.checkpoints.base import Checkpoint, Raw
from vidcls.checkpoints.google_npz import FlaxNames, find_root, read_flax_vit

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
    return read_flax_vit(NAME, raw, LINEN, ROOTS, "gelu_tanh", architecture, config)
