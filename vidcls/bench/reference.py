"""The models of transformers that ours are compared with: same shape, same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vidcls.errors import DependencyError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

COMPARABLE = ("vivit-st", "timesformer-divided", "timesformer-joint")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise DependencyError(
            "compare=transformers", "transformers is not installed", "pip install transformers"
        ) from None
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
    common = {
        "image_size": shape.image_size[0],
        "num_frames": shape.num_frames,
        "hidden_size": shape.embed_dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": round(shape.embed_dim * shape.mlp_ratio),
        "num_labels": shape.num_classes,
    }
    torch.manual_seed(0)
    if architecture == "vivit-st":
        settings = transformers.VivitConfig(**common, tubelet_size=list(shape.tubelet_size))
        model = transformers.VivitForVideoClassification(settings)
    else:
        kind = architecture.partition("-")[2] + "_space_time"
        settings = transformers.TimesformerConfig(
            **common, patch_size=shape.patch_size[0], attention_type=kind
        )
        model = transformers.TimesformerForVideoClassification(settings)
    with torch.no_grad():  # so that position, class token and biases count in the comparison
        for parameter in model.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.02)
    model.save_pretrained(folder)
    size = shape.image_size[0]
    transformers.VivitImageProcessor(
        size={"shortest_edge": size * 8 // 7}, crop_size={"height": size, "width": size}, do_normalize=False
    ).save_pretrained(folder)


def load_reference(folder: str, device: str) -> Callable[[Tensor], Tensor]:
    """Load a folder as transformers does, in fp32 with its default attention: views (b, c, t, h, w) → logits.

    Raises:
        DependencyError: transformers is not installed.
    """
    model = _transformers().AutoModelForVideoClassification.from_pretrained(folder).float().to(device).eval()

    def forward(views: Tensor) -> Tensor:
        logits: Tensor = model(views.transpose(1, 2)).logits
        return logits

    return forward
