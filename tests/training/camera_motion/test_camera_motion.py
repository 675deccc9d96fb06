"""Training of the bundled model, and the bundled model itself."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

import vidcls
from vidcls.errors import ConfigError
from vidcls.models import build
from vidcls.training.camera_motion import synthesize as files
from vidcls.training.camera_motion.camera import LABELS
from vidcls.training.camera_motion.degradations import encode
from vidcls.training.camera_motion.motion_loss import motion_targets
from vidcls.training.camera_motion.motion_start import fill_positions, sine_positions, whitened_patch_filters
from vidcls.training.recipe_file import read_recipe
from vidcls.training.trainer import train

SMALL = {"image_size": 16, "embed_dim": 16, "depth": 2, "temporal_depth": 1, "num_heads": 2}


def step_of(pan=0.0, tilt=0.0, zoom=0.0, roll=0.0):
    return torch.tensor([pan, tilt, zoom, roll]).expand(1, 31, 4)


def test_targets_are_the_way_of_the_picture():
    def flow(**camera):
        grid = motion_targets(step_of(**camera), 48, (4, 8, 8))[0][0, 0, :, :2].reshape(6, 6, 2)
        return grid[0, 0], grid[0, 5], grid[5, 0]  # top left, top right, bottom left; (right, down)

    assert all(f[0] < 0 and f[1] == 0 for f in flow(pan=0.01))  # camera right, picture left
    assert all(f[1] > 0 and f[0] == 0 for f in flow(tilt=0.01))  # camera up, picture down
    top_left, top_right, bottom_left = flow(zoom=0.01)
    assert (top_left < 0).all()
    assert top_right[0] > 0 > top_right[1]
    assert bottom_left[0] < 0 < bottom_left[1]
    # The camera turns clockwise, the picture counter-clockwise: its top moves left, its left side down.
    top_left, top_right, bottom_left = flow(roll=0.01)
    assert top_left[0] < 0 < top_left[1]
    assert top_right[0] < 0
    assert top_right[1] < 0
    assert bottom_left[0] > 0
    assert bottom_left[1] > 0


def test_unknown_steps_are_not_taught():
    steps = step_of(pan=0.01).clone()
    steps[0, 1] = float("nan")
    flow, motion = motion_targets(steps, 48, (4, 8, 8))
    assert flow[0, 0].isnan().all()
    assert motion[0, 0].isnan().all()
    assert not flow[0, 1:].isnan().any()


def test_whitened_tokens_are_white():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 20, (40, 1, 16, 16, 1)) + rng.normal(0, 40, (40, 1, 1, 1, 1)) + 128
    clips = np.clip(base + rng.normal(0, 15, (40, 8, 16, 16, 3)), 0, 255).astype(np.uint8)
    views = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() * (2 / 255) - 1
    kernels, bias = whitened_patch_filters(clips, (4, 4, 4), 24)
    assert kernels.shape == (24, 3, 4, 4, 4)
    tokens = torch.nn.functional.conv3d(views, kernels, bias, stride=4)
    tokens = tokens.transpose(0, 1).flatten(1).double()
    covariance = torch.cov(tokens)
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 1e-3
    assert covariance.diagonal().max() < 1.01
    assert tokens.mean(1).abs().max() < 1e-3


def test_positions_tell_places_apart():
    table = sine_positions((6, 6), 128, 24.0)
    assert table.shape == (36, 128)
    assert torch.cdist(table, table).add(torch.eye(36) * 9).min() > 1


def test_positions_are_filled_by_name_and_amplitude():
    model = build("vivit-fe", num_frames=8, num_classes=2, pool="gap", tubelet_size=(4, 8, 8), **SMALL)
    fill_positions(model, {"temporal.pos_embed": 0.5})
    assert torch.equal(model.get_parameter("temporal.pos_embed")[0], sine_positions((2,), 16, 32.0) * 0.5)
    assert model.get_parameter("spatial.pos_embed").abs().max() < 0.2
    with pytest.raises(ConfigError, match=r"head\.weight is not a position embedding.*spatial\.pos_embed"):
        fill_positions(model, {"head.weight": 0.5})
    with_token = build("vivit-fe", num_frames=8, num_classes=2, pool="token", tubelet_size=(4, 8, 8), **SMALL)
    with pytest.raises(ConfigError, match="pool: gap"):
        fill_positions(with_token, {"spatial.pos_embed": 0.5})


def test_the_recipe_starts_as_it_says(tmp_path):
    """One step of the shipped recipe at toy size, at a rate too small to move anything that was set."""
    changes = {
        "config": SMALL,
        "input": {"image_size": 16, "resize": 16},
        "synthetic": {"repeats": 1, "val_clips": 10},
        "init": {"whiten": 16},
        "optimizer": {"lr": 1e-9},
        "schedule": {"epochs": 1, "warmup_epochs": 0},
        "clips_per_epoch": 16,
        "precision": "fp32",
        "workers": 0,
        "ema": 0,
    }
    train(read_recipe("camera-motion", changes), tmp_path / "run", quiet=True)
    weights = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert torch.allclose(weights["spatial.pos_embed"][0], sine_positions((2, 2), 16, 24.0) * 0.4, atol=1e-6)
    assert torch.allclose(weights["temporal.pos_embed"][0], sine_positions((8,), 16, 32.0) * 0.2, atol=1e-6)
    assert weights["spatial.blocks.0.attn.proj.weight"].abs().max() < 1e-6
    assert weights["temporal.blocks.0.attn.proj.weight"].abs().max() > 1e-3
    kernel = weights["patch_embed.proj.weight"].sum((2, 3, 4))
    assert torch.allclose(
        kernel / kernel.sum(1, keepdim=True), torch.tensor([0.299, 0.587, 0.114]), atol=1e-3
    )


def test_the_bundled_model_can_be_trained_further(tmp_path):
    changes = {
        "clips_per_epoch": 16,
        "batch_size": 4,
        "synthetic": {"repeats": 1, "val_clips": 8},
        "workers": 0,
    }
    recipe = read_recipe("camera-motion-further", {**changes, "schedule": {"epochs": 1}})
    assert recipe.synthetic.busy_steps == 0
    assert recipe.init.sines is None
    result = train(recipe, tmp_path / "run", quiet=True)
    assert result.scores is not None
    assert result.scores["top1"] >= 0.5  # chance is 0.1


BUNDLED = Path(vidcls.__file__).parent / "zoo" / "bundled" / "camera-motion.safetensors"


def test_bundled_model_is_small_and_says_what_made_it():
    from safetensors import safe_open

    assert BUNDLED.stat().st_size < 15e6
    with safe_open(BUNDLED, "pt") as file:
        text = json.dumps(file.metadata())
    assert "synthetic:camera-motion" in text  # the recipe
    assert "counter-clockwise" in text


def test_bundled_model_tells_new_clips(tmp_path):
    """Sixty clips that no training run has seen, encoded, and read as `vidcls predict` reads them."""
    from vidcls.inference.load import load

    right = []
    with load(BUNDLED) as classifier:
        for index in range(60):
            plan = files.plan_clip(987_654, index)
            plan = replace(plan, width=192, height=144, fps=Fraction(25), frames=64)
            frames, _ = files.film(plan)
            encode(str(tmp_path / plan.name), frames, plan.fps, 24, "ultrafast")
            row = classifier.predict(tmp_path / plan.name, top_k=1).row
            right.append(row["predictions"][0]["label"] == LABELS[index % len(LABELS)])
    assert np.mean(right) >= 0.85
