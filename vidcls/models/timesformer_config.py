"""Shape of a TimeSformer (Bertasius et al. 2021); `vidcls.models.timesformer` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.errors import ConfigError
from vidcls.models.sizes import ACTIVATIONS, pair


@dataclass(frozen=True)
class TimeSformerConfig:
    """Shape of a TimeSformer; the defaults are the base model on Kinetics-400, 8 frames at 224 pixels.

    Attributes:
        image_size: Height and width of a frame in pixels; one number stands for both. With ``num_frames`` it
            fixes the shapes of the position embeddings; views of other sizes are taken too, see
            `TimeSformer.positions`.
        num_frames: Frames of one view.
        patch_size: Height and width of a patch in pixels; what is left of a frame beyond whole patches is not
            looked at.
        in_channels: Channels of a frame.
        num_classes: Length of the logits.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads of each block.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``.
        qkv_bias: Whether queries, keys and values have biases.
        norm_eps: Added to the variance in each LayerNorm.
        activation: A key of `vidcls.models.layers.ACTIVATIONS`.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 at the first.
        dropout: After the embeddings, each projection and each linear layer of an MLP.
        attn_dropout: Of the attention weights.
        any_size: Whether views of other sizes than ``image_size`` and ``num_frames`` are taken. HF's divided
            attention is not defined for them (it raises, or mixes up the tokens), so its checkpoints set False.
    """

    image_size: int | tuple[int, int] = (224, 224)
    num_frames: int = 8
    patch_size: int | tuple[int, int] = (16, 16)
    in_channels: int = 3
    num_classes: int = 400
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    activation: str = "gelu"
    drop_path_rate: float = 0.1
    dropout: float = 0.0
    attn_dropout: float = 0.0
    any_size: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        object.__setattr__(self, "patch_size", pair(self.patch_size))
        for name in ("num_frames", "in_channels", "num_classes", "embed_dim", "depth", "num_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"{getattr(self, name)} is not positive", "give 1 or more")
        if min(pair(self.patch_size)) < 1 or min(self.grid_size) < 1:
            raise ConfigError(
                "patch_size",
                f"no patch of {self.patch_size} fits into {self.image_size} pixels",
                "change one",
            )
        if self.embed_dim % self.num_heads:
            raise ConfigError(
                "num_heads",
                f"{self.embed_dim} channels cannot be split into {self.num_heads} heads",
                "change it",
            )
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                "activation", f"{self.activation!r} is unknown", f"choose one of {', '.join(ACTIVATIONS)}"
            )

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches along (h, w)."""
        (height, width), (patch_height, patch_width) = pair(self.image_size), pair(self.patch_size)
        return height // patch_height, width // patch_width
