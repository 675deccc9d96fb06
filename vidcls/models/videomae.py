"""VideoMAE's classifier: a plain ViT over all tubelets of a clip, pre-trained by masked reconstruction.

Tong, Song, Wang, Wang: "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video
Pre-Training", NeurIPS 2022, section 3; its fine-tuned form as in MCG-NJU/VideoMAE, ``modeling_finetune.py``. VideoMAE
V2 (Wang et al., CVPR 2023) computes the same, with more classes and a larger model. What sets it apart from ViViT's
Model 1: no class token, positions from a fixed table of sines over the flat sequence of tokens, no bias on the keys,
and a mean over the tokens before the last norm.
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
    init_truncated_normal,
    linear_drop_path,
    run_blocks,
)
from vidcls.models.limits import MAX_POSITIONS
from vidcls.models.sizes import pair, triple
from vidcls.models.videomae_config import VideoMAEConfig


def sinusoid_table(num_positions: int, dim: int) -> Tensor:
    """Sines and cosines of positions 0, 1, …, as "Attention Is All You Need" has them; (1, n, d) float32.

    Channel j has the angle p / 10000^(2⌊j/2⌋/d): sine where j is even, cosine where it is odd. Worked out in float64
    and rounded once, as the published code does.
    """
    if num_positions * dim > MAX_POSITIONS:  # computed even where the parameters take no memory
        raise ConfigError(
            "VideoMAE", f"{num_positions} tokens of width {dim} are too many", "choose smaller views"
        )
    channel = torch.arange(dim, dtype=torch.float64, device="cpu")
    rate = 10000.0 ** (2 * (channel // 2) / dim)
    angle = torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None] / rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


class QVAttention(Attention):
    """Self-attention with biases on queries and values and none on keys; (b, n, d) → (b, n, d)."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config.embed_dim, config.num_heads, False, config.dropout, config.attn_dropout)
        self.q_bias = nn.Parameter(torch.zeros(config.embed_dim)) if config.qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(config.embed_dim)) if config.qv_bias else None

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project (b, n, d) to queries, keys and values, each (b, heads, n, d / heads)."""
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = torch.unflatten(F.linear(x, self.qkv.weight, bias), -1, (3, self.num_heads, -1))
        q, k, v = qkv.unbind(-3)  # (b, n, heads, hd) each
        return q.transpose(-3, -2), k.transpose(-3, -2), v.transpose(-3, -2)


def make_block(config: VideoMAEConfig, drop_path: float) -> Block:
    """A pre-norm block whose attention has no bias on its keys."""
    block = block_of(config, drop_path)
    block.attn = QVAttention(config)
    return block


class VideoMAE(Classifier):
    """``videomae``: views (b, c, t, h, w) → logits (b, k)."""

    architecture: ClassVar[str] = "videomae"

    pos_embed: Tensor

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        dim = config.embed_dim
        self.patch_embed = TubeletEmbedding(triple(config.tubelet_size), config.in_channels, dim)
        self.register_buffer("pos_embed", torch.empty(0), persistent=False)
        self.pos_drop = nn.Dropout(config.dropout)
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(make_block(config, rate) for rate in rates)
        norm = nn.LayerNorm(dim, eps=config.head_norm_eps)
        self.norm: nn.Module = nn.Identity() if config.pool == "mean" else norm
        self.fc_norm: nn.Module = norm if config.pool == "mean" else nn.Identity()
        self.head_drop = nn.Dropout(config.head_dropout)
        self.head = nn.Linear(dim, config.num_classes)
        init_truncated_normal(self)
        self.compute_buffers()

    def compute_buffers(self) -> None:
        """Fill the position table, which no checkpoint holds."""
        t, h, w = self.config.grid_size
        table = sinusoid_table(t * h * w, self.config.embed_dim)
        self.pos_embed = table.to(self.head.weight.device)

    def encode(self, views: Tensor) -> Tensor:
        """Tokens after the last block, (b, c, t, h, w) → (b, t'·h'·w', d), t slowest.

        Raises:
            ConfigError: The views are not of the configuration's size, for which the position table is.
        """
        expected = (self.config.num_frames, *pair(self.config.image_size))
        if tuple(views.shape[2:]) != expected and not self.config.any_size:
            raise ConfigError(
                "VideoMAE",
                f"got views of {tuple(views.shape[2:])} (t, h, w), but was built for {expected}",
                "load the checkpoint with num_frames= and image_size=",
            )
        tokens = self.patch_embed(views).flatten(1, 2)
        count = tokens.shape[1]
        table = self.pos_embed  # row p is the same in a table of any length
        if count > table.shape[1]:
            table = sinusoid_table(count, tokens.shape[2]).to(tokens)
        return run_blocks(self.blocks, self.pos_drop(tokens + table[:, :count]), first_only=False)

    def forward_features(self, views: Tensor) -> Tensor:
        """What the classifier sees, (b, c, t, h, w) → (b, d)."""
        x = self.norm(self.encode(views))
        pooled = x.mean(1) if self.config.pool == "mean" else x[:, 0]
        return self.fc_norm(pooled)

    def forward(self, views: Tensor) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        return self.head(self.head_drop(self.forward_features(views)))
