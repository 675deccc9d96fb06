"""Sizes of VideoMAE's classifiers (Tong et al. 2022; v2: Wang et al. 2023); `vidcls.models.videomae` builds them."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.models.sizes import ACTIVATIONS, pair, triple

POOLS = ("mean", "token")


@dataclass(frozen=True)
class VideoMAEConfig:
    """Shape of a VideoMAE; the defaults are the authors' ViT-B on Kinetics-400.

    Attributes:
        image_size: Height and width of a view in pixels; one number stands for both.
        num_frames: Frames of a view.
        tubelet_size: Frames, height and width of one token's tubelet.
        in_channels: Color channels.
        num_classes: Length of the logits.
        embed_dim: Width d of a token.
        depth: Number of blocks.
        num_heads: Attention heads of each block.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``.
        qv_bias: Whether queries and values have a bias; keys never have one.
        pool: ``mean`` averages all tokens, then norms; ``token`` norms, then reads the first tubelet's token.
        activation: ``gelu`` or another key of `vidcls.models.layers.ACTIVATIONS`.
        norm_eps: Epsilon of the blocks' LayerNorms: 1e-6 in the authors' code, 1e-12 in transformers' folders.
        head_norm_eps: Of the last LayerNorm: 1e-6 in the authors' code, 1e-5 after the mean in transformers.
        dropout: After the position table, each projection and each linear layer of an MLP.
        attn_dropout: Of the attention weights.
        head_dropout: Before the classifier.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 at the first.
        any_size: Take views of any size, for checkpoints that do not say what size they are for; else others than
            ``num_frames`` and ``image_size`` are refused.
    """

    image_size: int | tuple[int, int] = (224, 224)
    num_frames: int = 16
    tubelet_size: int | tuple[int, int, int] = (2, 16, 16)
    in_channels: int = 3
    num_classes: int = 400
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qv_bias: bool = True
    pool: str = "mean"
    activation: str = "gelu"
    norm_eps: float = 1e-6
    head_norm_eps: float = 1e-6
    dropout: float = 0.0
    attn_dropout: float = 0.0
    head_dropout: float = 0.0
    drop_path_rate: float = 0.0
    any_size: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "tubelet_size", triple(self.tubelet_size))
        if min(*triple(self.tubelet_size), *self.grid_size) < 1:
            raise ValueError(
                f"a view of {self.num_frames} frames of {self.image_size} pixels holds no whole tubelet "
                f"of {self.tubelet_size}"
            )
        for name, known in (("pool", POOLS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    @property
    def grid_size(self) -> tuple[int, int, int]:
        """Tubelets along (t, h, w)."""
        (height, width), (t, h, w) = pair(self.image_size), triple(self.tubelet_size)
        return self.num_frames // t, height // h, width // w
