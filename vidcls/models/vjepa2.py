"""V-JEPA 2's classifier: a ViT with rotary positions in three axes, and an attentive pooler.

Assran et al. 2025, "V-JEPA 2: Self-Supervised Video Models Enable Understanding, Prediction and Planning" (arXiv
2506.09985), sections 2 and 5; facebookresearch/vjepa2, ``src/models/vision_transformer.py`` and
``attentive_pooler.py``. The encoder has no class token and adds no positions: queries and keys of every block are
rotated by the token's place in time, height and width. The pooler lets the tokens attend to one another once more, and
then one learned query to them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.attentive_config import AttentiveConfig
from vidcls.models.layers import (
    Attention,
    Block,
    Classifier,
    Mlp,
    TubeletEmbedding,
    block_of,
    check_pixels,
    init_truncated_normal,
    linear_drop_path,
)
from vidcls.models.sizes import triple
from vidcls.models.vjepa2_config import VJEPA2Config

Rotation = tuple[Tensor, Tensor]  # cosines and sines, (n, 3 s) each


def rotation(steps: int, grid: tuple[int, int], head_dim: int, like: Tensor) -> Rotation:
    """Cosines and sines for tokens of ``steps`` × ``grid``, time slowest.

    A head's channels are cut into three segments of s = 2⌊⌊hd/3⌋/2⌋, for time, row and column; the rest is not
    rotated. Channel j of a segment turns by p · 10000^(-f / (s/2)) with f = j mod (s/2): the angles are laid side by
    side twice, while `rotate` pairs neighboring channels, so that the two of a pair turn by different angles. That is a
    slip of the published code, and the weights were trained with it.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    half = head_dim // 3 // 2
    rate = 10000.0 ** -(torch.arange(half, dtype=dtype, device=like.device) / half)
    places = (
        torch.arange(count, dtype=dtype, device=like.device).view([-1 if axis == i else 1 for i in range(3)])
        for axis, count in enumerate((steps, *grid))
    )
    angles = [(place.expand(steps, *grid).reshape(-1, 1) * rate).repeat(1, 2) for place in places]
    angle = torch.cat(angles, dim=-1)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Rotate the first 3 s channels of queries or keys (b, heads, n, hd), two neighbors at a time."""
    cos, sin = turn
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    even, odd = torch.unflatten(turned, -1, (-1, 2)).unbind(-1)
    quarter = torch.stack((-odd, even), dim=-1).flatten(-2)
    return torch.cat([turned * cos + quarter * sin, rest], dim=-1)


class RotaryAttention(Attention):
    """Self-attention whose queries and keys are rotated; (b, n, d) → (b, n, d)."""

    def forward(self, x: Tensor, turn: Rotation) -> Tensor:  # type: ignore[override]  # positions come along
        q, k, v = self.split_heads(x)
        return self.merge_heads(self.attend(rotate(q, turn), rotate(k, turn), v))


class RotaryBlock(Block):
    """Pre-norm block with rotary positions; (b, n, d) → (b, n, d)."""

    def __init__(self, config: VJEPA2Config, drop_path: float) -> None:
        dim, heads, rate = config.embed_dim, config.num_heads, config.attn_dropout
        act, eps = config.activation, config.norm_eps
        super().__init__(dim, heads, config.mlp_ratio, activation=act, norm_eps=eps, drop_path=drop_path)
        self.attn = RotaryAttention(dim, heads, config.qkv_bias, attn_dropout=rate)

    def forward(self, x: Tensor, turn: Rotation) -> Tensor:  # type: ignore[override]  # positions come along
        x = x + self.drop_path(self.attn(self.norm1(x), turn))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossAttention(nn.Module):
    """Queries (1, m, d) attend to tokens (b, n, d) → (b, m, d), without a projection of the outcome."""

    def __init__(self, dim: int, num_heads: int, attn_dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_dropout
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        q = torch.unflatten(self.q(query), -1, (self.num_heads, -1)).transpose(1, 2)  # (1, heads, m, hd)
        q = q.expand(x.shape[0], -1, -1, -1)
        k, v = torch.unflatten(self.kv(x), -1, (2, self.num_heads, -1)).unbind(-3)  # (b, n, heads, hd) each
        rate = self.attn_drop if self.training else 0.0
        attended = nn.functional.scaled_dot_product_attention(
            q, k.transpose(1, 2), v.transpose(1, 2), dropout_p=rate
        )
        return attended.transpose(1, 2).flatten(2)


class AttentivePooler(nn.Module):
    """Self-attention blocks, then one learned query that is not normed; tokens (b, n, d) → (b, d)."""

    def __init__(self, config: VJEPA2Config | AttentiveConfig) -> None:
        super().__init__()
        dim, ratio = config.embed_dim, config.pooler_mlp_ratio
        heads = config.pooler_num_heads or config.num_heads
        eps = config.norm_eps if config.pooler_norm_eps is None else config.pooler_norm_eps
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        sizes = {"num_heads": heads, "mlp_ratio": ratio, "norm_eps": eps, "qkv_bias": True}
        self.blocks = nn.ModuleList(block_of(config, **sizes) for _ in range(config.pooler_depth))
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = CrossAttention(dim, heads, config.attn_dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * ratio), config.activation)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        y = self.query + self.attn(self.query, self.norm1(x))
        return (y + self.mlp(self.norm2(y)))[:, 0]


class VJEPA2(Classifier):
    """``vjepa2``: views (b, c, t, h, w) → logits (b, k)."""

    architecture: ClassVar[str] = "vjepa2"

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config)
        dim = config.embed_dim
        self.patch_embed = TubeletEmbedding(triple(config.tubelet_size), config.in_channels, dim)
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        self.blocks = nn.ModuleList(RotaryBlock(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.pooler = AttentivePooler(config)
        self.head = nn.Linear(dim, config.num_classes)
        init_truncated_normal(self)
        nn.init.trunc_normal_(self.pooler.query, std=0.02)

    def encode(self, views: Tensor) -> Tensor:
        """The encoder's tokens, (b, c, t, h, w) → (b, n, d), clip by clip, time slowest; n is for what the pooler sees.

        Frames that fill no tubelet are not looked at; fewer than one tubelet's are repeated as often as it has frames.

        Raises:
            ConfigError: The views' height and width are not the configuration's, or its clips are not of equal length.
        """
        check_pixels("V-JEPA 2", views, self.config.image_size)
        clips, frames = self.config.clips_per_view, views.shape[2]
        if frames % clips:
            problem = f"got views of {frames} frames, which are not {clips} clips of equal length"
            raise ConfigError("V-JEPA 2", problem, "give num_frames= a multiple of clips_per_view")
        if clips == 1:
            return self.encode_clips(views)
        apart = torch.unflatten(views, 2, (clips, frames // clips)).transpose(1, 2).flatten(0, 1)
        return torch.unflatten(self.encode_clips(apart), 0, (-1, clips)).flatten(1, 2)

    def encode_clips(self, clips: Tensor) -> Tensor:
        """The tokens of single clips, (b, c, t, h, w) → (b, n, d): those of the last block, or of ``out_layers``."""
        tubelet = triple(self.config.tubelet_size)[0]
        if clips.shape[2] < tubelet:
            clips = clips.repeat(1, 1, tubelet, 1, 1)
        tokens = self.patch_embed(clips)  # (b, t', s, d)
        head_dim = self.config.embed_dim // self.config.num_heads
        turn = rotation(tokens.shape[1], self.config.grid_size[1:], head_dim, tokens)
        wanted = self.config.out_layers or (len(self.blocks) - 1,)
        x: Tensor = tokens.flatten(1, 2)
        seen = []
        for number, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x, turn)
            if number in wanted:
                seen.append(self.norm(x))
        return seen[0] if len(seen) == 1 else torch.cat(seen, dim=1)

    def forward_features(self, views: Tensor) -> Tensor:
        """What the classifier sees, (b, c, t, h, w) → (b, d)."""
        return self.pooler(self.encode(views))

    def forward(self, views: Tensor) -> Tensor:
        """Map views (b, c, t, h, w) to logits (b, k)."""
        return self.head(self.forward_features(views))
