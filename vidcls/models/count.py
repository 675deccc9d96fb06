"""How large a model is and what one view costs, counted on the meta device: nothing is allocated or computed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidcls.models import build
from vidcls.models.merging import merge_tokens as merge


class Count(NamedTuple):
    """Size and cost of a model.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds of one view: matrix products, convolutions and attention. The papers call one of
            them a FLOP.
    """

    params: int
    macs: int


def count(model: nn.Module, num_frames: int, image_size: tuple[int, int]) -> Count:
    """Count a model for one view (1, 3, num_frames, h, w), on the device that its parameters are on."""
    device = next(model.parameters()).device
    view = torch.empty(1, 3, num_frames, *image_size, device=device)
    # As published: in inference, models leave out what nothing reads of their last block.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(view)
    return Count(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


def count_architecture(
    architecture: str,
    config: dict[str, Any],
    num_frames: int,
    image_size: tuple[int, int],
    merge_tokens: float = 0.0,
) -> Count:
    """Build an architecture on the meta device and count it, with this share of its tokens merged away.

    Raises:
        ConfigError: The configuration makes no model.
    """
    with torch.device("meta"):
        model = merge(build(architecture, **config).eval(), merge_tokens)
    return count(model, num_frames, image_size)
