"""ResNet weights of torchvision and timm as the start of a Visual Transformer or of its training.

These files hold an image classifier, not one of our models, so this is no entry of ``FORMATS``: the ResNet below
the visual tokens takes its layers from the file, and what replaces the rest keeps its random weights.
"""

from __future__ import annotations

import os

from torch import nn

from vidcls.checkpoints.readers import open_raw
from vidcls.errors import CheckpointError
from vidcls.models.resnet import ResNet


def load_resnet_weights(model: nn.Module, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Start the ResNet inside ``model`` from a torchvision or timm file (``.pth`` or safetensors).

    Args:
        model: Any module with a `vidcls.models.resnet.ResNet` below it: ``vt-frames``, or a VTN on one.
        path: The file.

    Returns:
        Names in the file that the model has no place for, such as those of ``fc`` and, below a VT-ResNet, of
        ``layer4``; everything else was copied.

    Raises:
        CheckpointError: The model has no ResNet, the file cannot be read, or it holds another network. The model
            is unchanged then.
    """
    resnets = [module for module in model.modules() if isinstance(module, ResNet)]
    if len(resnets) != 1:
        raise CheckpointError(str(path), f"{type(model).__name__} has no ResNet to fill", "give a vt-* model")
    return resnets[0].load_weights(open_raw(path).tensors, str(path))
