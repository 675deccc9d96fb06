"""Training of the bundled model, and the bundled model itself."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cv2")

from vidcls.training import camera_motion as cm
from vidcls.training import synthesize as files
from vidcls.training.camera import LABELS
from vidcls.training.effects import encode
from vidcls.training.motion_teacher import motion_targets

TINY = cm.Settings(
    seed=3,
    steps=5,
    warmup=2,
    batch=16,
    repeats=1,
    image_size=16,
    embed_dim=16,
    depth=2,
    temporal_depth=1,
    num_heads=2,
)


def step_of(pan=0.0, tilt=0.0, zoom=0.0, roll=0.0):
    return torch.tensor([pan, tilt, zoom, roll]).expand(1, 31, 4)


def test_targets_are_the_way_of_the_picture():
    settings = cm.Settings()

    def flow(**camera):
        grid = motion_targets(step_of(**camera), settings)[0][0, 0, :, :2].reshape(6, 6, 2)
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
    flow, motion = motion_targets(steps, cm.Settings())
    assert flow[0, 0].isnan().all()
    assert motion[0, 0].isnan().all()
    assert not flow[0, 1:].isnan().any()


def test_whitened_tokens_are_white():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 20, (40, 1, 16, 16, 1)) + rng.normal(0, 40, (40, 1, 1, 1, 1)) + 128
    clips = np.clip(base + rng.normal(0, 15, (40, 8, 16, 16, 3)), 0, 255).astype(np.uint8)
    kernels, bias = cm.whitened_patch_filters(clips, (4, 4, 4), 24)
    assert kernels.shape == (24, 3, 4, 4, 4)
    tokens = torch.nn.functional.conv3d(cm.normalised(torch.from_numpy(clips)), kernels, bias, stride=4)
    tokens = tokens.transpose(0, 1).flatten(1).double()
    covariance = torch.cov(tokens)
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 1e-3
    assert covariance.diagonal().max() < 1.01
    assert tokens.mean(1).abs().max() < 1e-3


def test_positions_tell_places_apart():
    table = cm.sine_positions((6, 6), 128, 24.0)
    assert table.shape == (36, 128)
    assert torch.cdist(table, table).add(torch.eye(36) * 9).min() > 1


def test_rate_rises_and_falls_to_zero():
    settings = replace(TINY, steps=100, warmup=10)
    rates = [cm.learning_rate(settings, step) for step in range(100)]
    assert rates[9] == max(rates) == settings.learning_rate
    assert rates[-1] < 0.01 * settings.learning_rate


def test_a_broken_off_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(cm, "WHITENING_BLOCKS", 1)
    whole = cm.train(tmp_path / "whole", TINY, snapshot_s=0, test_clips=10)
    save, count = cm.save_snapshot, 0

    def save_twice(path, **content):
        nonlocal count
        save(path, **content)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cm, "save_snapshot", save_twice)
    with pytest.raises(KeyboardInterrupt):
        cm.train(tmp_path / "broken", TINY, snapshot_s=0, test_clips=10)
    monkeypatch.setattr(cm, "save_snapshot", save)
    resumed = cm.train(tmp_path / "broken", TINY, snapshot_s=0, test_clips=10)
    one, other = (torch.load(p.parent / "snapshot.pt", weights_only=True) for p in (whole, resumed))
    assert one["step"] == other["step"] == TINY.steps
    for key in ("model", "average", "teacher"):
        for name, value in one[key].items():
            assert torch.equal(value, other[key][name]), (key, name)


BUNDLED = Path(cm.__file__).parents[1] / "bundled" / "camera-motion.safetensors"


def test_bundled_model_is_small_and_says_what_made_it():
    from safetensors import safe_open

    assert BUNDLED.stat().st_size < 15e6
    with safe_open(BUNDLED, "pt") as file:
        text = json.dumps(file.metadata())
    assert "vidcls.training.camera_motion" in text
    assert "counter-clockwise" in text


def test_bundled_model_tells_new_clips(tmp_path):
    """Sixty clips that no training run has seen, encoded, and read as `vidcls predict` reads them."""
    from vidcls.loading import load

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
