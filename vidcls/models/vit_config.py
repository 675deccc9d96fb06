"""Shape of an image ViT, by itself and frame by frame; `vidcls.models.vit` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from vidcls.errors import ConfigError
from vidcls.models.sizes import pair
from vidcls.models.transformer_config import PatchConfig, check_known

POOLS = ("token", "gap")


@dataclass(frozen=True)
class ViTConfig(PatchConfig):
    """Shape of an image ViT; the defaults are ViT-B/16 at 224 pixels as timm publishes it.

    Attributes:
        patch_size: Height and width of a patch in pixels; must divide ``image_size``.
        pool: ``token`` reads the class token, ``gap`` averages all patches and has no class token.
    """

    pool: str = "token"

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = zip(pair(self.image_size), pair(self.patch_size), strict=True)
        if any(size % patch or size < patch for size, patch in sides):
            problem = f"{self.patch_size} does not divide {self.image_size}"
            raise ConfigError("patch_size", problem, "change one")
        check_known("pool", self.pool, POOLS)


@dataclass(frozen=True)
class ViTFramesConfig(ViTConfig):
    """An image ViT with its classifier, applied frame by frame.

    Attributes:
        num_classes: Length of the logits.
        representation_size: Width of a linear layer with tanh between the pooled token and the classifier, as Google's
            first ImageNet-21k files have it; None for none.
        num_frames: Frames of the clips that the model is meant for; None leaves it open. It takes any number.
    """

    num_classes: int = 1000
    representation_size: int | None = None
    num_frames: int | None = None


def vit_config(values: dict[str, Any]) -> ViTConfig:
    """Build a ``ViTConfig`` from a mapping, such as a registry entry's.

    Raises:
        ConfigError: A key is unknown; the message names the known ones.
    """
    known = {field.name for field in fields(ViTConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            "backbone",
            f"unknown key {', '.join(map(repr, unknown))}",
            f"known are {', '.join(sorted(known))}",
        )
    return ViTConfig(**values)
