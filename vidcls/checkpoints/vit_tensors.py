"""What the formats of image ViTs have in common: sizes read from tensors, and position tables resized.

Each publisher resizes position embeddings in its own way when a model is loaded for another image size, and the
ways differ enough to change predictions, so they are kept apart in `POSITION_RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidcls.checkpoints.base import HEADLESS, Checkpoint, Raw, count_layers, require_tensor
from vidcls.models.sizes import pair

# Interpolation mode and antialias, by publisher: timm 1.0's rule for state dicts, its rule for Google's .npz
# files, and HF's ``interpolate_pos_encoding``.
POSITION_RULES: dict[str, tuple[str, bool]] = {
    "timm": ("bicubic", True),
    "npz": ("bilinear", False),
    "hf": ("bicubic", False),
    "videoprism": ("bilinear", True),
}

HEAD_DIM = 64  # of published ViTs, but for those in the table
HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 1536: 24}
"""Width → heads of the published ViTs: SO400M, H, g, G; and DINOv2's giant, whose heads are 64 wide."""


@dataclass(frozen=True)
class ViTTensors:
    """Tensors of an image ViT under timm's names, and the file they come from.

    Attributes:
        raw: The file, for errors.
        tensors: timm's names → tensors, without any prefix.
        rule: Key of `POSITION_RULES` for this publisher.
        trained_size: Image size (h, w) that the position table is for, where the file says so; else a square.
    """

    raw: Raw
    tensors: Mapping[str, Tensor]
    rule: str
    trained_size: tuple[int, int] | None = None

    def backbone(self, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
        """Infer the shape of the ViT, and fit the position table to the image size that is asked for.

        Args:
            config: The caller's keywords; ``num_heads`` and ``image_size`` are used.

        Returns:
            Keywords of `vidcls.models.vit.ViTConfig`, all tensors with the position table fitted, and notes.

        Raises:
            CheckpointError: A tensor is missing or of a shape that no ViT has, or the number of heads is unknown.
        """
        pos_embed = require_tensor(self.tensors, "pos_embed", self.raw.path, 3)
        found, notes = vit_sizes(self.raw, self.tensors, config.get("num_heads"))
        prefix = int("cls_token" in self.tensors)
        places = pos_embed.shape[1]
        image_size, pos_embed = self._fit(pos_embed, prefix, found["patch_size"], config.get("image_size"))
        found |= {"image_size": image_size, "pool": "token" if prefix else "gap"}
        if len(pos_embed[0]) != places:
            notes += (resized_note(places - prefix, image_size),)
        return found, {**self.tensors, "pos_embed": pos_embed}, notes

    def _fit(
        self, pos_embed: Tensor, prefix: int, patch: tuple[int, int], wanted: Any
    ) -> tuple[tuple[int, int], Tensor]:
        places = pos_embed.shape[1] - prefix
        new = None if wanted is None else _grid(pair(wanted), patch)
        old = self._trained_grid(places, patch, new)
        if new is None:
            return (old[0] * patch[0], old[1] * patch[1]), pos_embed
        if self.rule != "hf" and new[0] * new[1] == places:
            # timm looks at the number of places alone; a file does not tell 4 × 4 from 2 × 8.
            return pair(wanted), pos_embed
        return pair(wanted), resize_positions(pos_embed, prefix, old, new, self.rule)

    def _trained_grid(
        self, places: int, patch: tuple[int, int], wanted: tuple[int, int] | None
    ) -> tuple[int, int]:
        trained = None if self.trained_size is None else _grid(self.trained_size, patch)
        return square_grid(self.raw, places, first=trained, last=wanted)


def vit_sizes(
    raw: Raw, tensors: Mapping[str, Tensor], num_heads: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the tensors of a ViT determine of its configuration, and notes; ``num_heads`` is the caller's, or None.

    Raises:
        CheckpointError: A tensor is missing or of a shape that no ViT has, or the number of heads is unknown.
    """
    dim, in_channels, *patch = require_tensor(tensors, "patch_embed.proj.weight", raw.path, 4).shape
    heads, notes = head_count(raw, dim, num_heads)
    found = {
        "patch_size": (int(patch[0]), int(patch[1])),
        "in_channels": in_channels,
        "embed_dim": dim,
        "depth": count_layers(tensors, r"blocks\.(\d+)\.", raw.path),
        "num_heads": heads,
        "mlp_ratio": require_tensor(tensors, "blocks.0.mlp.fc1.weight", raw.path, 2).shape[0] / dim,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    }
    return found, notes


def square_grid(
    raw: Raw,
    places: int,
    *,
    first: tuple[int, int] | None = None,
    last: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """The grid (h, w) behind a table of positions: ``first``, a square or ``last``; else raises CheckpointError."""
    side = math.isqrt(max(places, 0))
    for grid in (first, (side, side), last):
        if grid is not None and grid[0] * grid[1] == places > 0:
            return grid
    raise raw.error(
        f"its {places} position embeddings make no square", "give image_size=(h, w) as it was trained"
    )


def _grid(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    return size[0] // patch[0], size[1] // patch[1]


def resized_note(places: int, image_size: tuple[int, int]) -> str:
    """Says that a position table was fitted to another image size."""
    height, width = image_size
    return f"its {places} position embeddings were interpolated for frames of {height}×{width} pixels"


def resize_positions(
    table: Tensor, prefix: int, old: tuple[int, int], new: tuple[int, int], rule: str
) -> Tensor:
    """Resize a table of position embeddings over a grid of patches.

    Args:
        table: (1, prefix + h * w, d), row by row.
        prefix: Rows at the front that belong to no patch; they are kept.
        old: The table's grid (h, w).
        new: The wanted grid.
        rule: Key of `POSITION_RULES`.

    Returns:
        (1, prefix + h' * w', d), the table itself where the grids are equal.
    """
    if old == new or 0 in new:
        return table  # a size smaller than a patch is the model's to refuse
    mode, antialias = POSITION_RULES[rule]
    grid = table[:, prefix:].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode=mode, align_corners=False, antialias=antialias)
    return torch.cat([table[:, :prefix].float(), grid.flatten(2).transpose(1, 2)], dim=1)


def head_count(raw: Raw, dim: int, given: Any, keyword: str = "num_heads") -> tuple[int, tuple[str, ...]]:
    """How many attention heads a width has: what is given, what published ViTs have, or one for each 64 channels.

    Returns:
        The number, and a note where it was not given.

    Raises:
        CheckpointError: None is given, no published ViT is as wide, and 64 does not divide the width.
    """
    if given is not None:
        return int(given), ()
    if dim not in HEADS and dim % HEAD_DIM:
        raise raw.error(
            f"does not say how many attention heads its {dim} channels make",
            f"give {keyword}= as it was trained",
        )
    heads = HEADS.get(dim, dim // HEAD_DIM)
    return heads, (
        f"the file does not say how many attention heads its {dim} channels make; {heads} are assumed, as in published "
        f"models ({keyword}=)",
    )


def settle(raw: Raw, found: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Join what the file determines with the caller's keywords; a CheckpointError where they contradict."""
    for key in sorted(found.keys() & given.keys()):
        contradicts(raw, key, found[key], given[key])
    return {**given, **found}


def contradicts(raw: Raw, key: str, found: Any, given: Any) -> None:
    """Refuse a keyword of the caller's that says otherwise than the file; raises CheckpointError."""
    if not _agree(found, given):
        wants_head = key == "num_classes"
        remedy = "load it as it is, then call reset_head()" if wants_head else "leave the keyword out"
        raise raw.error(f"has {key} {found}, but {key}={given} was given", remedy)


def _agree(found: Any, given: Any) -> bool:
    try:
        if isinstance(found, tuple):
            return found == ((given,) * len(found) if isinstance(given, int) else tuple(given))
        if isinstance(found, float):
            return math.isclose(found, float(given), rel_tol=1e-6)
    except (TypeError, ValueError):
        return False
    return bool(found == (tuple(given) if isinstance(given, list) else given))


def vit_checkpoint(
    name: str,
    vit: ViTTensors,
    architecture: str | None,
    config: dict[str, Any],
    defaults: dict[str, Any] | None = None,
    **rest: Any,
) -> Checkpoint:
    """Make the checkpoint of ``vit-frames`` from a ViT's tensors.

    Args:
        name: Of the format.
        vit: The tensors under timm's names, with ``head.*`` and perhaps ``pre_logits.0.*``.
        architecture: ``vit-frames`` or None.
        config: The caller's keywords, which win over ``defaults`` but must not contradict the tensors.
        defaults: What the publisher sets and the tensors do not tell, such as ``norm_eps``.
        **rest: Other fields of `Checkpoint`.

    Raises:
        CheckpointError: As `ViTTensors.backbone`, or the architecture is another.
    """
    raw, tensors = vit.raw, dict(vit.tensors)
    raw.expect(architecture, "vit-frames", "an image ViT")
    config = dict(config)
    if config.get("representation_size") == 0:
        del config["representation_size"]
        tensors = {key: t for key, t in tensors.items() if not key.startswith("pre_logits.")}
    found, backbone, notes = replace(vit, tensors=tensors).backbone(config)
    if "head.weight" in tensors:
        found["num_classes"] = tensors["head.weight"].shape[0]
    else:
        # Such a file can start another model, so reading it is fine; the strict load says what is missing.
        notes += (HEADLESS,)
    if "pre_logits.0.weight" in tensors:
        found["representation_size"] = tensors["pre_logits.0.weight"].shape[0]
    own = ("head.", "pre_logits.")
    state = {key if key.startswith(own) else f"backbone.{key}": tensor for key, tensor in backbone.items()}
    settled = {**(defaults or {}), **settle(raw, found, config)}
    return Checkpoint(name, "vit-frames", settled, state, notes=notes, **rest)
