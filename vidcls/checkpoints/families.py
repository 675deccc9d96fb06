"""What a file that no format reads looks like, and what it lacks: for errors only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vidcls.checkpoints.base import Raw, describe_keys

MAX_MISSING = 4


@dataclass(frozen=True)
class Family:
    """How the names of a kind of model are recognized.

    Attributes:
        name: With its article, such as ``an image ViT``.
        sign: Regular expression; a tensor whose name it matches at the start speaks for the family.
        needed: Tensors without which a file of the family cannot be read; none for a family that no format reads.
    """

    name: str
    sign: str
    needed: tuple[str, ...] = ()

    def share(self, names: Iterable[str]) -> float:
        """Share of the names that speak for the family."""
        signs = [re.match(self.sign, name) is not None for name in names]
        return sum(signs) / max(len(signs), 1)


# Published models that people have at hand and that vidcls does not read.
UNREAD = (
    Family("a MViT", r"blocks\.\d+\.attn\.(pool_[qkv]|norm_[qkv]|rel_pos)"),
    Family(
        "a Swin Transformer",
        r"layers\.\d+\.blocks\.\d+\.attn\.(relative_position|qkv)|layers\.\d+\.downsample",
    ),
    Family("a SlowFast, X3D or other network of PySlowFast", r"s\d\.(pathway\d|pw\d|blocks)"),
    Family(
        "a CLIP",
        r"(visual|transformer|vision_model|text_model)\.(transformer\.|encoder\.)?(resblocks|layers)\.",
    ),
    Family("a ResNet", r"(layer[1-4]\.\d+|conv1|bn1)\."),
    Family("a ConvNeXt", r"(stages|downsample_layers)\.\d+\."),
    Family("an EfficientNet", r"(blocks\.\d+\.\d+|conv_stem|conv_head)\."),
    Family("an I3D, R(2+1)D or other 3-D network", r"(layer[1-4]\.\d+\.conv\d\.\d|Mixed_\d|Conv3d_)"),
)


def describe(view: Raw, formats: Iterable[Any]) -> str:
    """Say which family most of the tensors look like and what is missing; empty where none does."""
    families = [family for known in formats if (family := getattr(known, "FAMILY", None)) is not None]
    best = max((*families, *UNREAD), key=lambda family: family.share(view.tensors))
    if best.share(view.tensors) < 0.2:
        return ""
    if not best.needed:
        return f"it looks like {best.name}, which vidcls does not read"
    missing = [name for name in best.needed if name not in view.tensors]
    if not missing:
        return f"it looks like {best.name}, with other shapes or more tensors than such a model has"
    return f"it looks like {best.name} without {describe_keys(missing[:MAX_MISSING])}"
