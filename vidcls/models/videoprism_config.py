"""Sizes of VideoPrism's classifier (Zhao et al. 2024); `vidcls.models.videoprism` builds it."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.models.transformer_config import TubeletConfig


@dataclass(frozen=True)
class VideoPrismConfig(TubeletConfig):
    """Shape of a VideoPrism; the defaults are VideoPrism-B with 16 frames of 288 pixels.

    Attributes:
        depth: Blocks of the spatial encoder.
        temporal_depth: Blocks of the temporal encoder.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``; the pooling attention is as wide.
        qkv_bias: Whether queries, keys and values have biases.
        softcap: Attention logits x become ``softcap * tanh(x / softcap)``; None leaves them.
        dropout: After both position tables, each projection and each MLP.
    """

    image_size: int | tuple[int, int] = (288, 288)
    tubelet_size: int | tuple[int, int, int] = (1, 18, 18)
    temporal_depth: int = 4
    qkv_bias: bool = True
    softcap: float | None = 50.0
    dropout: float = 0.0
