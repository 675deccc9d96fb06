"""Sizes of VideoMAE's classifiers (Tong et al. 2022; v2: Wang et al. 2023); `vidcls.models.videomae` builds them."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.models.transformer_config import TubeletConfig, check_one_of

POOLS = ("mean", "token")


@dataclass(frozen=True)
class VideoMAEConfig(TubeletConfig):
    """Shape of a VideoMAE; the defaults are the authors' ViT-B on Kinetics-400.

    Attributes:
        qv_bias: Whether queries and values have a bias; keys never have one.
        pool: ``mean`` averages all tokens, then norms; ``token`` norms, then reads the first tubelet's token.
        norm_eps: Epsilon of the blocks' LayerNorms: 1e-6 in the authors' code, 1e-12 in transformers' folders.
        head_norm_eps: Of the last LayerNorm: 1e-6 in the authors' code, 1e-5 after the mean in transformers.
        dropout: After the position table, each projection and each linear layer of an MLP.
        head_dropout: Before the classifier.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 at the first.
        any_size: Take views of any size, for checkpoints that do not say what size they are for; else others than
            ``num_frames`` and ``image_size`` are refused.
    """

    qv_bias: bool = True
    pool: str = "mean"
    head_norm_eps: float = 1e-6
    dropout: float = 0.0
    head_dropout: float = 0.0
    drop_path_rate: float = 0.0
    any_size: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("pool", self.pool, POOLS)
