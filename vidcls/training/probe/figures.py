"""How good a probe is: accuracy or mAP with its interval, macro F1, confusion, and what more clips would bring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import counted
from vidcls.evaluation.multi_label import THRESHOLD, ClassFigures, make_report

Z95 = 1.959964
"""Quantile of the normal distribution for intervals of 95 %."""
RESAMPLES = 2000
RESAMPLES_SEVERAL = 500
"""The same of mean average precisions, which take longer."""
SHOWN = 5
"""Classes that cannot be measured that are named."""
WORST = 5
"""Classes of the lowest average precision that are named."""


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
        notes: What was not measured, and other than asked for.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeveralFigures:
    """Figures of clips with several labels each that the classifier had not seen.

    Attributes:
        method: How they were predicted.
        clips: How many clips.
        groups: How many sources they come from.
        map: Mean average precision over the classes that a clip shows.
        interval: 95 % interval of it, by resampling sources, or Wilson's of as many.
        chance: The mean average precision of scores that tell nothing.
        macro_f1: Mean F1 at a score of one half.
        classes: Figures of each class.
        learning_curve: Pairs of training clips and cross-validated mAP.
        with_twice: mAP to be expected with twice as many clips, by the curve; None where it does not tell.
        notes: What was not measured, and other than asked for.
    """

    method: str
    clips: int
    groups: int
    map: float
    interval: tuple[float, float]
    chance: float
    macro_f1: float
    classes: tuple[ClassFigures, ...]
    learning_curve: tuple[tuple[float, float], ...] = ()
    with_twice: float | None = None
    notes: tuple[str, ...] = ()


def measure_several(
    method: str,
    logits: NDArray[np.float64],
    shown: NDArray[np.bool_],
    groups: NDArray[np.int64],
    labels: Sequence[str],
    curve: Sequence[tuple[float, float]] = (),
    notes: Sequence[str] = (),
) -> SeveralFigures:
    """Figures from logits (n, k), the classes that unseen clips show (n, k), and groups (n,)."""
    with np.errstate(over="ignore"):
        report = make_report(1 / (1 + np.exp(-logits)), shown, labels)
    share = shown.mean(axis=0)
    return SeveralFigures(
        method=method,
        clips=len(shown),
        groups=len(np.unique(groups)),
        map=report.map,
        interval=_map_interval(report.map, logits, shown, groups),
        chance=float(share[share > 0].mean()) if share.any() else 0.0,
        macro_f1=report.macro_f1,
        classes=tuple(report.classes),
        learning_curve=tuple(curve),
        with_twice=extrapolated(curve),
        notes=tuple(notes),
    )


def _map_interval(
    mean: float, logits: NDArray[np.float64], shown: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """95 % interval of a mean average precision: sources, with all their clips, are drawn with repetition.

    It is at least as wide as Wilson's of such a share of the sources: of few clips all may be right by chance.
    """
    sources, numbers = np.unique(groups, return_inverse=True)
    shares = np.full(len(sources), 1 / len(sources))
    draws = np.random.default_rng(0).multinomial(len(sources), shares, size=RESAMPLES_SEVERAL)
    total, count = np.zeros(RESAMPLES_SEVERAL), np.zeros(RESAMPLES_SEVERAL)
    for scores, truth in zip(logits.T, shown.T, strict=True):
        order = np.argsort(-scores, kind="stable")
        times = draws[:, numbers[order]]
        hits = times * truth[order]
        precision = np.cumsum(hits, axis=1) / np.maximum(np.cumsum(times, axis=1), 1)
        positives = hits.sum(axis=1)
        total += (hits * precision).sum(axis=1) / np.maximum(positives, 1)
        count += positives > 0
    lower, upper = np.quantile(total / np.maximum(count, 1), [0.025, 0.975])
    low, high = wilson(mean * len(sources), len(sources))
    return min(low, float(lower)), max(high, float(upper))


def measure(
    method: str,
    logits: NDArray[np.float64],
    ids: NDArray[np.int64],
    groups: NDArray[np.int64],
    curve: Sequence[tuple[float, float]] = (),
    notes: Sequence[str] = (),
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
        notes=tuple(notes),
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


def wilson(hits: float, total: int) -> tuple[float, float]:
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


def lines(figures: Figures | SeveralFigures, labels: Sequence[str]) -> list[str]:
    """The figures for people."""
    low, high = figures.interval
    interval = f"(95 % interval {low:.1%} to {high:.1%})"
    sources = "" if figures.groups == figures.clips else f" from {figures.groups} sources"
    measured = f"measured on {figures.clips} clips{sources} by {figures.method}"
    if isinstance(figures, SeveralFigures):
        found = [
            f"mean average precision {figures.map:.1%} {interval}, "
            f"macro F1 {figures.macro_f1:.3f} at a score of {THRESHOLD}",
            f"{measured}; scores at random: {figures.chance:.1%}",
            *_worst_classes(figures.classes),
        ]
    else:
        found = [
            f"accuracy {figures.accuracy:.1%} {interval}, macro F1 {figures.macro_f1:.3f}",
            f"{measured}; always naming the largest class: {figures.largest_class:.1%}",
            *_most_confused(figures.confusion, labels),
        ]
    return [*found, *_curve_line(figures), *figures.notes]


def unmeasured(sources: Mapping[int, int], ids: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """A line for each class that cross-validation cannot measure.

    Args:
        sources: Class id → how many sources its clips come from.
        ids: (n,) class ids of the clips.
        labels: Class names.
    """
    lone = [number for number, count in sources.items() if count == 1]
    found = []
    for number in lone[:SHOWN]:
        clips = int((ids == number).sum())
        one = " of one source" if clips > 1 else ""
        found.append(f"class {labels[number]!r} has {counted(clips, 'clip')}{one}: not measured")
    return found + ([f"and {len(lone) - SHOWN} more such classes"] if len(lone) > SHOWN else [])


def _worst_classes(classes: Sequence[ClassFigures]) -> list[str]:
    known = [(c.average_precision, c) for c in classes if c.average_precision is not None]
    worst = sorted(known, key=lambda pair: pair[0])[:WORST]
    texts = [f"{c.label!r} {precision:.1%} of {c.clips}" for precision, c in worst]
    return [f"lowest average precision (clips): {', '.join(texts)}"] if texts else []


def _most_confused(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> list[str]:
    table = np.array(confusion)
    np.fill_diagonal(table, 0)
    worst = [divmod(int(index), len(labels)) for index in np.argsort(-table, axis=None, kind="stable")[:3]]
    mistakes = [
        f"{labels[true]!r} as {labels[guess]!r} ({table[true, guess]})"
        for true, guess in worst
        if table[true, guess]
    ]
    return [f"most confused: {', '.join(mistakes)}"] if mistakes else []


def _curve_line(figures: Figures | SeveralFigures) -> list[str]:
    if not figures.learning_curve:
        return []
    points = ", ".join(f"{clips:.0f} clips {value:.1%}" for clips, value in figures.learning_curve)
    more = figures.with_twice
    expected = "" if more is None else f"; with twice as many clips expect about {more:.0%}"
    return [f"learning curve: {points}{expected}"]
