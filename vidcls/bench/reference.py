"""The models of transformers that ours are compared with: same shape, same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vidcls.errors import UsageError, needing

if TYPE_CHECKING:
    from torch import Tensor

COMPARABLE = ("vivit-st", "timesformer-divided", "timesformer-joint", "videomae")


def _transformers() -> Any:
    with needing("compare=transformers", "transformers is not installed", "pip install transformers"):
        import transformers
    return transformers


def save_reference(architecture: str, config: dict[str, Any], folder: str) -> None:
    """Write transformers' model with random weights, as `from_pretrained` reads it and `vidcls` does.

    Raises:
        UsageError: transformers has no such architecture.
        DependencyError: transformers is not installed.
    """
    import torch

    if architecture not in COMPARABLE:
        raise UsageError(
            architecture,
            "transformers has no such model",
            f"it has {', '.join(COMPARABLE)}; leave `compare` out",
        )
    transformers = _transformers()
    from vidcls.models import ARCHITECTURES

    shape = ARCHITECTURES[architecture][0](**config)
    name, settings = _settings(architecture, shape)
    model_class = getattr(transformers, f"{name}ForVideoClassification")
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**settings))
    with torch.no_grad():  # so that position, class token and biases count in the comparison
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.02)
    model.save_pretrained(folder)
    _processor(transformers, name, shape.image_size[0]).save_pretrained(folder)


def _settings(architecture: str, shape: Any) -> tuple[str, dict[str, Any]]:
    """What transformers calls the model, and the keywords of its configuration."""
    common = {
        "image_size": shape.image_size[0],
        "num_frames": shape.num_frames,
        "hidden_size": shape.embed_dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": round(shape.embed_dim * shape.mlp_ratio),
        "num_labels": shape.num_classes,
    }
    if architecture == "vivit-st":
        return "Vivit", {**common, "tubelet_size": list(shape.tubelet_size)}
    if architecture == "videomae":
        step, _, patch = shape.tubelet_size
        mean = shape.pool == "mean"
        return "VideoMAE", {**common, "tubelet_size": step, "patch_size": patch, "use_mean_pooling": mean}
    kind = architecture.partition("-")[2] + "_space_time"
    return "Timesformer", {**common, "patch_size": shape.patch_size[0], "attention_type": kind}


def _processor(transformers: Any, name: str, size: int) -> Any:
    """Preprocessing as the published models' of ViViT's (and, for want of their own, TimeSformer's) or VideoMAE's."""
    crop = {"height": size, "width": size}
    if name == "VideoMAE":
        return transformers.VideoMAEImageProcessor(
            size={"shortest_edge": size},
            crop_size=crop,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
    return transformers.VivitImageProcessor(
        size={"shortest_edge": size * 8 // 7}, crop_size=crop, do_normalize=False
    )


def load_reference(folder: str, device: str) -> Callable[[Tensor], Tensor]:
    """Load a folder as transformers does, in fp32 with its default attention: views (b, c, t, h, w) → logits.

    Raises:
        DependencyError: transformers is not installed.
    """
    model = _transformers().AutoModelForVideoClassification.from_pretrained(folder).float().to(device).eval()

    def forward(views: Tensor) -> Tensor:
        return model(views.transpose(1, 2)).logits

    return forward
