"""VideoPrism's classifier: a factorized encoder that keeps all tokens, and a pooling attention.

Zhao et al. 2024, "VideoPrism: A Foundational Visual Encoder for Video Understanding" (arXiv 2402.13217), section 3.1;
google-deepmind/videoprism as converted for transformers. It is ViViT's Model 2 with these differences: the spatial
encoder's tokens are not pooled, so that time is attended to at each place by itself; attention logits are capped; a
LayerNorm's stored weight is its distance from one; and the classifier reads one learned query's view of all tokens.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.layers import (
    Attention,
    Block,
    Classifier,
    TubeletEmbedding,
    block_of,
    check_pixels,
    init_lecun_normal,
    init_truncated_normal,
)
from vidcls.models.sizes import triple
from vidcls.models.videoprism_config import VideoPrismConfig

SOFTPLUS_0 = 1.442695041  # 1 / log 2, the inverse of softplus(0), as the published code rounds it


class OffsetLayerNorm(nn.LayerNorm):
    """LayerNorm whose weight is stored less one."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(dim, eps=eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight + 1.0, self.bias, self.eps)


class CappedAttention(Attention):
    """Self-attention with logits x → c · tanh(x / c), which no fused kernel has; (..., n, d) → (..., n, d)."""

    def __init__(self, config: VideoPrismConfig) -> None:
        super().__init__(
            config.embed_dim, config.num_heads, config.qkv_bias, config.dropout, config.attn_dropout
        )
        self.softcap = config.softcap

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.softcap is None:
            return super().attend(q, k, v, mask)
        logits = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        logits = torch.tanh(logits / self.softcap) * self.softcap
        weights = F.dropout(
            (logits if mask is None else logits + mask).softmax(-1), self.attn_drop, self.training
        )
        return weights @ v


def make_block(config: VideoPrismConfig) -> Block:
    """A pre-norm block of VideoPrism's norms and attention."""
    block = block_of(config)
    block.norm1 = OffsetLayerNorm(config.embed_dim, config.norm_eps)
    block.attn = CappedAttention(config)
    block.norm2 = OffsetLayerNorm(config.embed_dim, config.norm_eps)
    return block


class Encoder(nn.Module):
    """Positions, blocks and a norm; (b, n, d) → (b, n, d)."""

    def __init__(self, config: VideoPrismConfig, num_tokens: int, depth: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, config.embed_dim))
        self.pos_drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(make_block(config) for _ in range(depth))
        self.norm = OffsetLayerNorm(config.embed_dim, config.norm_eps)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_drop(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class AttentionPool(nn.Module):
    """One learned query attends to all tokens, in heads as wide as an MLP has channels for; (b, n, d) → (b, d)."""

    def __init__(self, config: VideoPrismConfig) -> None:
        super().__init__()
        dim, self.num_heads = config.embed_dim, config.num_heads
        head_dim = round(dim * config.mlp_ratio) // self.num_heads
        inner = head_dim * self.num_heads
        self.attn_drop = config.attn_dropout
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.scale = nn.Parameter(torch.zeros(head_dim))  # of each channel, through softplus
        self.q = nn.Linear(dim, inner, bias=config.qkv_bias)
        self.kv = nn.Linear(dim, 2 * inner, bias=config.qkv_bias)
        self.proj = nn.Linear(inner, dim)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        q = torch.unflatten(self.q(self.query), -1, (self.num_heads, -1)).transpose(1, 2)  # (1, heads, 1, hd)
        q = q * (SOFTPLUS_0 * q.shape[-1] ** -0.5) * F.softplus(self.scale)
        k, v = torch.unflatten(self.kv(x), -1, (2, self.num_heads, -1)).unbind(-3)  # (b, n, heads, hd) each
        attended = F.scaled_dot_product_attention(
            q.expand(x.shape[0], -1, -1, -1),
            k.transpose(1, 2),
            v.transpose(1, 2),
            dropout_p=self.attn_drop if self.training else 0.0,
            scale=1.0,
        )
        return self.proj(attended.transpose(1, 2).flatten(1))


class VideoPrism(Classifier):
    """``videoprism``: views (b, c, t, h, w) → logits (b, k)."""

    architecture: ClassVar[str] = "videoprism"

    def __init__(self, config: VideoPrismConfig) -> None:
        super().__init__(config)
        steps, height, width = config.grid_size
        self.patch_embed = TubeletEmbedding(triple(config.tubelet_size), config.in_channels, config.embed_dim)
        self.spatial = Encoder(config, height * width, config.depth)
        self.temporal = Encoder(config, steps, config.temporal_depth)
        self.pool = AttentionPool(config)
        self.pool_norm = OffsetLayerNorm(config.embed_dim, config.norm_eps)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        init_truncated_normal(self)
        init_lecun_normal(self.patch_embed.proj.weight)

    def encode_frames(self, views: Tensor) -> Tensor:
        """All tokens of each time step by itself, side by side: (b, c, t, h, w) → (b, t', h'·w'·d).

        Raises:
            ConfigError: The views' height and width are not the configuration's.
        """
        check_pixels("VideoPrism", views, self.config.image_size)
        tokens = self.patch_embed(views)  # (b, t', s, d)
        encoded: Tensor = self.spatial(tokens.flatten(0, 1))
        return encoded.reshape(*tokens.shape[:2], -1)

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Logits (b, k) from what `encode_frames` gave; ``frame_indices`` is not read.

        Raises:
            ConfigError: There are more or fewer time steps than the position table has.
        """
        steps = self.config.grid_size[0]
        if features.shape[1] != steps:
            raise ConfigError(
                "VideoPrism",
                f"got {features.shape[1]} time steps, but was built for {steps}",
                "load the checkpoint with num_frames=",
            )
        tokens = torch.unflatten(features, 2, (-1, self.config.embed_dim)).transpose(1, 2)  # (b, s, t', d)
        columns: Tensor = self.temporal(tokens.flatten(0, 1))
        x = columns.reshape(tokens.shape).transpose(1, 2).flatten(1, 2)
        return self.head(self.pool_norm(self.pool(x)))

    def forward(self, views: Tensor) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        return self.classify(self.encode_frames(views))
