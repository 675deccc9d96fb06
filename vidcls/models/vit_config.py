"""Shape of an image ViT, by itself and frame by frame; `vidcls.models.vit` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from vidcls.errors import ConfigError
from vidcls.models.sizes import ACTIVATIONS, pair

POOLS = ("token", "gap")


@dataclass(frozen=True)
class ViTConfig:
    """Shape of an image ViT; the defaults are ViT-B/16 at 224 pixels as timm publishes it.

    Attributes:
        image_size: Height and width of a frame in pixels; one number stands for both.
        patch_size: Height and width of a patch in pixels; must divide ``image_size``.
        in_channels: Channels of a frame.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads of each block.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``.
        qkv_bias: Whether queries, keys and values have biases.
        pool: ``token`` reads the class token, ``gap`` averages all patches and has no class token.
        activation: ``gelu`` or ``gelu_tanh``.
        norm_eps: Added to the variance in each LayerNorm.
        dropout: After the position embedding, each projection and each linear layer of an MLP.
        attn_dropout: Of the attention weights.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 at the first.
    """

    image_size: int | tuple[int, int] = (224, 224)
    patch_size: int | tuple[int, int] = (16, 16)
    in_channels: int = 3
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    pool: str = "token"
    activation: str = "gelu"
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attn_dropout: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "patch_size", pair(self.patch_size))
        if any(size % patch or size < patch for size, patch in zip(*self.sizes, strict=True)):
            raise ConfigError(
                "patch_size", f"{self.patch_size} does not divide {self.image_size}", "change one"
            )
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise ConfigError(
                "num_heads",
                f"{self.embed_dim} channels cannot be split into {self.num_heads} heads",
                "change it",
            )
        for name, value, known in (("pool", self.pool, POOLS), ("activation", self.activation, ACTIVATIONS)):
            if value not in known:
                raise ConfigError(name, f"{value!r} is unknown", f"choose one of {', '.join(known)}")

    @property
    def sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Image and patch size, both as (h, w)."""
        return pair(self.image_size), pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along height and width."""
        (height, width), (patch_height, patch_width) = self.sizes
        return height // patch_height, width // patch_width


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
