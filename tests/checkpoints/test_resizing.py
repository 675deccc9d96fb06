"""Other numbers of frames and other sizes than a checkpoint's, for every architecture and every way to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.test_all_architectures import CONFIGS, FRAMES, SIZE, every_architecture, tiny
from vidcls.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from vidcls.config import InputSpec
from vidcls.models import build
from vidcls.training.init.initialize import initialize

WITHOUT_POSITIONS = ("vt-frames", "videomae", "vjepa2")
"""Architectures that compute their positions, or have none."""
OTHER: dict[str, Any] = {"num_frames": 2 * FRAMES, "image_size": (32, 24)}


def views(sizes: dict[str, Any]) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, sizes["num_frames"], *sizes["image_size"], generator=generator)


def saved(architecture: str, folder: Path) -> Path:
    seen = {"image_size": SIZE, "resize": 20, "num_frames": FRAMES}
    save_checkpoint(tiny(architecture), folder / "model.safetensors", input=seen)
    return folder / "model.safetensors"


@every_architecture
@torch.no_grad()
def test_b13_our_own_files_take_other_sizes(architecture: str, tmp_path: Path) -> None:
    path = saved(architecture, tmp_path)
    model = load_checkpoint(path, **OTHER)
    logits = model(views(OTHER))
    assert logits.isfinite().all()
    checkpoint = read_checkpoint(path, **OTHER)
    spec = InputSpec(**(checkpoint.input or {}))
    assert (spec.image_size, spec.num_frames) == ((32, 24), 2 * FRAMES)
    assert spec.resize == 30  # in proportion to the shorter side
    said = [note for note in checkpoint.notes if "interpolated" in note]
    assert len(said) == (architecture not in WITHOUT_POSITIONS)
    same = read_checkpoint(path, num_frames=FRAMES, image_size=SIZE)
    assert not same.notes
    assert all(
        torch.equal(same.state[key], tensor) for key, tensor in tiny(architecture).state_dict().items()
    )


@every_architecture
@pytest.mark.parametrize("other", [{"num_frames": 2 * FRAMES}, {"image_size": (32, 24)}, OTHER], ids=str)
@torch.no_grad()
def test_b13_training_starts_from_a_checkpoint_of_other_views(
    architecture: str, other: dict[str, Any], tmp_path: Path
) -> None:
    path = saved(architecture, tmp_path)
    sizes = {"num_frames": FRAMES, "image_size": SIZE, **other}
    model = build(architecture, **CONFIGS[architecture], **sizes, num_classes=3).eval()
    report = initialize(model, path)
    assert all(name.startswith("head.") for name in report.fresh)
    loaded = load_checkpoint(path, **other)
    trunk = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("head.")}
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in trunk.items())
    assert model(views(sizes)).shape == (2, 3)


@torch.no_grad()
def test_b13_more_frames_are_nearest_in_time_for_timesformer(tmp_path: Path) -> None:
    """The rule of the released code's loader: each of four time embeddings stands for two of eight."""
    path = saved("timesformer-divided", tmp_path)
    old, new = load_checkpoint(path), load_checkpoint(path, num_frames=8)
    assert torch.equal(new.time_embed, old.time_embed.repeat_interleave(2, dim=1))


@torch.no_grad()
def test_b13_a_larger_picture_is_resized_as_timm_does_for_vtn(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm.layers")
    path = saved("vtn", tmp_path)
    old, new = load_checkpoint(path), load_checkpoint(path, image_size=(32, 24))
    expected = timm.resample_abs_pos_embed(
        old.backbone.pos_embed, new_size=(4, 3), old_size=(2, 3), num_prefix_tokens=1
    )
    assert (new.backbone.pos_embed - expected).abs().max() < 1e-6


def test_b13_what_cannot_be_fitted_is_said(tmp_path: Path) -> None:
    path = saved("vivit-st", tmp_path)
    with pytest.raises(Exception, match=r"whole tubelet|num_frames") as caught:
        load_checkpoint(path, num_frames=1)
    assert type(caught.value).__name__ in ("CheckpointError", "ConfigError")
