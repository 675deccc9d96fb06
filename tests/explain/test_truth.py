"""Explanations are true: the hottest cells are where what decides is, and removing them costs the class most."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.test_all_architectures import FRAMES, SIZE, every_architecture, tiny
from tests.scripts import load_script
from vidcls.engines import make_engine
from vidcls.explain.attention import explain_view
from vidcls.explain.occlusion import log_odds, occlude
from vidcls.models.tokens import grid_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PLAIN = (np.ones(3, np.float32), np.zeros(3, np.float32))


@pytest.fixture(scope="module")
def truth() -> Iterator[Any]:
    """The benchmark as a module; it imports the one that has the task."""
    before = dict(sys.modules)
    module = load_script("benchmarks/explain_truth.py")
    yield module
    sys.path.remove(str(BENCHMARKS))
    for name in {*sys.modules} - {*before}:
        if name == "motion_ablation":
            del sys.modules[name]


@pytest.mark.slow
def test_one_small_moving_blob_decides_and_is_found(truth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation = sys.modules["motion_ablation"]
    monkeypatch.setattr(ablation, "fit_width", lambda design, mmacs: 32)
    design = next(one for one in truth.DESIGNS if one.architecture == "vivit-fe")
    design = replace(design, config={**design.config, "depth": 1, "temporal_depth": 1})
    model, _ = ablation.fit(design, truth.Setting(steps=500, batch=24, learning_rate=4e-3))
    found = truth.measure(model, 60)
    assert found["clips"] >= 54  # it has learned the task
    for method in ("gradient", "occlusion"):
        assert found[method]["chance"] < 0.25
        assert found[method]["hits"] >= 0.8
        assert found[method]["lost_hottest"] > 2 * found[method]["lost_random"]
        assert found[method]["hottest_cost_more"] >= 0.8


def loss(engine: Any, view: np.ndarray, target: int, grid: tuple[int, ...], chosen: Any) -> float:
    """Log-odds that a class loses when the chosen cells of a view (t, h, w, 3) are covered."""
    cells = np.zeros(int(np.prod(grid)), bool)
    cells[chosen] = True
    covered = cells.reshape(grid)
    for axis, (size, count) in enumerate(zip((FRAMES, *SIZE), grid, strict=True)):
        covered = covered.repeat(size // count, axis)
    hidden = np.where(covered[..., None], view.reshape(-1, 3).mean(0), view).astype(np.float32)
    odds = log_odds(engine(np.stack([view, hidden]), None, PLAIN), (target, False))
    return float(odds[0] - odds[1])


@every_architecture
@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_removing_the_hottest_cells_costs_more_than_removing_others(architecture: str, method: str) -> None:
    """The hottest fifth of the cells against random ones, for the class that the model names, over several clips."""
    model = tiny(architecture)
    engine = make_engine(model, "cpu", "fp32", "eager")
    generator, rng = torch.Generator().manual_seed(3), np.random.default_rng(3)
    hottest, others = [], []
    for _ in range(6):
        batch = torch.randn(1, 3, FRAMES, *SIZE, generator=generator)
        view = np.ascontiguousarray(batch.numpy()[0].transpose(1, 2, 3, 0))
        target = int(engine(batch.numpy())[0].argmax())
        if method == "gradient":
            heat = explain_view(model, batch, None, (target, False), method)
        else:
            grid = grid_of(model, FRAMES, SIZE)
            heat = occlude(engine, view, None, PLAIN, (target, False), grid)
        count = max(1, round(0.2 * heat.size))
        hottest.append(loss(engine, view, target, heat.shape, np.argsort(-heat.ravel())[:count]))
        draws = [rng.permutation(heat.size)[:count] for _ in range(4)]
        others.append(np.mean([loss(engine, view, target, heat.shape, draw) for draw in draws]))
    assert np.mean(hottest) > np.mean(others)
