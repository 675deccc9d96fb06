"""Which of timm's image models runs on each frame; `vidcls.models.timm_frames` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vidcls.errors import ConfigError
from vidcls.models.sizes import pair

# Arguments of timm.create_model that fetch or open files, or change what a model returns.
NOT_ARGUMENTS = frozenset(
    "pretrained pretrained_cfg pretrained_cfg_overlay checkpoint_path cache_dir scriptable exportable no_jit "
    "features_only out_indices num_classes in_chans".split()
)


@dataclass(frozen=True)
class TimmFramesConfig:
    """An image model of timm with its classifier, applied frame by frame.

    Attributes:
        model: Name of the model, without a tag of weights; see ``timm.list_models()``.
        image_size: Height and width of a frame in pixels; one number stands for both.
        in_channels: Channels of a frame.
        num_classes: Length of the logits.
        num_frames: Frames of the clips that the model is meant for; None leaves it open. It takes any number.
        model_args: Further arguments of the model's constructor, such as ``global_pool``.
        dropout: Before the classifier.
    """

    model: str = "resnet18"
    image_size: int | tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    num_frames: int | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size))
        refused = sorted(NOT_ARGUMENTS & self.model_args.keys())
        if refused:
            raise ConfigError("model_args", f"{', '.join(refused)} cannot be set here", "leave them out")
