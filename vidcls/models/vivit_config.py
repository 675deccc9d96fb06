"""Sizes of the four ViViT models (Arnab et al. 2021); `vidcls.models.vivit` builds them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidcls.models.sizes import ACTIVATIONS, pair, triple

Grid = tuple[int, int, int]  # tubelets along (t, h, w)

# scenic's names: the class token's output, or the mean, maximum or sum over all tokens.
POOLS = ("token", "gap", "gmp", "gsp")


@dataclass(frozen=True)
class ViViTConfig:
    """What all four models have in common; the defaults are ViViT-B/16x2 on Kinetics-400.

    Attributes:
        image_size: Height and width of a view in pixels; an int stands for both.
        num_frames: Frames of a view.
        tubelet_size: Frames, height and width of one token's tubelet; tubelets do not overlap, and what does
            not fill a whole one at the end of an axis is not looked at.
        in_channels: Color channels.
        num_classes: Logits. The Epic Kitchens model has one head of 397: 300 nouns, then 97 verbs.
        embed_dim: Width d of a token.
        depth: Number of blocks (of the spatial encoder, where there are two).
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLP as a multiple of ``embed_dim``.
        pool: What the classifier sees: ``token``, ``gap``, ``gmp`` or ``gsp``.
        representation_size: Width of a linear layer with tanh before the classifier; None for no such layer.
        qkv_bias: Whether queries, keys and values have a bias.
        norm_eps: Epsilon of every LayerNorm.
        activation: A key of `vidcls.models.layers.ACTIVATIONS`.
        dropout: Rate after the position embedding, the attention's projection and in the MLP.
        attn_dropout: Rate on the attention weights.
    """

    pools: ClassVar[tuple[str, ...]] = POOLS

    image_size: int | tuple[int, int] = (224, 224)
    num_frames: int = 32
    tubelet_size: int | tuple[int, int, int] = (2, 16, 16)
    in_channels: int = 3
    num_classes: int = 400
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    pool: str = "token"
    representation_size: int | None = None
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    activation: str = "gelu_tanh"
    dropout: float = 0.0
    attn_dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "tubelet_size", triple(self.tubelet_size))
        if min(triple(self.tubelet_size)) < 1:
            raise ValueError(f"tubelet_size must be at least 1 in each direction, not {self.tubelet_size}")
        if min(self.grid_size) < 1:
            raise ValueError(
                f"a view of {self.num_frames} frames of {self.image_size} pixels holds no whole tubelet "
                f"of {self.tubelet_size}"
            )
        for name in ("in_channels", "num_classes", "embed_dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.pool not in self.pools:
            raise ValueError(f"pool must be one of {', '.join(self.pools)}, not {self.pool!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")

    @property
    def grid_size(self) -> Grid:
        """Tubelets along (t, h, w)."""
        (height, width), (t, h, w) = pair(self.image_size), triple(self.tubelet_size)
        return self.num_frames // t, height // h, width // w


@dataclass(frozen=True)
class SpaceTimeConfig(ViViTConfig):
    """Model 1.

    Attributes:
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 in the first.
    """

    drop_path_rate: float = 0.0


@dataclass(frozen=True)
class FactorizedEncoderConfig(ViViTConfig):
    """Model 2. ``depth``, ``num_heads`` and ``mlp_ratio`` are the spatial encoder's.

    Attributes:
        temporal_depth: Blocks of the temporal encoder; 0 averages over time instead (the paper's and scenic's
            spatial-only baseline).
        temporal_num_heads: Its heads; None for as many as in space.
        temporal_mlp_ratio: Its MLP's; None for the same as in space.
        drop_path_rate: As in Model 1, in each encoder over its own depth.
    """

    pools: ClassVar[tuple[str, ...]] = ("token", "gap")

    temporal_depth: int = 4
    temporal_num_heads: int | None = None
    temporal_mlp_ratio: float | None = None
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temporal_depth < 0:
            raise ValueError(f"temporal_depth must not be negative, but is {self.temporal_depth}")


@dataclass(frozen=True)
class FactorizedSelfConfig(ViViTConfig):
    """Model 3. There is no class token (section 3.3.3) and, as in scenic, no stochastic depth.

    Attributes:
        attention_order: ``space_time`` (figure 5 of the paper) or ``time_space``; no tensor tells which.
    """

    pools: ClassVar[tuple[str, ...]] = POOLS[1:]

    pool: str = "gap"
    attention_order: str = "space_time"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_order not in ("space_time", "time_space"):
            raise ValueError(
                f"attention_order must be space_time or time_space, not {self.attention_order!r}"
            )


@dataclass(frozen=True)
class FactorizedDotConfig(ViViTConfig):
    """Model 4. There is no class token, and ``num_heads`` is even.

    Attributes:
        drop_path_rate: As in Model 1.
    """

    pools: ClassVar[tuple[str, ...]] = POOLS[1:]

    pool: str = "gap"
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads % 2:
            raise ValueError(f"num_heads must be even, to be shared by time and space, not {self.num_heads}")
