"""From what each view of many clips gave: how early `vidcls.inference.auto_views` may stop, and what that costs.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Floats
from vidcls.errors import InputError
from vidcls.inference.auto_views import StopRule, next_stop, view_order
from vidcls.output.progress import ProgressBar
from vidcls.score.pipeline import OUTPUTS
from vidcls.score.scorer import Scorer
from vidcls.video.sources import Source

CONFIDENCE = 0.95
FIRST, STEP, LAST = 0.25, 2**0.25, 1e6
"""Thresholds that are tried: geometric, until no clip stops before its last view."""


@dataclass(frozen=True)
class Point:
    """What one threshold costs and keeps.

    Attributes:
        threshold: See `vidcls.inference.auto_views.StopRule`.
        kept: Share of the clips whose best label is that of all views.
        kept_at_least: Lower end of the one-sided 95 % confidence interval of that share.
        mean_views: Views of a clip on average.
        accuracy: Share of the clips whose best label is the true one; None without labels.
    """

    threshold: float
    kept: float
    kept_at_least: float
    mean_views: float
    accuracy: float | None


@dataclass(frozen=True)
class Curve:
    """Views against answers.

    Attributes:
        points: By rising threshold.
        chosen: The one to use.
        sure: Whether at least the wanted share is kept with 95 % confidence, and not merely of these clips.
        rule: The rule at the chosen threshold.
        clips: How many clips there were.
        views: Views of a clip.
        accuracy: Of all views; None without labels.
    """

    points: tuple[Point, ...]
    chosen: Point
    sure: bool
    rule: StopRule
    clips: int
    views: int
    accuracy: float | None

    def summary(self) -> dict[str, Any]:
        """Return what a calibration says of the clips it was made from."""
        point = asdict(self.chosen)
        return {
            "clips": self.clips,
            **{name: point[name] for name in ("kept", "kept_at_least", "mean_views")},
        }


def clips_needed(keep: float) -> int:
    """Return how many clips, none of which changes its answer, it takes to be sure of a share."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(keep))


def at_least(kept: int, clips: int) -> float:
    """Lower end of the one-sided 95 % confidence interval of a share (Clopper and Pearson 1934)."""
    lost = clips - kept
    # ln of the binomial coefficients of 0 … lost
    terms = np.concatenate([[0.0], np.cumsum(np.log(np.arange(clips, kept, -1) / np.arange(1, lost + 1)))])
    count = np.arange(lost + 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        with np.errstate(divide="ignore"):
            logs = terms + (clips - count) * np.log(share) + count * np.log1p(-share)
        likely = np.exp(logs).sum() if 0 < share < 1 else 0.0
        low, high = (share, high) if likely <= 1 - CONFIDENCE else (low, share)
    return low


def fit_curve(
    outputs: Sequence[Floats],
    num_crops: int,
    *,
    probabilities: bool,
    keep: float,
    labels: Sequence[int] | None = None,
) -> Curve:
    """Find the lowest threshold at which enough clips keep their answer.

    Thresholds are tried from the highest down until one keeps too few clips: with 95 % confidence, which tests in a
    fixed sequence need no correction for (Angelopoulos et al. 2021, "Learn then test"); or of these clips, where they
    are too few for that.

    Args:
        outputs: For each clip (v, k), what each view gave, crop-major, as it is averaged.
        num_crops: Crops of a view.
        probabilities: Whether these are probabilities, which are never further apart than 1.
        keep: Share of the clips that is to keep its best label.
        labels: The true classes, if they are known.

    Raises:
        InputError: There are no clips, or outputs that are not numbers.
    """
    if not outputs:
        raise InputError("clips", "none of them could be scored", "give clips that `vidcls predict` can read")
    views = len(outputs[0])
    order = view_order(views // num_crops, num_crops)
    ordered = np.stack(outputs)[:, order].astype(np.float64)
    if not np.isfinite(ordered).all():
        raise InputError(
            "model", "gives outputs that are not numbers", "use another precision or other weights"
        )
    final = ordered.mean(1).argmax(1)
    gaps = np.take_along_axis(ordered, final[:, None, None], 2) - ordered
    bound = 1.0 if probabilities else float(np.ptp(ordered, axis=2).max())
    scale = StopRule(math.inf, _spread(gaps, final), bound)
    stops = _stops(views)
    evidence = np.array([[scale.evidence(clip[:n], views) for n in stops] for clip in ordered])
    answers = np.stack([ordered[:, :n].mean(1).argmax(1) for n in stops], 1)
    true = None if labels is None else np.array(labels)
    careful = NormalDist().inv_cdf(keep)
    points = tuple(_points(evidence, answers, np.array(stops), true, careful))
    chosen, sure = _choose(points, keep, careful)
    accuracy = None if true is None else float((final == true).mean())
    rule = StopRule(chosen.threshold, scale.spread, bound)
    return Curve(points, chosen, sure, rule, len(ordered), views, accuracy)


def _stops(views: int) -> list[int]:
    stops = [1]
    while stops[-1] < views:
        stops.append(next_stop(stops[-1], views))
    return stops


def _spread(gaps: NDArray[np.float64], final: NDArray[np.int64]) -> float:
    """Root mean square over clips of the standard deviation, over views, of the gap to the runner-up."""
    if gaps.shape[1] < 2 or gaps.shape[2] < 2:
        return 0.0
    means = gaps.mean(1)
    means[np.arange(len(final)), final] = np.inf
    runner_up = means.argmin(1)
    gap = np.take_along_axis(gaps, runner_up[:, None, None], 2)[..., 0]
    return float(np.sqrt(gap.var(1, ddof=1).mean()))


def _points(
    evidence: NDArray[np.float64],
    answers: NDArray[np.int64],
    stops: NDArray[np.int64],
    true: NDArray[np.int64] | None,
    careful: float,
) -> Iterable[Point]:
    """Yield a point for each threshold, at least up to a careful one, and until no clip stops before its last view.

    Arrays are (clips, stops), (clips, stops), (stops,) and (clips,).
    """
    threshold, clips = FIRST, np.arange(len(answers))
    more = True
    while more and threshold <= LAST:
        place = (evidence >= threshold).argmax(1)
        found = answers[clips, place]
        kept = int((found == answers[:, -1]).sum())
        yield Point(
            round(threshold, 4),
            kept / len(clips),
            at_least(kept, len(clips)),
            float(stops[place].mean()),
            None if true is None else float((found == true).mean()),
        )
        more = threshold < careful or bool(np.isfinite(evidence[clips, place]).any())
        threshold *= STEP


def _choose(points: Sequence[Point], keep: float, careful: float) -> tuple[Point, bool]:
    """Return the lowest threshold above which all keep enough clips, and whether that is sure.

    Where it is not, it is no lower than the careful one, the normal distribution's own quantile for that share.
    """
    for sure, name, lowest in ((True, "kept_at_least", 0.0), (False, "kept", careful)):
        passed = None
        for point in reversed(points):
            if getattr(point, name) < keep or point.threshold < lowest:
                break
            passed = point
        if passed is not None:
            return passed, sure
    return points[-1], False


def read_outputs(
    scorer: Scorer, clips: Iterable[Source], shown: bool = False
) -> tuple[dict[str, Floats], list[str]]:
    """Score all views of clips → what each view of each clip gave, by path, and why others could not be scored.

    Args:
        scorer: Made from a setup with ``keep_outputs``.
        clips: The clips; each is scored once.
        shown: Whether a progress bar is shown.
    """
    unique = {clip.path: clip for clip in clips}
    outputs: dict[str, Floats] = {}
    failures: list[str] = []
    with ProgressBar(unit="clips", shown=shown) as bar, closing(scorer.run(unique.values())) as results:  # type: ignore[type-var]
        for result in results:
            if result is not None and result.kind is None:
                outputs[result.item.path] = result.row[OUTPUTS]
            elif result is not None:
                failures.append(result.row["error"])
            bar.update(len(outputs) + len(failures), len(unique))
    return dict(sorted(outputs.items())), failures
