"""T2T-ViT on each frame: overlapping patches become tokens step by step, then a deep and narrow ViT.

Yuan et al. 2021, "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet" (arXiv 2101.11986),
sections 3.1 and 3.2; yitu-opensource/T2T-ViT, ``models/t2t_vit.py``. What decides parity: LayerNorm epsilon 1e-5; the
token modules' skip connection starts at the values and not at the input; the token transformer scales by the width of
its input; the performer does not scale at all, and its random features are part of the weights, as are the positions.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.models.frames import FrameClassifier
from vidcls.models.layers import (
    Mlp,
    block_of,
    check_pixels,
    init_truncated_normal,
    linear_drop_path,
    run_blocks,
)
from vidcls.models.t2t_config import T2TConfig
from vidcls.models.videomae import sinusoid_table


class TokenPerformer(nn.Module):
    """One head of linear attention (Choromanski et al. 2021) and an MLP; (n, m, d) → (n, m, token_dim)."""

    def __init__(self, dim: int, token_dim: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.kqv = nn.Linear(dim, 3 * token_dim)
        self.proj = nn.Linear(token_dim, token_dim)
        self.norm2 = nn.LayerNorm(token_dim, eps=eps)
        self.mlp = Mlp(token_dim, token_dim)
        features = token_dim // 2
        directions = nn.init.orthogonal_(torch.empty(features, token_dim)) * math.sqrt(features)
        self.w = nn.Parameter(directions, requires_grad=False)

    def kernel(self, x: Tensor) -> Tensor:
        """Positive random features of keys or queries, (n, m, token_dim) → (n, m, token_dim / 2)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # exp of a squared length
        # Halved before it is summed, which is as exact: OpenVINO 2026.4 does not write all of a sum that is divided at
        # once.
        half_square = (x * x / 2).sum(-1, keepdim=True)
        return torch.exp(x @ self.w.to(x.dtype).T - half_square) / math.sqrt(self.w.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, -1)
        keys, queries = self.kernel(k), self.kernel(q)
        # The published fraction has 1e-8 added below. Both of its parts are multiplied by 1e8 here, since ONNX's
        # optimizer drops a summand that is so near to zero.
        weight = queries @ keys.sum(1).unsqueeze(2) * 1e8 + 1  # (n, m, 1)
        summed = queries @ (keys.transpose(1, 2) @ v.to(keys.dtype)) * 1e8
        x = v + self.proj((summed / weight).to(v.dtype))
        return x + self.mlp(self.norm2(x))


class TokenTransformer(nn.Module):
    """One head of attention, scaled by the width of the input, and an MLP; (n, m, d) → (n, m, token_dim)."""

    def __init__(self, dim: int, token_dim: int, eps: float) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.qkv = nn.Linear(dim, 3 * token_dim, bias=False)
        self.proj = nn.Linear(token_dim, token_dim)
        self.norm2 = nn.LayerNorm(token_dim, eps=eps)
        self.mlp = Mlp(token_dim, token_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))
        return x + self.mlp(self.norm2(x))


class TokensToToken(nn.Module):
    """Unfold, attend, and again; frames (n, c, h, w) → tokens (n, h/16 · w/16, d)."""

    def __init__(self, config: T2TConfig) -> None:
        super().__init__()
        module = TokenPerformer if config.tokens == "performer" else TokenTransformer
        dim, eps = config.token_dim, config.norm_eps
        self.attention1 = module(config.in_channels * 7 * 7, dim, eps)
        self.attention2 = module(dim * 3 * 3, dim, eps)
        self.project = nn.Linear(dim * 3 * 3, config.embed_dim)

    def forward(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        x = F.unfold(frames, 7, stride=4, padding=2).transpose(1, 2)
        grid = ((height - 3) // 4 + 1, (width - 3) // 4 + 1)
        x = self.soft_split(self.attention1(x), grid)
        grid = ((grid[0] + 1) // 2, (grid[1] + 1) // 2)
        return self.project(self.soft_split(self.attention2(x), grid))

    @staticmethod
    def soft_split(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Lay tokens (n, m, d) on their grid and join each 3×3 of them, every other one; → (n, m / 4, 9 d)."""
        picture = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
        return F.unfold(picture, 3, stride=2, padding=1).transpose(1, 2)


class T2TViT(nn.Module):
    """T2T-ViT up to the class token, without a classifier; frames (n, c, h, w) → features (n, d).

    Attributes:
        num_features: Width d of the feature.
    """

    def __init__(self, config: T2TConfig) -> None:
        super().__init__()
        self.config = config
        self.num_features = dim = config.embed_dim
        self.tokens_to_token = TokensToToken(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        positions = sinusoid_table(math.prod(config.grid_size) + 1, dim)
        self.pos_embed = nn.Parameter(positions.to(self.cls_token.device), requires_grad=False)
        self.pos_drop = nn.Dropout(config.dropout)
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(block_of(config, rate, qkv_bias=False) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        init_truncated_normal(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the feature of each frame; a ConfigError where their size is not ``config.image_size``."""
        check_pixels("T2T-ViT", frames, self.config.image_size)
        tokens = self.tokens_to_token(frames)
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        x = run_blocks(self.blocks, self.pos_drop(x + self.pos_embed), first_only=True)
        return self.norm(x[:, 0])


class T2TFrames(FrameClassifier):
    """``t2t-frames``: a T2T-ViT on each frame, logits averaged over the frames; (b, c, t, h, w) → (b, k)."""

    architecture: ClassVar[str] = "t2t-frames"

    def __init__(self, config: T2TConfig) -> None:
        super().__init__(config, T2TViT(config), config.embed_dim)
