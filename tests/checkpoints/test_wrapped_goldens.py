"""Reference files of every family in pairs of the wrappings that training scripts put around weights."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import golden_dirs
from vidcls.checkpoints import load_checkpoint

ENTRIES = ("", "state_dict", "state_dict_ema", "model", "model_state", "model_ema", "ema")
PREFIXES = ("", "module.", "_orig_mod.", "backbone.", "model.", "net.")
# Golden → its weights' file, the entry that holds them, and how their names start there. An image ViT is left out: in
# ``model_state`` its tensors are those of a TimeSformer too (see ``test_wrappings``).
FILES = {
    "videomae-original": ("checkpoint.pth", "model", ""),
    "t2t-performer": ("model.pth.tar", "state_dict_ema", ""),
    "t2t-transformer": ("model.pth.tar", "state_dict", ""),
    "timesformer-fb-divided": ("checkpoint.pyth", "model_state", "model."),
    "vtn": ("checkpoint.pyth", "model_state", ""),
}
SAMPLE = 12
WRAPPINGS = [
    (outer, inner, prefix)
    for outer, inner in [("", ""), *itertools.product(ENTRIES[1:], ENTRIES)]
    for prefix in map("".join, itertools.product(PREFIXES, PREFIXES))
    if outer != inner or not outer
]


def hints(folder: Path) -> dict[str, Any]:
    """What the file does not hold."""
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    if "vtn" in case:
        backbone, vtn = case["backbone"], case["vtn"]
        return {
            "image_size": backbone["img_size"],
            "num_heads": backbone["num_heads"],
            "temporal_num_heads": vtn["num_attention_heads"],
            "attention_window": vtn["attention_window"],
        }
    config = case["config"]
    size = {"image_size": config["img_size"]} if "timesformer" in folder.name else {}
    return {"num_heads": config["num_heads"], **size}


@pytest.mark.parametrize(
    "folder", [pytest.param(folder, id=folder.name) for name in FILES for folder in golden_dirs(name)]
)
def test_i15_7_pairs_of_wrappings_hide_no_golden(folder: Path, tmp_path: Path) -> None:
    name, entry, start = FILES[folder.name]
    known = hints(folder)
    expected = load_checkpoint(folder / name, **known)
    stored: dict[str, Tensor] = torch.load(folder / name, weights_only=False)[entry]
    state = {key.removeprefix(start): tensor for key, tensor in stored.items()}
    for outer, inner, prefix in random.Random(folder.name).sample(WRAPPINGS, SAMPLE):
        named: Any = {prefix + key: tensor for key, tensor in state.items()}
        for word in (inner, outer):
            named = {word: named, "epoch": 3} if word else named
        torch.save(named, tmp_path / "wrapped.pth")
        loaded = load_checkpoint(tmp_path / "wrapped.pth", **known)
        assert loaded.architecture == expected.architecture
        for key, tensor in expected.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), (outer, inner, prefix, key)
