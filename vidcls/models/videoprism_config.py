"""Sizes of VideoPrism's classifier (Zhao et al. 2024); `vidcls.models.videoprism` builds it."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.models.sizes import ACTIVATIONS, pair, triple


@dataclass(frozen=True)
class VideoPrismConfig:
    """Shape of a VideoPrism; the defaults are VideoPrism-B with 16 frames of 288 pixels.

    Attributes:
        image_size: Height and width of a view in pixels; one number stands for both.
        num_frames: Frames of a view.
        tubelet_size: Frames, height and width of one token's tubelet.
        in_channels: Color channels.
        num_classes: Length of the logits.
        embed_dim: Width d of a token.
        depth: Blocks of the spatial encoder.
        temporal_depth: Blocks of the temporal encoder.
        num_heads: Attention heads everywhere.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``; the pooling attention is as wide.
        qkv_bias: Whether queries, keys and values have biases.
        activation: ``gelu`` or another key of `vidcls.models.layers.ACTIVATIONS`.
        norm_eps: Epsilon of each LayerNorm.
        softcap: Attention logits x become ``softcap * tanh(x / softcap)``; None leaves them.
        dropout: After both position tables, each projection and each MLP.
        attn_dropout: Of the attention weights.
    """

    image_size: int | tuple[int, int] = (288, 288)
    num_frames: int = 16
    tubelet_size: int | tuple[int, int, int] = (1, 18, 18)
    in_channels: int = 3
    num_classes: int = 400
    embed_dim: int = 768
    depth: int = 12
    temporal_depth: int = 4
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation: str = "gelu"
    norm_eps: float = 1e-6
    softcap: float | None = 50.0
    dropout: float = 0.0
    attn_dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "tubelet_size", triple(self.tubelet_size))
        if min(*triple(self.tubelet_size), *self.grid_size) < 1:
            raise ValueError(
                f"a view of {self.num_frames} frames of {self.image_size} pixels holds no whole tubelet "
                f"of {self.tubelet_size}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {self.activation!r}")

    @property
    def grid_size(self) -> tuple[int, int, int]:
        """Tubelets along (t, h, w)."""
        (height, width), (t, h, w) = pair(self.image_size), triple(self.tubelet_size)
        return self.num_frames // t, height // h, width // w
