"""How good a probe is: accuracy with its interval, macro F1, confusion, and what more clips would bring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
"""Quantile of the normal distribution for intervals of 95 %."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Figures:
    """Figures of clips that the classifier had not seen.

    Attributes:
        method: How they were predicted: cross-validation, or a validation set.
        clips: How many clips.
        groups: How many sources they come from.
        accuracy: Share of clips that are right.
        interval: 95 % interval of the accuracy.
        largest_class: Accuracy of always naming the largest class.
        macro_f1: Mean F1 over the classes.
        confusion: (k, k) counts, true label by predicted label.
        learning_curve: Pairs of training clips and cross-validated accuracy.
        with_twice: Accuracy to be expected with twice as many clips, by the curve; None where it does not tell.
    """

    method: str
    clips: int
    groups: int
    accuracy: float
    interval: tuple[float, float]
    largest_class: float
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    learning_curve: tuple[tuple[float, float], ...] = ()
    with_twice: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def measure(
    method: str,
    logits: NDArray[np.float64],
    ids: NDArray[np.int64],
    groups: NDArray[np.int64],
    curve: Sequence[tuple[float, float]] = (),
) -> Figures:
    """Figures from logits (n, k), true class ids (n,) and groups (n,) of unseen clips."""
    from sklearn.metrics import confusion_matrix, f1_score

    predicted = logits.argmax(axis=1)
    right = predicted == ids
    confusion = confusion_matrix(ids, predicted, labels=range(logits.shape[1]))
    return Figures(
        method=method,
        clips=len(ids),
        groups=len(np.unique(groups)),
        accuracy=float(right.mean()),
        interval=interval(right, groups),
        largest_class=float(np.bincount(ids).max() / len(ids)),
        macro_f1=float(f1_score(ids, predicted, average="macro", labels=np.unique(ids), zero_division=0.0)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        learning_curve=tuple(curve),
        with_twice=extrapolated(curve),
    )


def interval(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of an accuracy: Wilson's, and where clips share sources at least as wide as sources vary.

    Clips of one source are right or wrong together; sources are therefore resampled (a cluster bootstrap).
    """
    low, high = wilson(int(right.sum()), len(right))
    numbers, sizes = np.unique(groups, return_counts=True)
    if len(numbers) == len(groups):
        return low, high
    hits = np.array([right[groups == number].sum() for number in numbers])
    draws = np.random.default_rng(0).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    means = hits[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    lower, upper = np.quantile(means, [0.025, 0.975])
    return min(low, float(lower)), max(high, float(upper))


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share."""
    share, spread = hits / total, Z95**2 / total
    center = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, center - half), min(1.0, center + half)


def extrapolated(curve: Sequence[tuple[float, float]]) -> float | None:
    """Accuracy with twice as many clips as the last point: errors fall as a power of the number of clips."""
    points = [(clips, 1.0 - accuracy) for clips, accuracy in curve if accuracy < 1.0]
    if len({clips for clips, _ in points}) < 3 or len(points) < len(curve):
        return None
    slope, offset = np.polyfit(
        np.log([clips for clips, _ in points]), np.log([error for _, error in points]), 1
    )
    if slope >= 0:
        return None
    twice = float(np.exp(offset + slope * math.log(2 * points[-1][0])))
    return 1.0 - min(twice, points[-1][1])


def lines(figures: Figures, labels: Sequence[str]) -> list[str]:
    """The figures for people."""
    low, high = figures.interval
    sources = "" if figures.groups == figures.clips else f" from {figures.groups} sources"
    found = [
        f"accuracy {figures.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}), macro F1 {figures.macro_f1:.3f}",
        f"measured on {figures.clips} clips{sources} by {figures.method}; "
        f"always naming the largest class: {figures.largest_class:.1%}",
    ]
    table = np.array(figures.confusion)
    np.fill_diagonal(table, 0)
    worst = [divmod(int(index), len(labels)) for index in np.argsort(-table, axis=None, kind="stable")[:3]]
    mistakes = [
        f"{labels[true]!r} as {labels[guess]!r} ({table[true, guess]})"
        for true, guess in worst
        if table[true, guess]
    ]
    if mistakes:
        found.append(f"most confused: {', '.join(mistakes)}")
    if figures.learning_curve:
        points = ", ".join(f"{clips:.0f} clips {accuracy:.1%}" for clips, accuracy in figures.learning_curve)
        more = (
            ""
            if figures.with_twice is None
            else f"; with twice as many clips expect about {figures.with_twice:.0%}"
        )
        found.append(f"learning curve: {points}{more}")
    return found
