"""Any image model of timm, on each frame or below VTN. timm builds it; nothing is fetched here.

Wightman, "PyTorch Image Models" (https://github.com/huggingface/pytorch-image-models). The model is split where its
linear classifier begins: what comes before encodes frames, and the classifier is ours to replace.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from vidcls.errors import ConfigError, nearest, needing
from vidcls.models.frames import FrameClassifier
from vidcls.models.sizes import pair
from vidcls.models.timm_frames_config import TimmFramesConfig


def import_timm(subject: str) -> Any:
    """The package timm; a DependencyError where it is not installed."""
    with needing(subject, "needs the package timm, which is not installed", "pip install 'vidcls[timm]'"):
        import timm
    return timm


def create(
    name: str,
    num_classes: int,
    image_size: tuple[int, int],
    in_channels: int = 3,
    model_args: dict[str, Any] | None = None,
) -> nn.Module:
    """Build a model of timm with random weights.

    Args:
        name: As in `TimmFramesConfig`; a tag of weights after a period is not heeded.
        num_classes: Length of the logits; 0 for the pooled features.
        image_size: Height and width of a frame in pixels.
        in_channels: Channels of a frame.
        model_args: As in `TimmFramesConfig`.

    Raises:
        ConfigError: timm has no such model, or it does not take the arguments.
        DependencyError: timm is not installed.
    """
    timm = import_timm(f"timm:{name}")
    if not timm.is_model(name.partition(".")[0]):
        raise ConfigError(
            "timm model",
            f"timm has no model {name!r}{nearest(name, timm.list_models())}",
            "see timm.list_models()",
        )
    settings = timm.get_pretrained_cfg(name)
    # Convolutional models take any size and no such keyword; others are built for one.
    fixed = (
        settings is not None and settings.fixed_input_size and tuple(settings.input_size[1:]) != image_size
    )
    keywords = {**({"img_size": image_size} if fixed else {}), **(model_args or {})}
    if "img_size" in keywords:
        keywords["img_size"] = image_size
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **keywords)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"timm:{name}", f"cannot be built ({error})"[:400], "change its arguments"
        ) from error
    return model


def classifier_name(model: nn.Module) -> str | None:
    """Name of a timm model's classifier, where it is one linear layer and all that makes the logits; None otherwise."""
    classifier = model.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear) or hasattr(
        model, "aux_head"
    ):  # VOLO adds a second one's maximum
        return None
    return next((name for name, module in model.named_modules() if module is classifier), None)


class TimmFrames(FrameClassifier):
    """``timm-frames``: an image model of timm on each frame, logits averaged; (b, c, t, h, w) → (b, k).

    A model whose classifier is not one linear layer (such as distilled DeiT's two) is kept whole: its logits are the
    features.
    """

    architecture: ClassVar[str] = "timm-frames"

    def __init__(self, config: TimmFramesConfig) -> None:
        model = create(
            config.model, config.num_classes, pair(config.image_size), config.in_channels, config.model_args
        )
        name = classifier_name(model)
        if name is None:
            super().__init__(config, model, config.num_classes, config.dropout)
            self.head = nn.Identity()
            return
        linear = model.get_submodule(name)
        super().__init__(config, model, linear.in_features, config.dropout)  # type: ignore[arg-type]  # a Linear's
        self.head = linear
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, nn.Identity())

    def features(self, frames: Tensor) -> Tensor:
        features: Tensor = self.backbone(frames)
        return features.flatten(1)

    def reset_head(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes."""
        if isinstance(self.head, nn.Linear):
            super().reset_head(num_classes)
            return
        self.backbone.reset_classifier(num_classes)  # type: ignore[operator]  # timm's models have it
        self.count_classes(num_classes)
