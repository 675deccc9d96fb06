"""What the configurations of transformers share: sizes, and the checks on them. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vidcls.errors import ConfigError
from vidcls.models.sizes import ACTIVATIONS, pair, triple


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of every transformer.

    Attributes:
        image_size: Height and width of a frame in pixels; one number stands for both.
        in_channels: Channels of a frame.
        embed_dim: Width d of a token.
        depth: Number of blocks.
        num_heads: Attention heads of each block.
        mlp_ratio: Width inside a block's MLP ÷ ``embed_dim``.
        norm_eps: Epsilon of the LayerNorms.
        attn_dropout: Of the attention weights.
    """

    image_size: int | tuple[int, int] = (224, 224)
    in_channels: int = 3
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    attn_dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))


@dataclass(frozen=True)
class PatchConfig(TransformerConfig):
    """A transformer over patches of single frames; more than `TransformerConfig` has.

    Attributes:
        patch_size: Height and width of a patch in pixels.
        qkv_bias: Whether queries, keys and values have biases.
        activation: A key of `vidcls.models.layers.ACTIVATIONS`.
        dropout: After the embeddings, each projection and each linear layer of an MLP.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0 at the first.
    """

    patch_size: int | tuple[int, int] = (16, 16)
    qkv_bias: bool = True
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "patch_size", pair(self.patch_size))
        if self.num_heads < 1 or self.embed_dim % self.num_heads:
            problem = f"{self.embed_dim} channels cannot be split into {self.num_heads} heads"
            raise ConfigError("num_heads", problem, "change it")
        check_known("activation", self.activation, ACTIVATIONS)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches along (h, w)."""
        (height, width), (patch_height, patch_width) = pair(self.image_size), pair(self.patch_size)
        return height // patch_height, width // patch_width


@dataclass(frozen=True)
class TubeletConfig(TransformerConfig):
    """A classifier over tubelets of clips; more than `TransformerConfig` has.

    Attributes:
        num_frames: Frames of a view.
        tubelet_size: Frames, height and width of one token's tubelet; tubelets do not overlap, and what does
            not fill a whole one at the end of an axis is not looked at.
        num_classes: Length of the logits.
        activation: A key of `vidcls.models.layers.ACTIVATIONS`.
    """

    num_frames: int = 16
    tubelet_size: int | tuple[int, int, int] = (2, 16, 16)
    num_classes: int = 400
    activation: str = "gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tubelet_size", triple(self.tubelet_size))
        if min(triple(self.tubelet_size)) < 1 or min(self.grid_size) < 1:
            raise ValueError(
                f"a view of {self.num_frames} frames of {self.image_size} pixels holds no whole tubelet "
                f"of {self.tubelet_size}"
            )
        check_one_of("activation", self.activation, ACTIVATIONS)

    @property
    def grid_size(self) -> tuple[int, int, int]:
        """Tubelets along (t, h, w)."""
        (height, width), (t, h, w) = pair(self.image_size), triple(self.tubelet_size)
        return self.num_frames // t, height // h, width // w


def check_known(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that is none of those known; raises ConfigError."""
    if value not in known:
        raise ConfigError(name, f"{value!r} is unknown", f"choose one of {', '.join(known)}")


def check_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that is none of those known, where the architecture's name is the error's subject.

    Raises:
        ValueError: It is not; `vidcls.models.build` adds the subject.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
