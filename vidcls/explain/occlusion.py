"""Occlusion: what a class loses when a part of a view is covered. Works with every engine; imports no torch.

Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks" (arXiv 1311.2901), section 4.2, over
space and time. A cell is covered with the view's mean color. A model that encodes frames or tubelets by themselves
encodes only those again in which something was covered.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Engine, Floats, ScaleShift
from vidcls.inference.shared_units import VIEW_BATCH, batches

Cells = tuple[int, int, int]  # along (t, h, w)
Target = tuple[int, bool]
"""Index of a class, and whether each class is a question of its own (sigmoid), or one of all is right (softmax)."""
DEFAULT_CELLS: Cells = (8, 7, 7)  # at most: 392 forward passes of a view


def occlude(
    engine: Engine,
    view: NDArray[Any],
    frame_indices: NDArray[np.int64] | None,
    scale_shift: ScaleShift,
    target: Target,
    cells: Cells,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """Log-odds that a class loses when each cell of a view is covered, (t, h, w) as ``cells`` says.

    Args:
        engine: Runs the model.
        view: Pixels (t, h, w, 3).
        frame_indices: (t,), for models that use them.
        scale_shift: What makes numbers of pixels.
        target: The class.
        cells: Into how many parts each axis is cut; a tubelet is never cut in time.
        progress: Is told of each cell that is done.
    """
    fill = view.reshape(-1, 3).mean(0).astype(view.dtype)
    unit = engine.unit_frames or 1
    edges = [
        _edges(len(view), cells[0], unit),
        _edges(view.shape[1], cells[1]),
        _edges(view.shape[2], cells[2]),
    ]
    spans = [list(pairwise(edge)) for edge in edges]
    boxes = list(product(*spans))
    run = _by_units if engine.unit_frames else _whole
    base, covered = run(engine, view, frame_indices, scale_shift, boxes, fill, progress)
    lost = log_odds(base, target) - log_odds(covered, target)
    heat: Floats = lost.reshape([len(span) for span in spans]).astype(np.float32)
    return heat


def _edges(length: int, parts: int, unit: int = 1) -> list[int]:
    """Where parts of an axis begin and end, at multiples of ``unit``."""
    units = max(1, length // unit)
    cuts = np.linspace(0, units, min(parts, units) + 1).round().astype(int) * unit
    cuts[-1] = length
    return [int(cut) for cut in cuts]


def _cover(pixels: NDArray[Any], box: Any, fill: NDArray[Any]) -> NDArray[Any]:
    (t0, t1), (y0, y1), (x0, x1) = box
    copy: NDArray[Any] = pixels.copy()
    copy[t0:t1, y0:y1, x0:x1] = fill
    return copy


def _whole(
    engine: Engine,
    view: NDArray[Any],
    indices: NDArray[np.int64] | None,
    scale_shift: ScaleShift,
    boxes: list[Any],
    fill: NDArray[Any],
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    """Logits of the view (1, k) and of each covered one (n, k)."""
    one = None if indices is None else indices[None]
    base, found = engine(view[None], one, scale_shift), []
    for part in batches(len(boxes), VIEW_BATCH):
        covered = np.stack([_cover(view, box, fill) for box in boxes[part]])
        many = None if indices is None else np.repeat(indices[None], len(covered), 0)
        found.append(engine(covered, many, scale_shift))
        _tell(progress, part)
    return base, np.concatenate(found)


def _by_units(
    engine: Engine,
    view: NDArray[Any],
    indices: NDArray[np.int64] | None,
    scale_shift: ScaleShift,
    boxes: list[Any],
    fill: NDArray[Any],
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    """As `_whole`; only units in which something is covered are encoded."""
    unit = engine.unit_frames
    steps = len(view) // unit
    features = engine.encode(view[: steps * unit].reshape(steps, unit, *view.shape[1:]), scale_shift)
    one = None if indices is None else indices[None]
    base, found = engine.classify(features[None], one), []
    for part in batches(len(boxes), VIEW_BATCH):
        changed = []
        for box in boxes[part]:
            (t0, t1), *place = box
            first, last = t0 // unit, min(steps, -(-t1 // unit))
            cut = _cover(view[first * unit : last * unit], ((0, len(view)), *place), fill)
            copy = features.copy()
            copy[first:last] = engine.encode(cut.reshape(last - first, unit, *view.shape[1:]), scale_shift)
            changed.append(copy)
        many = None if indices is None else np.repeat(indices[None], len(changed), 0)
        found.append(engine.classify(np.stack(changed), many))
        _tell(progress, part)
    return base, np.concatenate(found)


def _tell(progress: Callable[[int], None] | None, part: slice) -> None:
    if progress is not None:
        progress(part.stop - part.start)


def log_odds(logits: Floats, target: Target) -> NDArray[np.float64]:
    """How much more likely a class is than not, from logits (n, k) → (n,)."""
    index, alone = target
    values: NDArray[np.float64] = logits.astype(np.float64)
    if alone or values.shape[1] == 1:
        return values[:, index]
    others = np.delete(values, index, axis=1)
    top = others.max(1)
    odds: NDArray[np.float64] = values[:, index] - top - np.log(np.exp(others - top[:, None]).sum(1))
    return odds
