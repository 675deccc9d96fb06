"""The ResNet inside a Visual Transformer or a VTN, started from torchvision's or timm's weights."""

from __future__ import annotations

import os

from torch import nn

from vidcls.checkpoints import open_raw
from vidcls.checkpoints.base import check_state, load_state
from vidcls.checkpoints.metadata import KEY
from vidcls.checkpoints.unwrap import views
from vidcls.errors import CheckpointError
from vidcls.models.resnet import ResNet

SIGN = "layer1.0.conv1.weight"
COUNTER = "num_batches_tracked"  # files older than PyTorch 0.4 have none, and nothing here reads them


def fill_resnet(
    model: nn.Module, source: str | os.PathLike[str]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Copy the file of an image classifier into the ResNet that a model stands on; None where neither is one.

    Returns:
        Names of the model's parameters that were copied, and tensors of the file that it has no place for.

    Raises:
        CheckpointError: A tensor is missing or misshapen, or the file is of a deeper network; nothing was copied then.
    """
    inside = [(name, module) for name, module in model.named_modules() if isinstance(module, ResNet)]
    if len(inside) != 1:
        return None
    raw = open_raw(source)
    found = None if KEY in raw.meta else next((v for v in views(raw) if SIGN in v.tensors), None)
    if found is None:
        return None
    name, resnet = inside[0]
    own = resnet.state_dict()
    given = {key: found.tensors.get(key, own[key] if key.endswith(COUNTER) else None) for key in own}
    state = {key: tensor for key, tensor in given.items() if tensor is not None}
    check_state(resnet, state, raw.path)
    unused = tuple(key for key in found.tensors if key not in own)
    # ResNet-18's names and shapes are all in a file of ResNet-34, whose every second block would be lost.
    if deeper := [key for key in unused if key.partition(".")[0] in resnet.layer_names]:
        problem = f"has more blocks than the model's ResNet, first {deeper[0]!r}"
        raise CheckpointError(str(raw.path), problem, "give weights of the ResNet that the model's name says")
    load_state(resnet, state, raw.path)
    return tuple(f"{name}.{key}" if name else key for key in own), unused
