"""Puts an attentive pooler and a head on a model's tokens."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, cast

from torch import nn

from vidcls.engines.token_reader import check_attentive, reader_of
from vidcls.models import build


def attend(model: Any, num_classes: int) -> nn.Module:
    """Put an attentive pooler and a new head on a model's tokens.

    Args:
        model: The backbone; its own pooler and head are left out. An attentive probe is returned as it is.
        num_classes: Length of the logits.

    Raises:
        UsageError: It has no tokens, or several clips in a view.
    """
    name, config = str(model.architecture), model.config
    if name == "attentive":
        return cast(nn.Module, model)
    check_attentive(model)
    width = reader_of(model, "mean", "view").dimension
    probe = build(
        "attentive",
        backbone_architecture=name,
        backbone=asdict(config),
        num_classes=num_classes,
        embed_dim=width,
        num_heads=width // 64 if width % 64 == 0 else math.gcd(width, 8),
    )
    inner = probe.get_submodule("backbone")
    inner.load_state_dict({key: model.state_dict()[key] for key in inner.state_dict()})
    return probe
