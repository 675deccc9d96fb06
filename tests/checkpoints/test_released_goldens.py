"""Reference cases of VideoMAE, V-JEPA 2, T2T-ViT and timm: no hint but the heads where the file does not hold them.

Float32 shows that the model is the right one; float64 shows that its epsilons are, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vidcls
from tests.conftest import golden_dirs

CASES = ("videomae-*", "vjepa2-*", "t2t-*", "timm-*")
WEIGHTS = (".pth", ".tar")


def cases() -> list[Any]:
    return [pytest.param(folder, id=folder.name) for folder in golden_dirs(*CASES)]


def views_of(x: Tensor, layout: str) -> Tensor:
    """The case's input as views (b, c, t, h, w); an image is a view of one frame."""
    if x.ndim == 4:
        return x.unsqueeze(2)
    axes = layout.partition("(")[0].split()
    return x.permute(*(axes.index(axis) for axis in "BCTHW"))


@pytest.mark.skipif(not cases(), reason="no reference cases beside this checkout")
@pytest.mark.parametrize("folder", cases())
def test_goldens(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    files = [path for path in folder.iterdir() if path.suffix in WEIGHTS]
    stated = "num_heads is not in the file" not in case.get("file_format", "")
    silent = bool(files) and (not stated or case["config"]["embed_dim"] % 64 != 0)
    hints = {"num_heads": case["config"]["num_heads"]} if silent else {}
    model = vidcls.load_checkpoint(files[0] if files else folder, **hints)
    with np.load(folder / "io.npz") as io, torch.no_grad():
        views = views_of(torch.from_numpy(io["x"]), case["input_layout"])
        logits = model(views)
        assert logits.dtype == torch.float32
        np.testing.assert_allclose(logits, io["logits"], rtol=0, atol=2e-5)
        np.testing.assert_allclose(model.double()(views.double()), io["logits_f64"], rtol=0, atol=1e-9)
