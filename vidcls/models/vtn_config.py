"""Shape of a VTN (Neimark et al. 2021); `vidcls.models.vtn` builds it. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vidcls.errors import ConfigError
from vidcls.models.sizes import pair

VIT_BACKBONES: dict[str, dict[str, Any]] = {
    "vit-b16": {},
    "vit-l16": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "deit-tiny": {"embed_dim": 192, "num_heads": 3},
    "deit-small": {"embed_dim": 384, "num_heads": 6},
    "deit-base": {},
}


@dataclass(frozen=True)
class VTNConfig:
    """Shape of a VTN; the defaults are the released one, ViT-B/16 with three temporal layers.

    Attributes:
        backbone: A name of `backbone_names`; ``timm:NAME`` for any image model of timm; or a mapping, for a ViT of
            any shape (keywords of `vidcls.models.vit.ViTConfig`) or, where it has a ``variant``, a Visual
            Transformer (keywords of `vidcls.models.visual_transformer.VTConfig`).
        image_size: Height and width of a frame in pixels; one number stands for both.
        in_channels: Channels of a frame.
        num_classes: Length of the logits.
        num_frames: Frames of the clips that the model is meant for; None leaves it open. It takes any number.
        temporal_depth: Longformer layers.
        temporal_num_heads: Their heads; None: one for each 64 channels of the backbone's features.
        temporal_mlp_dim: Width inside their feed-forward networks; None: four times the features'.
        attention_window: Frames in a window, both sides together: one even number, or one for each layer.
        max_positions: Rows of the position table; frame indices wrap at two less.
        mlp_dim: Width inside the classifier; None: the features'.
        dropout: Of the temporal encoder's outputs.
        attn_dropout: Of its attention weights.
        head_dropout: Inside the classifier.
    """

    backbone: str | dict[str, Any] = "vit-b16"
    image_size: int | tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 400
    num_frames: int | None = None
    temporal_depth: int = 3
    temporal_num_heads: int | None = None
    temporal_mlp_dim: int | None = None
    attention_window: int | tuple[int, ...] = 18
    max_positions: int = 288
    mlp_dim: int | None = None
    dropout: float = 0.1
    attn_dropout: float = 0.1
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        if not isinstance(self.attention_window, int):
            object.__setattr__(self, "attention_window", tuple(self.attention_window))
        layer_windows(self.attention_window, self.temporal_depth)


def layer_windows(attention_window: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """Return one window for each of ``depth`` layers.

    Raises:
        ConfigError: A window is odd or not positive, or their number is not ``depth``.
    """
    given = (attention_window,) * depth if isinstance(attention_window, int) else tuple(attention_window)
    if len(given) != depth:
        raise ConfigError(
            "attention_window",
            f"has {len(given)} numbers for {depth} layers",
            "give one, or one for each layer",
        )
    if any(window < 2 or window % 2 for window in given):
        raise ConfigError(
            "attention_window",
            f"is {attention_window}, but counts both sides together",
            "give a positive even number",
        )
    return given
