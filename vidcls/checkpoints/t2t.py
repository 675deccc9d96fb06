"""T2T-ViT as its authors save it: ``.pth.tar`` of yitu-opensource/T2T-ViT.

The moving average is the model where the file has one, as in the authors' evaluation. Positions and the performer's
random features are read from the file; the number of heads is not in it.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.timm_config import TRANSFORM
from vidcls.checkpoints.vit_tensors import head_count, resize_positions, settle, square_grid
from vidcls.models.sizes import pair
from vidcls.models.t2t_config import T2TConfig

NAME = "t2t_vit"
ARCHITECTURE = "t2t-frames"
PREFERS_AVERAGE = True

NEEDED = ("tokens_to_token.project.weight", "pos_embed", "blocks.0.attn.qkv.weight")
SIDE = 16  # pixels for each token of the backbone


def matches(raw: Raw) -> bool:
    """Whether there is a tokens-to-token module and a ViT."""
    return raw.kind in ("torch", "safetensors") and all(name in raw.tensors for name in NEEDED)


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a T2T-ViT for `vidcls.models.t2t.T2TFrames`.

    Args:
        raw: The file.
        architecture: ``t2t-frames`` or None.
        config: ``num_heads`` where 64 does not divide the width; ``image_size`` to resize the position table
            (bicubic, as the authors describe it); any other keyword of the architecture.

    Raises:
        CheckpointError: The file is incomplete, contradicts a keyword, or does not say how many heads it has.
    """
    raw.expect(architecture, ARCHITECTURE, "a T2T-ViT")
    tensors = {_our_name(name): tensor for name, tensor in raw.tensors.items()}
    found, notes = _sizes(raw, tensors, config)
    _fit(raw, tensors, found, config.get("image_size"))
    state = {name if name.startswith("head.") else f"backbone.{name}": t for name, t in tensors.items()}
    seen = authors_input(found["image_size"])
    settled = settle(raw, found, config)
    return Checkpoint(NAME, ARCHITECTURE, settled, state, input=seen, notes=notes)


def _our_name(name: str) -> str:
    if name.startswith("tokens_to_token."):
        return name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.2.", ".mlp.fc2.").replace(".attn.", ".")
    return name


def _sizes(
    raw: Raw, tensors: dict[str, Tensor], config: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    project = require_tensor(tensors, "tokens_to_token.project.weight", raw.path, 2)
    norm = require_tensor(tensors, "tokens_to_token.attention1.norm1.weight", raw.path, 1)
    hidden = require_tensor(tensors, "blocks.0.mlp.fc1.weight", raw.path, 2)
    dim = project.shape[0]
    heads, notes = head_count(raw, dim, config.get("num_heads"))
    performer = "tokens_to_token.attention1.w" in tensors
    found = {
        "in_channels": norm.shape[0] // 49,
        "num_classes": require_tensor(tensors, "head.weight", raw.path, 2).shape[0],
        "tokens": "performer" if performer else "transformer",
        "token_dim": project.shape[1] // 9,
        "embed_dim": dim,
        "depth": count_layers(tensors, r"blocks\.(\d+)\.", raw.path),
        "num_heads": heads,
        "mlp_ratio": hidden.shape[0] / dim,
    }
    return found, notes


def _fit(raw: Raw, tensors: dict[str, Tensor], found: dict[str, Any], wanted: Any) -> None:
    """Find the image size behind the position table, and resize it to the size that is asked for."""
    table = require_tensor(tensors, "pos_embed", raw.path, 3)
    places = table.shape[1] - 1
    new = None if wanted is None else T2TConfig(image_size=pair(wanted)).grid_size
    old = square_grid(raw, places, first=new)
    found["image_size"] = (old[0] * SIDE, old[1] * SIDE) if wanted is None else pair(wanted)
    if new is not None:
        tensors["pos_embed"] = resize_positions(table, 1, old, new, "hf")


def authors_input(size: tuple[int, int]) -> dict[str, Any]:
    """How the authors test a picture, with timm 0.3.4: fields of `vidcls.config.InputSpec`."""
    return {**TRANSFORM, "image_size": size, "resize": math.floor(min(size) / 0.9)}
