"""Longformer's encoder with one global token, at a cost that grows linearly with the sequence.

Beltagy, Peters and Cohan 2020, "Longformer", sections 3.1 and 3.2, as VTN uses it: token 0 is the class token
and global; the others are frames and see a sliding window of frames and the class token.

Nothing here is ever n × n. Frames are cut into blocks, and each block is multiplied with the keys that any of
its frames can see: the block itself and half a window on either side. What a frame must not see of them is
masked, and the class token's key stands as one more column in the same softmax. No padding is visible outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidcls.errors import ConfigError
from vidcls.models.layers import Mlp, init_truncated_normal
from vidcls.models.vtn_config import layer_windows

# Queries per block. On CPUs 16 to 48 are equally fast for a window of 18 at any length: below, the matrix
# products are too small to be worth their call; above, too much of each is masked away.
BLOCK = 32

# Frames that a layer works on at once. Only the class token needs all of them together, so the rest of a layer may go
# piece by piece: what is held besides a layer's input and output is then the same for a minute and for an hour, and
# stays in the cache. Clips are shorter than this and go in one piece.
SEGMENT = 1024


def band_mask(num_frames: int, half_window: int, block: int, device: torch.device) -> Tensor:
    """Which key of a block's neighborhood each query of the block may see.

    Key m of block i is frame ``i * block + m - half_window``.

    Returns:
        (blocks, block, block + 2 * half_window), True where the distance is at most ``half_window`` and the key
        is a frame that exists.
    """
    blocks = -(-num_frames // block)
    query = torch.arange(block, device=device)[:, None]
    key = torch.arange(block + 2 * half_window, device=device)
    near = (key >= query) & (key <= query + 2 * half_window)
    frame = torch.arange(blocks, device=device)[:, None] * block + key - half_window
    exists = (frame >= 0) & (frame < num_frames)
    return near & exists[:, None]


class LongformerAttention(nn.Module):
    """Sliding-window attention of frames, and global attention of the class token; (b, 1 + t, d) → the same.

    Frames see, in one softmax, the frames at most ``window // 2`` away and the class token, all through the
    local projections ``qkv``. The class token sees all tokens through projections of its own, ``qkv_global``.

    Args:
        dim: Width d of a token.
        num_heads: Attention heads.
        window: Frames in a window, both sides together; the frame itself comes on top.
        dropout: Of the output.
        attn_dropout: Of the attention weights.
    """

    def __init__(
        self, dim: int, num_heads: int, window: int, dropout: float = 0.0, attn_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.half_window = window // 2
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qkv_global = nn.Linear(dim, 3 * dim)
        self.attn_drop = nn.Dropout(attn_dropout)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def attend_global(self, x: Tensor) -> Tensor:
        """Attention of the class token over all tokens, (b, n, d) → (b, 1, d).

        There is one query, so keys and values need not be made for every token:
        q·(W_k x + b_k) = (q W_k)·x + q·b_k, and Σ aⱼ (W_v xⱼ + b_v) = W_v (Σ aⱼ xⱼ) + b_v Σ aⱼ.
        That takes two of fourteen d × d products per token away and changes no result but by rounding.
        """
        batch, _, dim = x.shape
        heads, width = self.num_heads, dim // self.num_heads
        w_q, w_k, w_v = self.qkv_global.weight.view(3, dim, dim)
        b_q, b_k, b_v = self.qkv_global.bias.view(3, dim)
        q = (F.linear(x[:, 0], w_q, b_q) * self.scale).view(batch, heads, width)
        key_query = torch.einsum("bhc,hcd->bhd", q, w_k.view(heads, width, dim))
        scores = key_query @ x.transpose(1, 2) + (q * b_k.view(heads, width)).sum(-1, keepdim=True)
        attn = self.attn_drop(scores.softmax(-1))  # (b, heads, n)
        mixed = torch.einsum("bhd,hcd->bhc", attn @ x, w_v.view(heads, width, dim))
        mixed = mixed + attn.sum(-1, keepdim=True) * b_v.view(heads, width)
        return self.merge_heads(mixed.reshape(batch, 1, dim))

    def attend_local(self, x: Tensor) -> Tensor:
        """Attention of the frames over their windows and the class token, (b, 1 + t, d) → (b, t, d)."""
        num_frames = x.shape[1] - 1
        half = min(self.half_window, num_frames - 1)
        block = min(max(BLOCK, half), num_frames)
        mask = band_mask(num_frames, half, block, x.device)  # (blocks, block, keys)
        fill = mask.shape[0] * block - num_frames

        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (b, heads, 1 + t, hd)
        cls_k, cls_v = k[:, :, None, :1], v[:, :, None, :1]  # (b, heads, 1, 1, hd)
        q = F.pad(q[:, :, 1:] * self.scale, (0, 0, 0, fill))
        q = q.reshape(*q.shape[:2], -1, block, q.shape[-1])
        k = F.pad(k[:, :, 1:], (0, 0, half, half + fill)).unfold(2, mask.shape[-1], block)
        v = F.pad(v[:, :, 1:], (0, 0, half, half + fill)).unfold(2, mask.shape[-1], block)

        scores = (q @ k).masked_fill(~mask, -math.inf)  # k, v: (b, heads, blocks, hd, keys)
        scores = torch.cat([q @ cls_k.transpose(-1, -2), scores], dim=-1)
        attn = self.attn_drop(scores.softmax(-1))
        mixed = attn[..., :1] * cls_v + attn[..., 1:] @ v.transpose(-1, -2)
        return self.merge_heads(mixed.flatten(2, 3)[:, :, :num_frames].transpose(1, 2).flatten(2))

    def merge_heads(self, mixed: Tensor) -> Tensor:
        """Project what the heads have found, (b, n, d) → (b, n, d)."""
        return self.proj_drop(self.proj(mixed))


class LongformerLayer(nn.Module):
    """Attention and a feed-forward network, each normalized after its residual sum as in BERT."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        window: int,
        norm_eps: float,
        dropout: float,
        attn_dropout: float,
    ) -> None:
        super().__init__()
        self.attn = LongformerAttention(dim, num_heads, window, dropout, attn_dropout)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_dim)
        self.drop = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor, cls_only: bool = False) -> Tensor:
        """Map (b, 1 + t, d) to the same, or to the class token's (b, 1, d) with ``cls_only``."""
        cls = self.finish(x[:, :1], self.attn.attend_global(x))
        if cls_only:
            return cls
        num_frames, half = x.shape[1] - 1, self.attn.half_window
        parts = [cls]
        for start in range(0, num_frames, SEGMENT):
            stop = min(start + SEGMENT, num_frames)
            # Half a window more on either side is all that the segment's frames see besides the class token.
            first, last = max(0, start - half), min(stop + half, num_frames)
            seen = torch.cat([x[:, :1], x[:, 1 + first : 1 + last]], dim=1)
            mixed = self.attn.attend_local(seen)[:, start - first : stop - first]
            parts.append(self.finish(x[:, 1 + start : 1 + stop], mixed))
        return torch.cat(parts, dim=1)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """All that follows attention and looks at each token alone, (b, n, d) → (b, n, d)."""
        x = self.norm1(x + mixed)
        return self.norm2(x + self.drop(self.mlp(x)))


class Longformer(nn.Module):
    """Position and type embeddings and a stack of layers, as ``LongformerModel`` of HF without words or pooler.

    Args:
        dim: Width d of a token.
        depth: Number of layers.
        num_heads: Attention heads of each layer.
        mlp_dim: Width inside the feed-forward networks.
        attention_window: Frames in a window, both sides together: one even number, or one for each layer.
        max_positions: Rows of the position table. The last two are kept for the class token and for padding,
            so frame indices wrap at ``max_positions - 2``.
        dropout: After the embeddings, the attention and the feed-forward network.
        attn_dropout: Of the attention weights.
        norm_eps: Added to the variance in each LayerNorm.

    Raises:
        ConfigError: A window is odd or not positive, their number is not ``depth``, ``num_heads`` does not divide
            ``dim``, or ``max_positions`` leaves no row for a frame.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        attention_window: int | Sequence[int],
        max_positions: int,
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ConfigError(
                "temporal_num_heads", f"{dim} channels cannot be split into {num_heads} heads", "change it"
            )
        if max_positions < 3:
            raise ConfigError("max_positions", f"is {max_positions}", "give at least 3")
        self.max_positions = max_positions
        self.position_embed = nn.Embedding(max_positions, dim)
        self.type_embed = nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            LongformerLayer(dim, num_heads, mlp_dim, window, norm_eps, dropout, attn_dropout)
            for window in layer_windows(attention_window, depth)
        )
        self._init_weights()

    def _init_weights(self) -> None:
        init_truncated_normal(self)
        nn.init.trunc_normal_(self.position_embed.weight, std=0.02)
        nn.init.trunc_normal_(self.type_embed.weight, std=0.02)
        for attn in self.modules():
            if isinstance(attn, LongformerAttention):
                # Section 3.2: the global projections begin as copies of the local ones.
                attn.qkv_global.load_state_dict(attn.qkv.state_dict())

    def forward(self, tokens: Tensor, frame_indices: Tensor, cls_only: bool = False) -> Tensor:
        """Encode a sequence.

        Args:
            tokens: (b, 1 + t, d), the class token first.
            frame_indices: (b, t) int64, each frame's index in its video; wraps at ``max_positions - 2``.
            cls_only: Return the class token's row alone, which spares the last layer's work on frames.

        Returns:
            (b, 1 + t, d), or (b, 1, d).
        """
        cls_position = self.max_positions - 2
        # The numbers are not negative, and of remainders OpenVINO converts this one.
        positions = F.pad(torch.fmod(frame_indices, cls_position), (1, 0), value=cls_position)
        # Type 0 are frames and type 1 the class token: added to the table, not once more to every token.
        rows, kinds = self.position_embed.weight, self.type_embed.weight
        table = torch.cat([rows[:cls_position] + kinds[0], rows[cls_position:] + kinds[1]])
        x: Tensor = self.drop(self.norm(tokens + F.embedding(positions, table)))
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, cls_only and number == last)
        return x[:, :1] if cls_only else x
