"""ViViT: the four video vision transformers.

Arnab, Dehghani, Heigold, Sun, Lučić, Schmid: "ViViT: A Video Vision Transformer", ICCV 2021, section 3.3. The
details that decide parity follow the released code (google-research/scenic, ``scenic/projects/vivit/model.py``):
pre-norm blocks with LayerNorm epsilon 1e-6, the tanh approximation of GELU, and tokens ordered (t, h, w) with t
slowest. The classifier pools after the last LayerNorm.

======================== =================================== =========================================
`SpaceTimeViViT`         Model 1, spatio-temporal attention  every token attends to every token
`FactorizedEncoderViViT` Model 2, factorized encoder         a spatial encoder, then a temporal one
`FactorizedSelfViViT`    Model 3, factorized self-attention  space and time in turn in every block
`FactorizedDotViViT`     Model 4, factorized dot-product     half of the heads over time, half over space
======================== =================================== =========================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidcls.models.grids import resize_positions
from vidcls.models.layers import (
    Attention,
    Block,
    Classifier,
    Mlp,
    TubeletEmbedding,
    block_of,
    init_lecun_normal,
    linear_drop_path,
    run_blocks,
)
from vidcls.models.sizes import triple
from vidcls.models.vivit_config import (
    FactorizedDotConfig,
    FactorizedEncoderConfig,
    FactorizedSelfConfig,
    SpaceTimeConfig,
    ViViTConfig,
)

Grid = tuple[int, int, int]  # tokens along (t, h, w)

# Name of a position embedding → its grids before and after a change of size.
PositionGrids = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def make_block(
    config: Any, drop_path: float, num_heads: int | None = None, mlp_ratio: float | None = None
) -> Block:
    """Make a pre-norm block; stochastic depth drops without rescaling what it keeps, as scenic does."""
    return block_of(config, drop_path, num_heads=num_heads, mlp_ratio=mlp_ratio, rescale_drop_path=False)


class FactorizedSelfBlock(nn.Module):
    """Model 3's block: attention over space and over time in turn, then the MLP; (b, t, s, d) → (b, t, s, d).

    Each of the three has its own LayerNorm and residual connection. Equations 4 to 6 of the paper.
    """

    def __init__(self, config: FactorizedSelfConfig) -> None:
        super().__init__()
        self.order = config.attention_order.split("_")
        dim, eps = config.embed_dim, config.norm_eps
        sizes = (dim, config.num_heads, config.qkv_bias, config.dropout, config.attn_dropout)
        self.norm_space = nn.LayerNorm(dim, eps=eps)
        self.attn_space = Attention(*sizes)
        self.norm_time = nn.LayerNorm(dim, eps=eps)
        self.attn_time = Attention(*sizes)
        self.norm_mlp = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, round(dim * config.mlp_ratio), config.activation, config.dropout)

    def over_space(self, x: Tensor) -> Tensor:
        """Tokens of one time step attend to one another."""
        attended: Tensor = self.attn_space(self.norm_space(x).flatten(0, 1))
        return attended.reshape(x.shape)

    def over_time(self, x: Tensor) -> Tensor:
        """Tokens of one place attend to one another."""
        columns = self.norm_time(x).transpose(1, 2)  # (b, s, t, d)
        attended: Tensor = self.attn_time(columns.flatten(0, 1))
        return attended.reshape(columns.shape).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        for axis in self.order:
            x = x + (self.over_space(x) if axis == "space" else self.over_time(x))
        return x + self.mlp(self.norm_mlp(x))


class FactorizedDotAttention(Attention):
    """Model 4's attention: the first half of the heads over time, the second over space; (b, t, s, d) → same.

    The parameters are those of ordinary attention (section 3.3.4); the order of the halves is scenic's.
    """

    def forward(self, x: Tensor) -> Tensor:
        halves = [part.chunk(2, dim=2) for part in self.split_heads(x)]  # two of (b, t, heads/2, s, hd) each
        over_time = self.along_rows([half.transpose(1, 3) for half, _ in halves]).transpose(1, 3)
        over_space = self.along_rows([half for _, half in halves])
        return self.merge_heads(torch.cat([over_time, over_space], dim=2))

    def along_rows(self, qkv: list[Tensor]) -> Tensor:
        """Attend over the next to last axis of queries, keys and values (b, m, heads, n, hd)."""
        # Folded to four axes, for which torch has fused kernels.
        attended = self.attend(*(part.flatten(0, 1) for part in qkv))
        return attended.reshape(qkv[0].shape)


class Encoder(nn.Module):
    """Position embedding, blocks, LayerNorm and pooling: (b, ..., d) → (b, d).

    Positions are learned for one flat sequence; blocks that need the axes of time and space get them unflattened.

    Args:
        num_tokens: Tokens of the sequence, the class token not counted.
        config: Gives the width, the pooling (``token`` puts a class token in front) and the dropout.
        blocks: What the tokens go through.
    """

    def __init__(self, num_tokens: int, config: ViViTConfig, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.pool = config.pool
        self.num_tokens = num_tokens
        has_token = config.pool == "token"
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim)) if has_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens + has_token, config.embed_dim))
        self.pos_drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)

    def encode(self, tokens: Tensor, first_only: bool = False) -> Tensor:
        """Tokens (b, ..., d) → all of them after the last LayerNorm, the class token in front if there is one.

        With ``first_only`` the others may be missing, as in `run_blocks`.
        """
        if self.cls_token is None:
            tokens = tokens + self.pos_embed.reshape(1, *tokens.shape[1:])
        else:
            tokens = (
                torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
            )
        x = run_blocks(self.blocks, self.pos_drop(tokens), first_only)
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        count = math.prod(tokens.shape[1:-1])
        if count != self.num_tokens:
            raise ValueError(f"views of {count} tubelets, but there are positions for {self.num_tokens}")
        x = self.encode(tokens, self.pool == "token").flatten(1, -2)
        if self.pool == "token":
            return x[:, 0]
        if self.pool == "gap":
            return x.mean(dim=1)
        return x.amax(dim=1) if self.pool == "gmp" else x.sum(dim=1)


class ViViT(Classifier):
    """What the four models share: the input's check, the classifier and the initialization."""

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__(config)
        dim = config.embed_dim
        self.patch_embed = TubeletEmbedding(triple(config.tubelet_size), config.in_channels, dim)
        # The layers between pooling and classifier; a plain name for both cases keeps checkpoints alike.
        self.pre_logits: nn.Module = nn.Identity()
        if config.representation_size:
            self.pre_logits = nn.Sequential(nn.Linear(dim, config.representation_size), nn.Tanh())
        self.head = nn.Linear(config.representation_size or dim, config.num_classes)

    def features(self, views: Tensor) -> Tensor:
        """Views (b, c, t, h, w) → what the classifier sees, (b, d)."""
        raise NotImplementedError

    def forward(self, views: Tensor) -> Tensor:
        """Views (b, c, t, h, w) → logits (b, k).

        Raises:
            ValueError: The views hold more or fewer tubelets than there are position embeddings.
        """
        return self.classify_features(self.features(views))

    def classify_features(self, features: Tensor) -> Tensor:
        """Pooled features (b, d) → logits (b, k)."""
        return self.head(self.pre_logits(features))

    def embed(self, views: Tensor) -> Tensor:
        """Views (b, c, t, h, w) → tokens (b, t', h'·w', d)."""
        return self.patch_embed(views)

    def reset_head(self, num_classes: int) -> None:
        """Put a classifier of other classes in place, zero as at the start of training."""
        old = self.head.weight
        self.head = nn.Linear(self.head.in_features, num_classes, device=old.device, dtype=old.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.count_classes(num_classes)

    def initialize(self) -> None:
        """Draw scenic's initial weights; the classifier starts at zero, as published."""
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                for weight in module.qkv.weight.chunk(3):  # each of the three has its own fan-out
                    nn.init.xavier_uniform_(weight)
                nn.init.xavier_uniform_(module.proj.weight)
                for bias in (module.qkv.bias, module.proj.bias):
                    if bias is not None:
                        nn.init.zeros_(bias)
            elif isinstance(module, Mlp):
                for layer in (module.fc1, module.fc2):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.normal_(layer.bias, std=1e-6)
            elif isinstance(module, Encoder):
                nn.init.normal_(module.pos_embed, std=0.02)
            elif name == "pre_logits.0" and isinstance(module, nn.Linear):
                init_lecun_normal(module.weight)
                nn.init.zeros_(module.bias)
        init_lecun_normal(self.patch_embed.proj.weight)
        if self.patch_embed.proj.bias is not None:
            nn.init.zeros_(self.patch_embed.proj.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def resize_state(
        cls, state: Mapping[str, Tensor], old: ViViTConfig, new: ViViTConfig
    ) -> dict[str, Tensor]:
        """Fit the position embeddings of a state to views of another size.

        Embeddings are interpolated linearly along each axis of (t, h, w) whose number of tubelets changes,
        corners aligned, as scenic's ``resize`` does; the class token's row is kept. A copied model without
        further training loses accuracy by it.

        Args:
            state: Our names → tensors, for ``old``.
            old: What the state was made for.
            new: What it shall fit; other than by its grid it must not differ from ``old``.

        Returns:
            The state for ``new``.
        """
        resized = dict(state)
        for name, (source, target) in cls.position_grids(old, new).items():
            if name in state and source != target:
                resized[name] = resize_positions(state[name], source, target)
        return resized

    @classmethod
    def position_grids(cls, old: ViViTConfig, new: ViViTConfig) -> PositionGrids:
        """Name of each position embedding → its grid in both configurations."""
        raise NotImplementedError


class OneEncoderViViT(ViViT):
    """What Models 1, 3 and 4 share: all t'·h'·w' tokens go through one encoder.

    Attributes:
        factorized: Whether the blocks see tokens as (b, t', h'·w', d), or as one sequence.
    """

    factorized: ClassVar[bool] = True

    def __init__(self, config: ViViTConfig, blocks: Iterable[nn.Module]) -> None:
        super().__init__(config)
        self.encoder = Encoder(math.prod(config.grid_size), config, blocks)
        self.initialize()

    def features(self, views: Tensor) -> Tensor:
        tokens = self.embed(views)
        return self.encoder(tokens if self.factorized else tokens.flatten(1, 2))

    @classmethod
    def position_grids(cls, old: ViViTConfig, new: ViViTConfig) -> PositionGrids:
        return {"encoder.pos_embed": (old.grid_size, new.grid_size)}


class SpaceTimeViViT(OneEncoderViViT):
    """Model 1 (section 3.3.1), spatio-temporal attention: every token attends to every token."""

    architecture: ClassVar[str] = "vivit-st"
    factorized: ClassVar[bool] = False

    def __init__(self, config: SpaceTimeConfig) -> None:
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        super().__init__(config, [make_block(config, rate) for rate in rates])


class FactorizedEncoderViViT(ViViT):
    """Model 2 (section 3.3.2): each time step through a spatial encoder, their features through a temporal one."""

    architecture: ClassVar[str] = "vivit-fe"

    def __init__(self, config: FactorizedEncoderConfig) -> None:
        super().__init__(config)
        steps, height, width = config.grid_size
        rates = linear_drop_path(config.drop_path_rate, config.depth)
        self.spatial = Encoder(height * width, config, [make_block(config, rate) for rate in rates])
        self.temporal: Encoder | None = None
        if config.temporal_depth:
            sizes = config.temporal_num_heads, config.temporal_mlp_ratio
            rates = linear_drop_path(config.drop_path_rate, config.temporal_depth)
            self.temporal = Encoder(steps, config, [make_block(config, rate, *sizes) for rate in rates])
        self.initialize()

    def encode_frames(self, views: Tensor) -> Tensor:
        """Views (b, c, t, h, w) → one feature per time step, (b, t', d); steps do not see one another."""
        tokens = self.embed(views)
        features: Tensor = self.spatial(tokens.flatten(0, 1))
        return features.reshape(tokens.shape[0], tokens.shape[1], -1)

    def pool_time(self, features: Tensor) -> Tensor:
        """Features of time steps (b, t', d) → (b, d)."""
        if self.temporal is None:
            return features.mean(dim=1)
        return self.temporal(features)

    def classify(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        """Features of time steps (b, t', d) → logits (b, k).

        Args:
            features: What `encode_frames` returned.
            frame_indices: Taken so that all factorized models are called alike; ViViT counts time steps.
        """
        return self.classify_features(self.pool_time(features))

    def features(self, views: Tensor) -> Tensor:
        return self.pool_time(self.encode_frames(views))

    @classmethod
    def position_grids(cls, old: ViViTConfig, new: ViViTConfig) -> PositionGrids:
        return {
            "spatial.pos_embed": (old.grid_size[1:], new.grid_size[1:]),
            "temporal.pos_embed": (old.grid_size[:1], new.grid_size[:1]),
        }


class FactorizedSelfViViT(OneEncoderViViT):
    """Model 3 (section 3.3.3): every block attends over space and over time, one after the other."""

    architecture: ClassVar[str] = "vivit-fsa"

    def __init__(self, config: FactorizedSelfConfig) -> None:
        super().__init__(config, [FactorizedSelfBlock(config) for _ in range(config.depth)])


class FactorizedDotViViT(OneEncoderViViT):
    """Model 4 (section 3.3.4): in every block, half of the heads attend over time and half over space."""

    architecture: ClassVar[str] = "vivit-fdp"

    def __init__(self, config: FactorizedDotConfig) -> None:
        blocks = [make_block(config, rate) for rate in linear_drop_path(config.drop_path_rate, config.depth)]
        for block in blocks:
            block.attn = FactorizedDotAttention(
                config.embed_dim, config.num_heads, config.qkv_bias, config.dropout, config.attn_dropout
            )
        super().__init__(config, blocks)
