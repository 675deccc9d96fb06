"""Sizes of an attentive probe; `vidcls.models.attentive` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vidcls.models.sizes import ACTIVATIONS, pair
from vidcls.models.transformer_config import check_one_of


@dataclass(frozen=True)
class AttentiveConfig:
    """Shape of an attentive classifier on the tokens of another model.

    Attributes:
        backbone_architecture: The other model's architecture.
        backbone: Its configuration, but for the fields that follow.
        image_size: Height and width of a view in pixels; None for the backbone's.
        num_frames: Frames of a view; None for the backbone's.
        num_classes: Length of the logits.
        embed_dim: Width d of the backbone's last tokens.
        num_heads: Attention heads of the pooler.
        pooler_depth: Self-attention blocks of the pooler, before its cross-attention.
        pooler_num_heads: None; the pooler's heads are ``num_heads``.
        pooler_mlp_ratio: Width inside the pooler's MLPs ÷ ``embed_dim``.
        pooler_norm_eps: None; the pooler's LayerNorms have ``norm_eps``.
        activation: Of the pooler's MLPs, a key of `vidcls.models.layers.ACTIVATIONS`.
        norm_eps: Epsilon of the pooler's LayerNorms.
        attn_dropout: Of the pooler's attention weights.
    """

    backbone_architecture: str = "vivit-fe"
    backbone: dict[str, Any] = field(default_factory=dict)
    image_size: int | tuple[int, int] | None = None
    num_frames: int | None = None
    num_classes: int = 400
    embed_dim: int = 768
    num_heads: int = 12
    pooler_depth: int = 0
    pooler_num_heads: int | None = None
    pooler_mlp_ratio: float = 4.0
    pooler_norm_eps: float | None = None
    activation: str = "gelu"
    norm_eps: float = 1e-5
    attn_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.backbone_architecture == "attentive":
            raise ValueError("an attentive probe cannot have another one as its backbone")
        check_one_of("activation", self.activation, ACTIVATIONS)
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} cannot be split into {self.num_heads} heads")
        inner = self.inner()
        object.__setattr__(self, "image_size", pair(inner.image_size))
        object.__setattr__(self, "num_frames", getattr(inner, "num_frames", self.num_frames))

    def inner(self) -> Any:
        """The backbone's configuration, a dataclass."""
        from vidcls.models import CONFIGS, config_keys

        if self.backbone_architecture not in CONFIGS:
            raise ValueError(f"no such architecture: {self.backbone_architecture!r}")
        sizes = {"image_size": self.image_size, "num_frames": self.num_frames}
        keys = config_keys(self.backbone_architecture)
        given = {key: size for key, size in sizes.items() if size is not None and key in keys}
        return CONFIGS[self.backbone_architecture](**{**self.backbone, **given})
