"""Sizes of V-JEPA 2's classifiers (Assran et al. 2025); `vidcls.models.vjepa2` builds them."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.models.sizes import pair, triple
from vidcls.models.transformer_config import TubeletConfig


@dataclass(frozen=True)
class VJEPA2Config(TubeletConfig):
    """Shape of a V-JEPA 2 encoder with its attentive classifier; the defaults are ViT-L on Something-Something V2.

    Attributes:
        num_frames: Frames of the views that the model is meant for, all clips together. It takes any number.
        depth: Number of the encoder's blocks.
        qkv_bias: Whether the encoder's queries, keys and values have biases.
        norm_eps: Epsilon of the encoder's LayerNorms.
        pooler_depth: Self-attention blocks of the pooler, before its cross-attention.
        pooler_num_heads: Its heads; None for the encoder's, as transformers has them. The authors' probes have 16.
        pooler_mlp_ratio: Width inside its MLPs ÷ ``embed_dim``; 4 in all published models, whatever the encoder's.
        pooler_norm_eps: Epsilon of its LayerNorms; None for the encoder's. The authors' probes have 1e-5.
        drop_path_rate: Stochastic depth of the encoder's last block; grows linearly from 0 at the first.
        clips_per_view: Clips that a view consists of, one after the other: each is encoded by itself, and the pooler
            sees the tokens of all. The published figures are measured so.
        out_layers: Numbers of the encoder's blocks, from 0, whose normed tokens the pooler sees together; empty for the
            last block's. The authors' probes of Diving48 see four.
    """

    image_size: int | tuple[int, int] = (256, 256)
    num_classes: int = 174
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    qkv_bias: bool = True
    pooler_depth: int = 3
    pooler_num_heads: int | None = None
    pooler_mlp_ratio: float = 4.0
    pooler_norm_eps: float | None = None
    drop_path_rate: float = 0.0
    clips_per_view: int = 1
    out_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "out_layers", tuple(self.out_layers))
        if self.clips_per_view < 1 or self.num_frames % self.clips_per_view:
            raise ValueError(f"{self.num_frames} frames are not {self.clips_per_view} clips of equal length")
        if any(not 0 <= layer < self.depth for layer in self.out_layers):
            raise ValueError(f"out_layers {self.out_layers} are not among the {self.depth} blocks")

    @property
    def grid_size(self) -> tuple[int, int, int]:
        """Tubelets along (t, h, w); fewer frames than a tubelet has are repeated until they fill one."""
        (height, width), (t, h, w) = pair(self.image_size), triple(self.tubelet_size)
        return (
            max(1, self.num_frames // t),
            height // h,
            width // w,
        )  # super() here stops PyTorch 2.6's tracing
