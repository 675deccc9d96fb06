"""Scores of windows → segments: smoothing, hysteresis and a least length. The whole rule is here.

1. *Smoothing.* Time is cut into cells, `CELLS` of them a step. A cell's scores are the mean over the windows that hold
   its middle; a window counts ``1 - 2 d / w``, with d the distance of its middle from the cell's and w its length. With
   a step of half a window that is linear interpolation between the middles of the windows (`Smoother`).
2. *Hysteresis.* A label begins in a cell where it is the best and reaches the threshold. It goes on while its score is
   at least `HOLD` of the threshold, unless another label reaches the threshold and is `MARGIN` times as high.
   Other cells have no label.
3. *Least length.* A run of cells that all have one label, or none, is settled once it is as long as ``min_length``.
   Shorter runs between two settled ones are divided where the sum of scores is highest: what comes before goes to
   the earlier run's label, what comes after to the later one's (a run without a label counts as the hold level).
   Short runs that together reach ``min_length`` are settled as one: by the label with the best mean score where that
   reaches the hold level, else without a label. What is short at the end goes to the run before it.

Neighboring runs with one label are one. So segments are in order, do not overlap, and none is shorter than
``min_length`` (but for a video that is shorter itself); and where one label reaches the threshold and `MARGIN` times
any other for at least ``min_length``, a segment of this label covers it. All of it needs to look ahead by less than
two windows and ``min_length``, so segments come while the video is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from vidcls.engines import Floats
from vidcls.errors import UsageError

CELLS = 4
"""Cells in one step: how finely the places where labels change are told."""
HOLD = 0.6
"""Share of the threshold at which a label that has begun goes on."""
MARGIN = 1.25
"""How many times as high another label's score must be to end one that could go on."""
_SLACK = 1e-6  # seconds, for sums of floats


@dataclass(frozen=True)
class Cell:
    """A stretch of time and the scores (k,) of all labels in it."""

    start: float
    end: float
    scores: Floats


@dataclass
class Run:
    """Neighboring cells with one label, or none.

    Attributes:
        label: Index of the class, or None.
        start: Seconds.
        end: Seconds.
        scores: (k,) mean over the run, by time.
    """

    label: int | None
    start: float
    end: float
    scores: Floats = field(repr=False)

    def add(self, cells: Iterable[Cell]) -> None:
        """Lengthen the run by cells that follow it."""
        for cell in cells:
            share = (cell.end - cell.start) / max(cell.end - self.start, 1e-12)
            self.scores = self.scores + np.float32(share) * (cell.scores - self.scores)
            self.end = cell.end


class Smoother:
    """Scores of windows, in order → cells.

    Args:
        step: Seconds from window to window.
        duration: Of the video in seconds; the last cell ends there, and is a half to one and a half of the others.
    """

    def __init__(self, step: float, duration: float) -> None:
        self._edges = cell_edges(step, duration)
        self._next = 0
        self._windows: list[tuple[float, float, Floats]] = []

    def push(self, start: float, end: float, scores: Floats) -> Iterator[Cell]:
        """Take a window; yields the cells that no later window can change."""
        yield from self._until(start)
        self._windows.append((start, end, scores))

    def finish(self) -> Iterator[Cell]:
        """Yield what is left once all windows are there."""
        yield from self._until(float("inf"))

    def _until(self, start: float) -> Iterator[Cell]:
        while self._windows and self._next < len(self._edges) - 1:
            left, right = self._edges[self._next : self._next + 2]
            middle = (left + right) / 2
            if middle >= start:
                return
            self._next += 1
            self._windows = [one for one in self._windows if one[1] > left] or self._windows[-1:]
            yield Cell(left, right, self._mean(middle))

    def _mean(self, middle: float) -> Floats:
        held = [one for one in self._windows if one[0] <= middle < one[1]] or self._windows[-1:]
        weights = [1 - abs(2 * middle - start - end) / max(end - start, 1e-9) for start, end, _ in held]
        weights = [max(weight, 1e-3) for weight in weights]  # a cell on the very edge of the only window
        return np.average([scores for *_, scores in held], axis=0, weights=weights).astype(np.float32)


def cell_edges(step: float, duration: float) -> list[float]:
    """Return the edges of the cells of a video, in seconds."""
    cell = step / CELLS
    count = max(1, round(duration / cell)) if cell > 0 else 1
    return [*(number * cell for number in range(count)), duration]


class Segmenter:
    """Cells, in order → runs; see the module's rule.

    Args:
        threshold: Score, above 0 and at most 1, that a label must reach.
        min_length: Of a run in seconds.

    Raises:
        UsageError: One of them is not valid.
    """

    def __init__(self, threshold: float = 0.5, min_length: float = 1.0) -> None:
        if not 0 < threshold <= 1:
            raise UsageError(
                "threshold", f"{threshold:g} is not above 0 and at most 1", "give a score, such as 0.5"
            )
        if not 0 <= min_length <= 86_400:
            raise UsageError(
                "min_length", f"{min_length:g} s is not a valid length", "give 0 to 86400 seconds"
            )
        self._threshold, self._min_length = threshold, min_length
        self._label: int | None = None  # of the last cell
        self._settled: Run | None = None
        self._within = False  # whether the last cell belongs to it
        self._short: list[Cell] = []  # runs after it that ended too soon
        self._open: list[Cell] = []  # the run that goes on
        self._open_label: int | None = None

    def push(self, cell: Cell) -> Iterator[Run]:
        """Take a cell; yields a run that no later cell can change."""
        label = self._label = self._decide(cell.scores)
        if self._within and self._settled is not None and label == self._settled.label:
            self._settled.add([cell])
            return
        if not self._open or label != self._open_label:
            self._short += self._open
            self._open, self._open_label = [], label
        self._within = False
        self._open.append(cell)
        if self._is_long(self._short):
            short, self._short = self._short, []
            yield from self._settle(self._common(short, HOLD), short)
            if self._settled is not None and label == self._settled.label:
                self._join(self._open)
                return
        if self._is_long(self._open):
            yield from self._settle(label, self._open)
            self._open, self._within = [], True

    def finish(self) -> Iterator[Run]:
        """Yield what is left once all cells are there."""
        rest = self._short + self._open
        if rest and self._settled is None:
            self._settled = _run(self._common(rest, 1.0), rest)
        elif rest and self._settled is not None:
            self._settled.add(rest)
        if self._settled is not None:
            yield self._settled

    def _decide(self, scores: Floats) -> int | None:
        best, label = int(scores.argmax()), self._label
        if label is not None and scores[label] >= HOLD * self._threshold:
            other = scores[best] >= self._threshold and scores[best] >= MARGIN * scores[label]
            if best == label or not other:
                return label
        return best if scores[best] >= self._threshold else None

    def _is_long(self, cells: list[Cell]) -> bool:
        return bool(cells) and cells[-1].end - cells[0].start >= self._min_length - _SLACK

    def _common(self, cells: list[Cell], share: float) -> int | None:
        """The label with the best mean score where that reaches a share of the threshold."""
        mean = _run(None, cells).scores
        best = int(mean.argmax())
        return best if mean[best] >= share * self._threshold else None

    def _join(self, cells: list[Cell]) -> None:
        assert self._settled is not None
        self._settled.add(cells)
        self._open, self._within = [], True

    def _settle(self, label: int | None, cells: list[Cell]) -> Iterator[Run]:
        before, short, self._short = self._settled, self._short, []
        if before is not None and before.label == label:
            before.add(short + cells)
            return
        split = 0 if before is None else self._split(short, before.label, label)
        self._settled = _run(label, short[split:] + cells)
        if before is not None:
            before.add(short[:split])
            yield before

    def _split(self, cells: list[Cell], before: int | None, after: int | None) -> int:
        """How many of the cells go to the run before them."""
        gains = [
            (self._level(cell, before) - self._level(cell, after)) * (cell.end - cell.start) for cell in cells
        ]
        return int(np.argmax(np.concatenate([[0.0], np.cumsum(gains)])))

    def _level(self, cell: Cell, label: int | None) -> float:
        return HOLD * self._threshold if label is None else float(cell.scores[label])


def _run(label: int | None, cells: list[Cell]) -> Run:
    first = cells[0]
    run = Run(label, first.start, first.end, first.scores)
    run.add(cells[1:])
    return run
