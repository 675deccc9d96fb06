"""Sizes of T2T-ViT (Yuan et al. 2021); `vidcls.models.t2t` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidcls.models.sizes import pair
from vidcls.models.transformer_config import TransformerConfig, check_known

TOKENS = ("performer", "transformer")

_SIZES: dict[str, dict[str, Any]] = {
    "7": {"embed_dim": 256, "depth": 7, "num_heads": 4, "mlp_ratio": 2.0},
    "10": {"embed_dim": 256, "depth": 10, "num_heads": 4, "mlp_ratio": 2.0},
    "12": {"embed_dim": 256, "depth": 12, "num_heads": 4, "mlp_ratio": 2.0},
    "14": {"embed_dim": 384, "depth": 14, "num_heads": 6, "mlp_ratio": 3.0},
    "19": {"embed_dim": 448, "depth": 19, "num_heads": 7, "mlp_ratio": 3.0},
    "24": {"embed_dim": 512, "depth": 24, "num_heads": 8, "mlp_ratio": 3.0},
}
T2T_VARIANTS: dict[str, dict[str, Any]] = {
    **{f"t2t-vit-{name}": sizes for name, sizes in _SIZES.items()},
    **{f"t2t-vit-t-{name}": {**_SIZES[name], "tokens": "transformer"} for name in ("14", "19", "24")},
}
"""The paper's networks by name → keywords of `T2TConfig`."""


@dataclass(frozen=True)
class T2TConfig(TransformerConfig):
    """Shape of a T2T-ViT with its classifier, applied frame by frame; the defaults are T2T-ViT-14.

    Attributes:
        num_classes: Length of the logits.
        num_frames: Frames of the clips that the model is meant for; None leaves it open. It takes any number.
        tokens: Attention of the tokens-to-token module, ``performer`` or ``transformer``.
        token_dim: Width of a token there.
        dropout: After the position table, each projection and each linear layer of an MLP.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 at the first.
    """

    num_classes: int = 1000
    num_frames: int | None = None
    tokens: str = "performer"
    token_dim: int = 64
    embed_dim: int = 384
    depth: int = 14
    num_heads: int = 6
    mlp_ratio: float = 3.0
    norm_eps: float = 1e-5
    dropout: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("tokens", self.tokens, TOKENS)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Tokens along height and width, after unfolding by 4, 2 and 2."""
        height, width = ((side - 3) // 4 + 1 for side in pair(self.image_size))
        return ((height + 1) // 2 + 1) // 2, ((width + 1) // 2 + 1) // 2
