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
# What a model is given of a view, how to make the same of one with a covered box, and inputs and indices → logits.
Way = tuple[
    NDArray[Any], Callable[[Any], NDArray[Any]], Callable[[NDArray[Any], NDArray[np.int64] | None], Floats]
]
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
        progress: Called for each cell that is done.
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
    way = (_by_units if engine.unit_frames else _whole)(engine, view, scale_shift, fill)
    base, covered = _logits(way, frame_indices, boxes, progress)
    lost = log_odds(base, target) - log_odds(covered, target)
    return lost.reshape([len(span) for span in spans]).astype(np.float32)


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


def _whole(engine: Engine, view: NDArray[Any], scale_shift: ScaleShift, fill: NDArray[Any]) -> Way:
    """The view itself, how a box of it is covered, and the whole model."""
    return (
        view,
        lambda box: _cover(view, box, fill),
        lambda views, indices: engine(views, indices, scale_shift),
    )


def _by_units(engine: Engine, view: NDArray[Any], scale_shift: ScaleShift, fill: NDArray[Any]) -> Way:
    """The view's features, how those of a covered box differ, and the classifier: only covered units are encoded."""
    unit = engine.unit_frames
    steps = len(view) // unit
    features = engine.encode(view[: steps * unit].reshape(steps, unit, *view.shape[1:]), scale_shift)

    def cover(box: Any) -> NDArray[Any]:
        (t0, t1), *place = box
        first, last = t0 // unit, min(steps, -(-t1 // unit))
        cut = _cover(view[first * unit : last * unit], ((0, len(view)), *place), fill)
        copy: NDArray[Any] = features.copy()
        copy[first:last] = engine.encode(cut.reshape(last - first, unit, *view.shape[1:]), scale_shift)
        return copy

    return features, cover, engine.classify


def _logits(
    way: Way,
    frame_indices: NDArray[np.int64] | None,
    boxes: list[Any],
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    """Logits of the view (1, k) and of each covered one (n, k)."""
    plain, cover, run = way

    def logits(inputs: NDArray[Any]) -> Floats:
        return run(inputs, None if frame_indices is None else np.repeat(frame_indices[None], len(inputs), 0))

    base, found = logits(plain[None]), []
    for part in batches(len(boxes), VIEW_BATCH):
        found.append(logits(np.stack([cover(box) for box in boxes[part]])))
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
    return values[:, index] - top - np.log(np.exp(others - top[:, None]).sum(1))
