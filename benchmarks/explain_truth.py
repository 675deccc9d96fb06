"""Are explanations true? Every design at toy size, on a task where one small moving blob alone decides.

    python benchmarks/explain_truth.py

The designs, the task and the training are those of `benchmarks/motion_ablation.py`. Two questions are asked of each:

- Is the hottest cell on the blob? A cell is on the blob where the blob is at least half as bright as in its middle
  somewhere within it; the share of all cells for which that is so is what chance would give.
- Deletion: with the hottest 20 % of the cells covered, does the class lose more than with as many random ones? Said is
  the mean loss of log-odds of both, and in how many clips the hottest cost more.

Designs that cannot see motion are measured too; what they look at decides little. Writes docs/explain-truth.json and
.md. A design whose figures are in the .json is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from motion_ablation import DESIGNS, FRAMES, SIDE, TEST_SEED, TUBELETS, Design, Setting, draw_batch, fit

from vidcls.engines import make_engine
from vidcls.explain.attention import explain_view
from vidcls.explain.occlusion import log_odds, occlude
from vidcls.models.tokens import grid_of

PLAIN = (np.ones(3, np.float32), np.zeros(3, np.float32))  # the clips are numbers already
REMOVED = 0.2
RANDOM = 5
"""Draws of random cells for each clip."""
MORE = (
    Design("VideoMAE", "videomae", TUBELETS),
    Design("V-JEPA 2", "vjepa2", {**TUBELETS, "pooler_depth": 1}),
    Design("VideoPrism", "videoprism", {**TUBELETS, "temporal_depth": 2}),
)
"""Designs that came after the comparison of motion_ablation.py."""
METHODS = ("gradient", "occlusion", "rollout")

Heat = NDArray[np.float32]


def heat_of(
    model: Any, engine: Any, clip: NDArray[np.float32], target: tuple[int, bool], method: str
) -> Heat:
    """Heat over the model's own grid of a clip (3, t, h, w)."""
    grid = grid_of(model, FRAMES, (SIDE, SIDE))
    if method == "occlusion":
        return occlude(engine, clip.transpose(1, 2, 3, 0), None, PLAIN, target, grid)
    return explain_view(model, torch.from_numpy(clip[None]), None, target, method)


def in_cells(values: NDArray[Any], grid: tuple[int, int, int]) -> NDArray[Any]:
    """The highest value (t, h, w) within each cell."""
    t, h, w = (size // count for size, count in zip(values.shape, grid, strict=True))
    return values.reshape(grid[0], t, grid[1], h, grid[2], w).max((1, 3, 5))


def cover(clip: NDArray[np.float32], cells: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Cover cells (t, h, w) of a clip (3, t, h, w) with its mean color."""
    covered = cells
    for axis, size in enumerate(clip.shape[1:]):
        covered = covered.repeat(size // cells.shape[axis], axis)
    return np.where(covered[None], clip.mean((1, 2, 3), keepdims=True), clip)


def losses(
    engine: Any, clip: NDArray[np.float32], target: tuple[int, bool], heat: Heat, rng: np.random.Generator
) -> tuple[float, float]:
    """Log-odds lost with the hottest cells covered, and with as many random ones (mean)."""
    count = max(1, round(REMOVED * heat.size))
    picks = [np.argsort(-heat.ravel(), kind="stable")[:count]]
    picks += [rng.permutation(heat.size)[:count] for _ in range(RANDOM)]
    clips = [clip]
    for pick in picks:
        cells = np.zeros(heat.size, bool)
        cells[pick] = True
        clips.append(cover(clip, cells.reshape(heat.shape)))
    odds = log_odds(engine(np.stack(clips).astype(np.float32)), target)
    return float(odds[0] - odds[1]), float(odds[0] - odds[2:].mean())


def measure(model: nn.Module, clips: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Ask both questions of a trained model, on clips that it has not seen and gets right."""
    model.eval()
    engine = make_engine(model, "cpu", "fp32", "eager")
    batch, labels, blobs = draw_batch(TEST_SEED, 1, clips)
    right = np.flatnonzero(engine(batch).argmax(1) == labels)
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"clips": len(right)}
    for method in METHODS:
        hits, chance, lost = [], [], []
        for number in right:
            heat = heat_of(model, engine, batch[number], (int(labels[number]), False), method)
            on_blob = in_cells(blobs[number], heat.shape) >= 0.5
            hits.append(bool(on_blob.ravel()[heat.argmax()]))
            chance.append(float(on_blob.mean()))
            lost.append(losses(engine, batch[number], (int(labels[number]), False), heat, rng))
        hottest, random = np.array(lost).T
        found[method] = {
            "hits": float(np.mean(hits)),
            "chance": float(np.mean(chance)),
            "lost_hottest": float(hottest.mean()),
            "lost_random": float(random.mean()),
            "hottest_cost_more": float((hottest > random).mean()),
        }
        say(f"  {method}: {found[method]}")
    return found


def write_table(results: dict[str, Any], setting: Setting, clips: int, path: Path) -> None:
    """Write the page with the table."""
    text = f"""# Are the explanations true?

`python benchmarks/explain_truth.py` trains the designs of [Which designs see motion?](motion-ablation.md) on its task:
one small blob that moves over a still, grainy background decides alone. {clips} clips of another seed are explained,
those that the model gets right. *On the blob* is the share of clips whose hottest cell is where the blob is; *chance*
is what a random cell would reach. *Lost* is how many log-odds the class loses when the hottest 20 % of the cells are
covered, and with as many random ones; *more* is the share of clips in which the hottest cost more.

| design | method | on the blob | chance | lost, hottest | lost, random | more |
|---|---|--:|--:|--:|--:|--:|
"""
    for design in (*DESIGNS, *MORE):
        for method in METHODS:
            row = results.get(design.architecture, {}).get(method)
            if row:
                lost = (
                    f"{row['lost_hottest']:.1f} | {row['lost_random']:.1f} | {row['hottest_cost_more']:.0%}"
                )
                text += f"| {design.title} | {method} | {row['hits']:.0%} | {row['chance']:.0%} | {lost} |\n"
    text += f"\n{setting.steps} steps of {setting.batch} clips, one seed.\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Train and measure what has no figures yet, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the page"
    )
    parser.add_argument("--models", nargs="*", help="architectures to train; all by default")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--clips", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(steps=options.steps)
    asked = {"setting": asdict(setting), "clips": options.clips}
    store = options.out / "explain-truth.json"
    saved = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    results = saved.get("results", {}) if {**saved, "results": 0} == {**asked, "results": 0} else {}
    for design in (*DESIGNS, *MORE):
        if design.architecture in results or (options.models and design.architecture not in options.models):
            continue
        begun = time.process_time()
        print(design.title, file=sys.stderr, flush=True)
        model, _ = fit(design, setting)
        say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
        results[design.architecture] = measure(model, options.clips, say)
        print(f"  {time.process_time() - begun:.0f} processor seconds", file=sys.stderr, flush=True)
        store.write_text(json.dumps({**asked, "results": results}, indent=1) + "\n", encoding="utf-8")
        write_table(results, setting, options.clips, options.out / "explain-truth.md")
    print(options.out / "explain-truth.md")


if __name__ == "__main__":
    main()
