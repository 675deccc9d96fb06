"""The image ViT, and the baseline that every video model must beat: a ViT on each frame, logits averaged.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1. One module serves the weights of all its
publishers, who differ in small things that decide parity: LayerNorm's epsilon (timm and Google 1e-6, HF 1e-12),
the activation (scenic's tanh approximation of GELU), pooling, and the ``pre_logits`` layer of Google's
ImageNet-21k files.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidcls.models.frames import FrameClassifier
from vidcls.models.layers import (
    block_of,
    check_pixels,
    init_lecun_normal,
    init_truncated_normal,
    linear_drop_path,
    run_blocks,
)
from vidcls.models.sizes import pair
from vidcls.models.vit_config import ViTConfig, ViTFramesConfig


class PatchEmbed(nn.Module):
    """Cut frames (n, c, h, w) into patches and project each to a token, (n, patches, d), row by row."""

    def __init__(self, in_channels: int, embed_dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        return self.proj(frames).flatten(2).transpose(1, 2)


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
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(config.grid_size) + has_cls, dim))
        self.pos_drop = nn.Dropout(config.dropout)
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(block_of(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self._init_weights()

    def _init_weights(self) -> None:
        init_truncated_normal(self)
        init_lecun_normal(self.patch_embed.proj.weight)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the pooled feature of each frame; a ConfigError where the size is not ``image_size``."""
        check_pixels("ViT", frames, self.config.image_size)
        x = self.patch_embed(frames)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = run_blocks(self.blocks, self.pos_drop(x + self.pos_embed), self.cls_token is not None)
        if self.cls_token is not None:
            x = x[:, 0]  # LayerNorm works on each token alone, so the others need none
            return self.norm(x)
        return self.norm(x).mean(1)


class ViTFrames(FrameClassifier):
    """``vit-frames``: an image ViT on each frame, logits averaged over the frames; (b, c, t, h, w) → (b, k)."""

    architecture: ClassVar[str] = "vit-frames"

    def __init__(self, config: ViTFramesConfig) -> None:
        super().__init__(config, VisionTransformer(config), config.representation_size or config.embed_dim)
        self.pre_logits: nn.Module = nn.Identity()
        if config.representation_size is not None:
            layer = nn.Linear(config.embed_dim, config.representation_size)
            self.pre_logits = nn.Sequential(layer, nn.Tanh())
            init_truncated_normal(self.pre_logits)

    def features(self, frames: Tensor) -> Tensor:
        return self.pre_logits(self.backbone(frames))
