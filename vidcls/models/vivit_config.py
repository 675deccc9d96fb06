"""Sizes of the four ViViT models (Arnab et al. 2021); `vidcls.models.vivit` builds them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidcls.models.transformer_config import TubeletConfig, check_one_of

# scenic's names: the class token's output, or the mean, maximum or sum over all tokens.
POOLS = ("token", "gap", "gmp", "gsp")


@dataclass(frozen=True)
class ViViTConfig(TubeletConfig):
    """What all four models have in common; the defaults are ViViT-B/16x2 on Kinetics-400.

    Attributes:
        num_classes: Logits. The Epic Kitchens model has one head of 397: 300 nouns, then 97 verbs.
        depth: Number of blocks (of the spatial encoder, where there are two).
        pool: What the classifier sees: ``token``, ``gap``, ``gmp`` or ``gsp``.
        representation_size: Width of a linear layer with tanh before the classifier; None for no such layer.
        qkv_bias: Whether queries, keys and values have a bias.
        dropout: Rate after the position embedding, the attention's projection and in the MLP.
    """

    pools: ClassVar[tuple[str, ...]] = POOLS

    num_frames: int = 32
    pool: str = "token"
    representation_size: int | None = None
    qkv_bias: bool = True
    activation: str = "gelu_tanh"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("in_channels", "num_classes", "embed_dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        check_one_of("pool", self.pool, self.pools)


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
        check_one_of("attention_order", self.attention_order, ("space_time", "time_space"))


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
