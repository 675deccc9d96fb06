"""Low-rank adapters: what trains, that they merge exactly, and that the result is an ordinary checkpoint."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vidcls
from vidcls.errors import UsageError
from vidcls.models import build
from vidcls.training import checkpointing, lora
from vidcls.training.trainer import Trainer, train

SMALL: dict[str, Any] = {
    "image_size": 16, "num_frames": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3,
}  # fmt: skip
ADAPTED = {
    "vivit-st": {"tubelet_size": (2, 8, 8)},
    "vivit-fe": {"tubelet_size": (2, 8, 8), "temporal_depth": 1},
    "timesformer-divided": {"patch_size": 8},
    "videomae": {"tubelet_size": (2, 8, 8)},  # its attention reads qkv's weight and never calls the layer
    "vjepa2": {"tubelet_size": (2, 8, 8), "pooler_depth": 1},
}


def tiny(architecture: str) -> torch.nn.Module:
    """A model without layers of zeros, which some start with."""
    model = build(architecture, **SMALL, **ADAPTED[architecture])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("architecture", ADAPTED)
def test_every_adapter_and_the_head_learn_and_nothing_else(architecture: str) -> None:
    model = tiny(architecture)
    views = torch.randn(2, 3, 4, 16, 16)
    before = model.eval()(views)
    total = sum(p.numel() for p in model.parameters())
    frozen = lora.add_adapters(model, 2)
    assert torch.equal(model(views), before)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert frozen == total - sum(p.numel() for name, p in trained.items() if name.startswith("head"))
    assert {name.rsplit(".", 1)[-1] for name in trained} == {"a", "b", "weight", "bias"}
    rates = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # the first step moves B, which starts at zero, and the second A too
        rates.zero_grad()
        model.train()(views).square().sum().backward()
        rates.step()
    assert all(p.grad is not None and p.grad.any() for p in trained.values())
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trained)


@pytest.mark.parametrize("architecture", ADAPTED)
def test_merged_is_the_same_function_with_the_names_of_an_ordinary_model(architecture: str) -> None:
    model = tiny(architecture).eval()
    plain = dict(model.state_dict())
    views = torch.randn(2, 3, 4, 16, 16)
    before = model(views)
    lora.add_adapters(model, 2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".b"):
                parameter.normal_()
    with torch.no_grad():
        adapted, merged = model(views), lora.merged(model)(views)
    assert (adapted - before).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=0)
    assert lora.merged(model).state_dict().keys() == plain.keys()


def test_a_run_resumes_and_predict_takes_the_result(recipe: Any, folder: Path, tmp_path: Path) -> None:
    first = train(recipe(schedule={"epochs": 1}), tmp_path / "first", device="cpu", quiet=True)
    plan = recipe(lora=2, ema=0.9, val=str(folder), save_every=1, init={"from": str(first.weights)})
    whole = train(plan, tmp_path / "whole", device="cpu", quiet=True)
    stop = threading.Event()
    stop.set()
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            Trainer(plan, tmp_path / "broken", resume=resume, device="cpu", quiet=True).run(stop)
    train(plan, tmp_path / "broken", resume=True, device="cpu", quiet=True)
    ours, theirs = load_file(whole.weights), load_file(tmp_path / "broken" / checkpointing.BEST)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    start = load_file(first.weights)
    assert ours.keys() == start.keys()
    changed = {name for name in ours if not torch.equal(ours[name], start[name])}
    assert changed
    assert all(name.startswith("head") or "attn" in name for name in changed)
    clip = next(folder.rglob("*.mp4"))
    assert vidcls.load(weights=str(whole.weights)).predict(str(clip)).label in ("down", "left", "right")


def test_what_cannot_be_adapted_is_refused(recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give lora or freeze, not both"):
        recipe(lora=2, freeze=["backbone"])
    with pytest.raises(UsageError, match=r"lora=16: is not below the width 16; give a smaller rank"):
        train(recipe(lora=16), tmp_path / "wide", device="cpu", quiet=True)
    with pytest.raises(UsageError, match="Linear has no projections of attention"):
        lora.add_adapters(torch.nn.Linear(4, 4), 2)
