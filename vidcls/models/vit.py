"""The image ViT, and the baseline that every video model must beat: a ViT on each frame, logits averaged.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1. One module serves the weights of all its
publishers, who differ in small things that decide parity: LayerNorm's epsilon (timm and Google 1e-6, HF 1e-12),
the activation (scenic's tanh approximation of GELU), pooling, and the ``pre_logits`` layer of Google's
ImageNet-21k files.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.layers import (
    ACTIVATIONS,
    Block,
    init_lecun_normal,
    init_truncated_normal,
    linear_drop_path,
    pair,
    replace_head,
    run_blocks,
)

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


class PatchEmbed(nn.Module):
    """Cut frames (n, c, h, w) into patches and project each to a token, (n, patches, d), row by row."""

    def __init__(self, in_channels: int, embed_dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        y: Tensor = self.proj(frames).flatten(2).transpose(1, 2)
        return y


class VisionTransformer(nn.Module):
    """ViT up to the pooled feature, without a classifier; frames (n, c, h, w) → features (n, d).

    Attributes:
        num_features: Width d of the feature.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_features = dim = config.embed_dim
        has_cls = config.pool == "token"
        self.patch_embed = PatchEmbed(config.in_channels, dim, pair(config.patch_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if has_cls else None
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid[0] * config.grid[1] + has_cls, dim))
        self.pos_drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.num_heads,
                config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                activation=config.activation,
                norm_eps=config.norm_eps,
                dropout=config.dropout,
                attn_dropout=config.attn_dropout,
                drop_path=rate,
            )
            for rate in linear_drop_path(config.drop_path_rate, config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self._init_weights()

    def _init_weights(self) -> None:
        init_truncated_normal(self)
        init_lecun_normal(self.patch_embed.proj.weight)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the pooled feature of each frame.

        Raises:
            ConfigError: The frames' size is not ``config.image_size``.
        """
        if tuple(frames.shape[-2:]) != self.config.image_size:
            raise ConfigError(
                "ViT",
                f"got frames of {tuple(frames.shape[-2:])} pixels (h, w), but was built for {self.config.image_size}",
                "resize them, or load the checkpoint with image_size=",
            )
        x = self.patch_embed(frames)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = run_blocks(self.blocks, self.pos_drop(x + self.pos_embed), self.cls_token is not None)
        if self.cls_token is not None:
            x = x[:, 0]  # LayerNorm works on each token alone, so the others need none
            y: Tensor = self.norm(x)
            return y
        z: Tensor = self.norm(x).mean(1)
        return z


class ViTFrames(nn.Module):
    """``vit-frames``: an image ViT on each frame, logits averaged over the frames; (b, c, t, h, w) → (b, k)."""

    architecture: ClassVar[str] = "vit-frames"
    uses_frame_indices: ClassVar[bool] = False

    def __init__(self, config: ViTFramesConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.backbone = VisionTransformer(config)
        dim = config.embed_dim
        self.pre_logits: nn.Module = nn.Identity()
        if config.representation_size is not None:
            self.pre_logits = nn.Sequential(nn.Linear(dim, config.representation_size), nn.Tanh())
            init_truncated_normal(self.pre_logits)
        self.head = nn.Linear(config.representation_size or dim, config.num_classes)
        init_truncated_normal(self.head)

    def encode_frames(self, views: Tensor) -> Tensor:
        """Features of each frame by itself, (b, c, t, h, w) → (b, t, d): all that the classifier needs."""
        frames = views.transpose(1, 2)
        features: Tensor = self.pre_logits(self.backbone(frames.flatten(0, 1)))
        return features.view(*frames.shape[:2], -1)

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Logits (b, k) from features (b, t, d), averaged over the frames.

        ``frame_indices`` is taken for the sake of one interface with VTN; the order of frames means nothing here.
        """
        logits: Tensor = self.head(features)
        return logits.mean(1)

    def forward(self, views: Tensor) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        return self.classify(self.encode_frames(views))

    def reset_head(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes."""
        replace_head(self, num_classes)


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
