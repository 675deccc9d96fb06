"""Entries of Hugging Face's config.json against transformers itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vidcls.checkpoints.base import Raw
from vidcls.checkpoints.hf_config import PARAMETRIC, activation
from vidcls.errors import CheckpointError
from vidcls.models import layers

activations = pytest.importorskip("transformers.activations")


@pytest.mark.parametrize("name", list(activations.ACT2FN))
def test_every_hidden_act_computes_what_transformers_does(name: str) -> None:
    """New names in transformers fail here until they are supported, or refused for a reason."""
    folder = Raw(Path("model"), "hf", {}, meta={"config": {"hidden_act": name}})
    theirs = activations.ACT2FN[name]
    weights = list(theirs.parameters())
    assert (name in PARAMETRIC) == bool(weights)
    if weights:
        with pytest.raises(CheckpointError, match=f"{name}.*weights of its own"):
            activation(folder)
        return
    x = torch.cat([torch.linspace(-30, 30, 3001), torch.randn(1000)]).double()
    ours = layers.ACTIVATIONS[activation(folder)]()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-9)
