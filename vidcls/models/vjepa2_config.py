"""Sizes of V-JEPA 2's classifiers (Assran et al. 2025); `vidcls.models.vjepa2` builds them."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.models.sizes import ACTIVATIONS, pair, triple


@dataclass(frozen=True)
class VJEPA2Config:
    """Shape of a V-JEPA 2 encoder with its attentive classifier; the defaults are ViT-L on Something-Something V2.

    Attributes:
        image_size: Height and width of a view in pixels; one number stands for both.
        num_frames: Frames of the views that the model is meant for, all clips together. It takes any number.
        clips_per_view: Clips that a view consists of, one after the other: each is encoded by itself, and the pooler
            sees the tokens of all. The published figures are measured so.
        out_layers: Numbers of the encoder's blocks, from 0, whose normed tokens the pooler sees together; empty for the
            last block's. The authors' probes of Diving48 see four.
        tubelet_size: Frames, height and width of one token's tubelet.
        in_channels: Color channels.
        num_classes: Length of the logits.
        embed_dim: Width d of a token.
        depth: Number of the encoder's blocks.
        num_heads: Attention heads of each block.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``.
        qkv_bias: Whether the encoder's queries, keys and values have biases.
        activation: ``gelu`` or another key of `vidcls.models.layers.ACTIVATIONS`.
        norm_eps: Epsilon of the encoder's LayerNorms.
        pooler_depth: Self-attention blocks of the pooler, before its cross-attention.
        pooler_num_heads: Its heads; None for the encoder's, as transformers has them. The authors' probes have 16.
        pooler_mlp_ratio: Width inside its MLPs ÷ ``embed_dim``; 4 in all published models, whatever the encoder's.
        pooler_norm_eps: Epsilon of its LayerNorms; None for the encoder's. The authors' probes have 1e-5.
        attn_dropout: Of the attention weights.
        drop_path_rate: Stochastic depth of the encoder's last block; grows linearly from 0 at the first.
    """

    image_size: int | tuple[int, int] = (256, 256)
    num_frames: int = 16
    tubelet_size: int | tuple[int, int, int] = (2, 16, 16)
    in_channels: int = 3
    num_classes: int = 174
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation: str = "gelu"
    norm_eps: float = 1e-6
    pooler_depth: int = 3
    pooler_num_heads: int | None = None
    pooler_mlp_ratio: float = 4.0
    pooler_norm_eps: float | None = None
    attn_dropout: float = 0.0
    drop_path_rate: float = 0.0
    clips_per_view: int = 1
    out_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "out_layers", tuple(self.out_layers))
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "tubelet_size", triple(self.tubelet_size))
        if min(*triple(self.tubelet_size), *self.grid) < 1:
            raise ValueError(f"{self.image_size} pixels hold no whole tubelet of {self.tubelet_size}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")

        if self.clips_per_view < 1 or self.num_frames % self.clips_per_view:
            raise ValueError(f"{self.num_frames} frames are not {self.clips_per_view} clips of equal length")
        if any(not 0 <= layer < self.depth for layer in self.out_layers):
            raise ValueError(f"out_layers {self.out_layers} are not among the {self.depth} blocks")

    @property
    def grid(self) -> tuple[int, int]:
        """Tubelets along height and width."""
        (height, width), (_, h, w) = pair(self.image_size), triple(self.tubelet_size)
        return height // h, width // w
