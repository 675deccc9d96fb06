"""``num_views="auto"``: score views one after another, until the answer can no longer plausibly change.

The views are those of the fixed protocol, and their outputs are averaged as there; with all of them seen the answer
is the same. Only their order is new, and that the rest is left out once the mean of those seen is far enough ahead.
Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Engine, Floats
from vidcls.errors import UsageError
from vidcls.inference.clip import Clip
from vidcls.inference.shared_units import classify_units, cut_clip, encode_units, score_pixels
from vidcls.views.transform import ClipPlan, pixel_scale_shift

AUTO = "auto"
MAX_VIEWS = 1024
PRIOR = 1.0
"""Views that the calibrated spread counts as, beside those seen of the clip."""


def parse_views(wanted: int | str | None) -> tuple[int | None, bool]:
    """Return how many temporal views there are at most, None for the model's own, and whether to stop early.

    Args:
        wanted: A number, ``auto``, or ``auto:N`` for another number than the model's.

    Raises:
        UsageError: It is none of these.
    """
    if wanted is None or isinstance(wanted, int):
        return wanted, False
    word, colon, number = wanted.partition(":")
    valid = number.isascii() and number.isdigit() and 0 < int(number[:5]) <= MAX_VIEWS
    if (word == AUTO and valid) or wanted == AUTO:
        return (int(number) if colon else None), True
    raise UsageError(
        "num_views", f"{wanted!r} is not a number of views", f"give 1 to {MAX_VIEWS}, auto or auto:N"
    )


def view_order(num_views: int, num_crops: int) -> NDArray[np.int64]:
    """Return the numbers of all views, crop-major, in the order in which they cover the clip soonest.

    Of the temporal views the middle one comes first, then always one that is farthest from those before, of two the
    earlier (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"). Center crops come before side
    crops.
    """
    times = [(num_views - 1) // 2]
    while len(times) < num_views:
        distances = np.abs(np.arange(num_views)[:, None] - times).min(1)
        times.append(int(distances.argmax()))
    center, *sides = (0,) if num_crops == 1 else (1, 0, 2)
    return np.array(
        [center * num_views + time for time in times]
        + [side * num_views + time for time in times for side in sides]
    )


def next_stop(seen: int, total: int) -> int:
    """Return after how many views the rule is asked next: each one at first, later after half as many again."""
    return min(total, seen + max(1, seen // 2))


@dataclass(frozen=True)
class StopRule:
    """When the views seen are enough.

    For each rival of the class that is ahead, the mean of their difference over all views is estimated from the views
    seen; its standard error has the correction for a finite population (Cochran 1977, "Sampling Techniques", 2.6), as
    there are no more than ``total`` views. The evidence is the smallest ratio of difference and error. Ending an
    average early by its confidence interval is due to Inoue 2019, "Adaptive ensemble prediction for deep neural
    networks based on confidence level".

    Attributes:
        threshold: Evidence at which to stop; infinite: never before the last view.
        spread: Standard deviation of such a difference over the views of a clip, where nothing else is known of it.
        bound: How far apart two classes can be in one view; infinite where unknown. Where not even that could turn the
            answer, the rule stops as well.
    """

    threshold: float
    spread: float
    bound: float = math.inf

    def evidence(self, values: Floats, total: int) -> float:
        """Return how sure the answer is after some of ``total`` views; infinite where it cannot change.

        Args:
            values: (n, k) logits or probabilities of the views seen, as they are averaged.
            total: Number of views.
        """
        seen = len(values)
        if seen >= total:
            return math.inf
        best = int(values.mean(0).argmax())
        gaps = values[:, [best]].astype(np.float64) - np.delete(values, best, axis=1)
        mean = gaps.mean(0)
        if (mean * seen > self.bound * (total - seen)).all():
            return math.inf
        squares = ((gaps - mean) ** 2).sum(0)
        variance = (PRIOR * self.spread**2 + squares) / (PRIOR + seen - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = mean / np.sqrt(variance * (1 / seen - 1 / total))
        return float(np.nan_to_num(ratios, nan=0.0, posinf=math.inf).min())

    def settled(self, values: Floats, total: int) -> bool:
        """Whether no more views are needed; arguments as for `evidence`."""
        if len(values) >= total:
            return True
        return math.isfinite(self.threshold) and self.evidence(values, total) >= self.threshold


def first_frames(plan: ClipPlan) -> NDArray[np.int64]:
    """Return the frames to read at first: those of the first view where that spares half of the way, else all."""
    first = np.unique(plan.indices[view_order(len(plan.indices), 1)[0]])
    everything = plan.unique
    spared = 2 * (first[-1] - first[0] + 1) <= everything[-1] - everything[0] + 1
    return first if spared else everything


class Rounds:
    """One clip on its way through a model, some views at a time.

    Args:
        clip: The clip; it may lack frames of later views.
        rule: Says when the views seen are enough.
        unit_frames: See `vidcls.engines.Engine`.
        averaged: Turns logits into what is averaged over views.
    """

    def __init__(
        self, clip: Clip, rule: StopRule, unit_frames: int, averaged: Callable[[Floats], Floats]
    ) -> None:
        self.clip = clip
        self._rule, self._unit_frames, self._averaged = rule, unit_frames, averaged
        self._order = view_order(len(clip.plan.indices), clip.spec.num_crops)
        self._logits: dict[int, Floats] = {}
        self._cut = cut_clip(clip, unit_frames)
        self._encoded = np.zeros(len(self._cut), bool)
        self._features: Floats | None = None

    @property
    def seen(self) -> int:
        """How many views were scored."""
        return len(self._logits)

    @property
    def total(self) -> int:
        """How many views there are."""
        return len(self._order)

    @property
    def due(self) -> NDArray[np.int64]:
        """Numbers of the views to be scored next, sorted."""
        return np.sort(self._order[self.seen : next_stop(self.seen, self.total)])

    @property
    def logits(self) -> Floats:
        """(n, k) of the views seen, in the order of the fixed protocol."""
        return np.stack([self._logits[view] for view in sorted(self._logits)])

    @property
    def units(self) -> tuple[int, int] | None:
        """How many units the views seen have together, and how many were encoded; None for models without."""
        where = self._cut.where
        return None if where is None else (self.seen * where.shape[1], int(self._encoded.sum()))

    @property
    def lacks_frames(self) -> bool:
        """Whether the next views have frames that were not read."""
        return bool(np.isin(self.clip.view_indices[self.due], self.clip.missing).any())

    def complete(self, clip: Clip) -> None:
        """Take the clip with all its frames."""
        self.clip, self._cut = clip, cut_clip(clip, self._unit_frames)

    def pixels(self) -> NDArray[np.uint8]:
        """Cut what has to go through the model next: views, or units of them that were not encoded yet."""
        return self._cut[self._new_units()]

    def where(self) -> NDArray[np.int64] | None:
        """Return which units make up each of the next views, (v, n); None for whole views."""
        return None if self._cut.where is None else self._cut.where[self.due]

    def _new_units(self) -> NDArray[np.int64]:
        where = self.where()
        if where is None:
            return self.due
        units = np.unique(where)
        return units[~self._encoded[units]]

    def features(self, new: Floats) -> Floats:
        """Take what `pixels` was encoded to, and return the features of all units (u, …), zeros where unknown."""
        if len(new):
            if self._features is None:
                self._features = np.zeros((len(self._cut), *new.shape[1:]), new.dtype)
            self._features[self._new_units()] = new
        assert self._features is not None
        return self._features

    def add(self, logits: Floats) -> bool:
        """Take the logits (v, k) of the views that were due, and say whether they are enough."""
        where = self.where()
        if where is not None:
            self._encoded[where] = True
        self._logits.update(zip(self.due.tolist(), logits, strict=True))
        return self._rule.settled(self._averaged(self.logits), self.total)


def score_rounds(
    engine: Engine, rounds: Rounds, uses_frame_indices: bool, complete: Callable[[Clip], Clip]
) -> None:
    """Score one clip's views until they are enough.

    Args:
        engine: Runs the model.
        rounds: The clip; it has the logits afterwards.
        uses_frame_indices: Whether the model takes the frames' numbers.
        complete: Reads the frames that a clip lacks.
    """
    scale_shift = pixel_scale_shift(rounds.clip.spec)
    settled = False
    while not settled:
        if rounds.lacks_frames:
            rounds.complete(complete(rounds.clip))
        pixels, where = rounds.pixels(), rounds.where()
        indices = rounds.clip.view_indices[rounds.due] if uses_frame_indices else None
        if where is None:
            settled = rounds.add(score_pixels(engine, pixels, None, indices, scale_shift))
        else:
            table = rounds.features(encode_units(engine, pixels, scale_shift))
            settled = rounds.add(classify_units(engine, table, where, indices))
