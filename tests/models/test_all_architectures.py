"""What every architecture owes, whatever it computes; sizes and figures at full scale are in test_count.py."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vidcls.checkpoints import load_checkpoint, save_checkpoint
from vidcls.models import ARCHITECTURES, build

FRAMES, SIZE, CLASSES = 4, (16, 24), 5
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
VIVIT = {**VIT, "tubelet_size": (2, 8, 8)}
CONFIGS: dict[str, dict[str, Any]] = {
    "vivit-st": VIVIT,
    "vivit-fe": {**VIVIT, "temporal_depth": 2},
    "vivit-fsa": VIVIT,
    "vivit-fdp": VIVIT,
    "timesformer-divided": {**VIT, "patch_size": 8},
    "timesformer-joint": {**VIT, "patch_size": 8},
    "timesformer-space": {**VIT, "patch_size": 8},
    "timesformer-local-global": {**VIT, "patch_size": 8},
    "timesformer-axial": {**VIT, "patch_size": 8},
    "videomae": VIVIT,
    "videoprism": {**VIVIT, "temporal_depth": 2},
    "vjepa2": {**VIVIT, "pooler_depth": 1},
    "vtn": {
        "backbone": {**VIT, "patch_size": 8},
        "attention_window": 2,
        "temporal_depth": 2,
        "temporal_num_heads": 3,
        "max_positions": 12,
    },
    "vit-frames": {**VIT, "patch_size": 8},
    "t2t-frames": {**VIT, "token_dim": 8},
    "timm-frames": {
        "model": "vit_tiny_patch16_224",
        "model_args": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "reg_tokens": 1},
    },
    "attentive": {
        "backbone_architecture": "vivit-st",
        "backbone": VIVIT,
        "embed_dim": 24,
        "num_heads": 2,
        "pooler_depth": 1,
    },
    "vt-frames": {"variant": "vt-resnet18", "width": 4, "map_dim": 24, "token_dim": 24, "num_tokens": 3},
}
# At rates that leave something of so small a model.
RATES = {"dropout": 0.3, "attn_dropout": 0.3, "head_dropout": 0.3, "drop_path_rate": 0.5}

every_architecture = pytest.mark.parametrize("architecture", list(ARCHITECTURES))


def tiny(architecture: str, rates: dict[str, float] | None = None) -> Any:
    """A small model in evaluation, no parameter of which is at a value that would hide anything."""
    torch.manual_seed(0)
    known = {field.name for field in fields(ARCHITECTURES[architecture][0])}
    # All rates at zero unless a test is about them.
    chosen = {name: (rates or {}).get(name, 0.0) for name in RATES if name in known}
    sizes = {"image_size": SIZE, "num_frames": FRAMES, "num_classes": CLASSES}
    model = build(architecture, **CONFIGS[architecture], **sizes, **chosen)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def views(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, FRAMES, *SIZE, generator=torch.Generator().manual_seed(1))


def without_effect(model: nn.Module) -> set[str]:
    """Parameters that lead to no logit by design."""
    if getattr(model, "architecture", "") != "vtn":
        return set()
    # VTN reads the class token alone, which the last layer makes by its global projections.
    last = f"temporal_encoder.layers.{model.config.temporal_depth - 1}.attn.qkv"  # type: ignore[union-attr]
    return {f"{last}.weight", f"{last}.bias"}


def stored_tables(model: nn.Module) -> set[str]:
    """Parameters that are drawn or computed once and never trained, but stored."""
    if getattr(model, "architecture", "") != "t2t-frames":
        return set()
    module = "backbone.tokens_to_token.attention"
    return {"backbone.pos_embed", f"{module}1.w", f"{module}2.w"}


@every_architecture
def test_every_parameter_learns(architecture: str) -> None:
    model = tiny(architecture)
    logits = model(views())
    assert logits.shape == (3, CLASSES)
    (logits * torch.randn_like(logits)).sum().backward()
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert fixed == stored_tables(model)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if name not in fixed}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    idle = {name for name, gradient in gradients.items() if not gradient.any()}
    assert idle == without_effect(model)


@every_architecture
@torch.no_grad()
def test_evaluation_is_deterministic_and_a_clip_does_not_see_its_batch(architecture: str) -> None:
    model = tiny(architecture, RATES)
    together = model(views())
    assert torch.equal(model(views()), together)
    for number in range(3):
        alone = model(views()[number : number + 1])
        assert (alone[0] - together[number]).abs().max() < 1e-5
    # What is dropped in training is not dropped here, nor scaled: the same weights without any rates agree.
    assert torch.equal(tiny(architecture)(views()), together)


@every_architecture
@torch.no_grad()
def test_each_rate_drops_something_in_training(architecture: str) -> None:
    known = {field.name for field in fields(ARCHITECTURES[architecture][0])} & set(RATES)
    assert known
    for rate in sorted(known):
        model = tiny(architecture, {rate: RATES[rate]}).train()
        outcomes = [model(views(2)) for _ in range(6)]  # a small model may be spared once or twice
        assert any(not torch.equal(outcome, outcomes[0]) for outcome in outcomes[1:]), rate
    plain = tiny(architecture).train()
    if architecture != "vt-frames":  # its batch norms have memory
        assert torch.equal(plain(views(2)), plain(views(2)))


@every_architecture
@torch.no_grad()
def test_can_be_exported(architecture: str) -> None:
    model = tiny(architecture)
    exported = torch.export.export(model, (views(1),)).module()
    other = torch.randn(1, 3, FRAMES, *SIZE)
    assert (exported(other) - model(other)).abs().max() < 1e-5


@every_architecture
@torch.no_grad()
def test_a_head_for_other_classes(architecture: str) -> None:
    model = tiny(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.reset_head(2)
    assert model(views()).shape == (3, 2)
    assert (model.num_classes, model.config.num_classes) == (2, 2)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


@every_architecture
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture, RATES)
    model.reset_head(3)  # the file must tell of changes after the model was built, too
    save_checkpoint(model, tmp_path / "model.safetensors")
    loaded: Any = load_checkpoint(tmp_path / "model.safetensors")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(loaded(views()), model(views()))


def test_no_architecture_is_left_out() -> None:
    assert set(CONFIGS) == set(ARCHITECTURES)


TOKENLESS = (
    "attentive",
    "vivit-fsa",
    "vivit-fdp",
    "timm-frames",
    "videomae",
    "videoprism",
    "vjepa2",
    "vt-frames",
)  # pooled over all tokens: nothing goes unread


@every_architecture
def test_inference_leaves_out_only_what_nothing_reads(architecture: str) -> None:
    model = tiny(architecture).double()
    logits, work = {}, {}
    for recording in (True, False):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(recording):
            logits[recording] = model(views().double()).detach()
        work[recording] = counter.get_total_flops()
    torch.testing.assert_close(logits[False], logits[True], atol=1e-10, rtol=0)
    assert work[False] == work[True] if architecture in TOKENLESS else work[False] < work[True]
