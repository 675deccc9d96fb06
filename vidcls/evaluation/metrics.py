"""Scores of labeled clips → accuracy, confusion, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import UsageError

TOP = 5
BINS = 15  # equal parts of 0..1 into which confidences are sorted for the calibration error (Guo et al. 2017)


@dataclass(frozen=True)
class Scored:
    """What became of one clip.

    Attributes:
        path: The clip.
        label: Its class id.
        top: Class ids of the best scores, best first, at most five.
        scores: Those scores.
        p_true: Score of the true class.
        error: Why it could not be scored; then the rest says nothing.
        views: How many of its views were scored, where that differs from clip to clip.
    """

    path: str
    label: int
    top: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    p_true: float = 0.0
    error: str | None = None
    views: int | None = None


@dataclass(frozen=True)
class ClassFigures:
    """One class.

    Attributes:
        label: Its name.
        clips: Clips of this true label (the support).
        recall: Share of its clips that were predicted as it; None where it has none.
        precision: Share of the clips predicted as it that are; None where nothing was.
        f1: Harmonic mean of both, where undefined ones count as 0; None where neither is defined.
        mistaken_for: What its clips are mostly predicted as when wrong.
    """

    label: str
    clips: int
    recall: float | None
    precision: float | None
    f1: float | None
    mistaken_for: str | None


@dataclass(frozen=True)
class Report:
    """The figures of an evaluation.

    Attributes:
        clips: Clips scored.
        failed: Clips that could not be scored; they count neither way.
        top1: Share whose best score is the true class's.
        top5: Share whose true class is among the best five; None where there are no more classes.
        mean_class: Mean recall over the classes that have clips.
        calibration_error: Mean gap between confidence and accuracy, over 15 bins of confidence.
        confidence: Mean best score.
        loss: Mean −ln of the true class's score.
        classes: Figures of each class.
        confusion: (k, k) counts, rows the true class, columns the predicted one.
        bins: For each bin its clips, mean confidence and accuracy.
        worst: The misclassified clips whose true class had the lowest score, worst first.
        failures: The clips that could not be scored.
        results: What became of each clip, in the order of the list.
    """

    clips: int
    failed: int
    top1: float
    top5: float | None
    mean_class: float
    calibration_error: float
    confidence: float
    loss: float
    classes: list[ClassFigures]
    confusion: NDArray[np.int64]
    bins: list[tuple[int, float, float]]
    worst: list[Scored]
    failures: list[Scored]
    results: list[Scored]

    @property
    def mean_views(self) -> float | None:
        """Views of a clip that were scored, on average, where that differs from clip to clip."""
        views = [scored.views for scored in self.results if scored.views is not None]
        return float(np.mean(views)) if views else None

    def summary(self) -> dict[str, float | int]:
        """The figures of the whole set that there are."""
        keys = (
            "clips",
            "failed",
            "top1",
            "top5",
            "mean_class",
            "calibration_error",
            "confidence",
            "loss",
            "mean_views",
        )
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    def means(self) -> dict[str, dict[str, float]]:
        """Means of recall, precision and F1 over the classes that have clips: macro, and weighted by the support.

        A class that was never predicted counts with a precision and F1 of 0, as in scikit-learn.
        """
        present = [c for c in self.classes if c.clips]
        support = [c.clips for c in present]
        columns = {name: [getattr(c, name) or 0.0 for c in present] for name in ("recall", "precision", "f1")}
        weights = {"macro": None, "weighted": support}
        return {
            kind: {name: float(np.average(column, weights=weight)) for name, column in columns.items()}
            for kind, weight in weights.items()
        }


def make_report(results: Sequence[Scored], labels: Sequence[str], worst: int = 20) -> Report:
    """Work out all figures.

    Args:
        results: The clips.
        labels: Class names.
        worst: How many of the worst errors to keep.
    """
    good = [scored for scored in results if scored.error is None]
    if not good:
        first = results[0].error if results else "the list is empty"
        raise UsageError(
            "data", f"no clip could be scored (first: {first})", "check the paths, or pass videos=FOLDER"
        )
    return _figures(list(results), good, labels, worst)


def _figures(results: list[Scored], good: list[Scored], labels: Sequence[str], worst: int) -> Report:
    failures = [scored for scored in results if scored.error is not None]
    true = np.array([scored.label for scored in good])
    best = np.array([scored.top[0] for scored in good])
    confidence = np.array([scored.scores[0] for scored in good])
    p_true = np.array([scored.p_true for scored in good])
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (true, best), 1)
    counts = confusion.sum(1)
    recall = confusion.diagonal()[counts > 0] / counts[counts > 0]
    error, bins = calibration(confidence, best == true)
    wrong = [scored for scored in good if scored.top[0] != scored.label]
    return Report(
        clips=len(good),
        failed=len(failures),
        top1=float((best == true).mean()),
        top5=None if len(labels) <= TOP else float(np.mean([s.label in s.top[:TOP] for s in good])),
        mean_class=float(recall.mean()),
        calibration_error=error,
        confidence=float(confidence.mean()),
        loss=float(-np.log(np.maximum(p_true, 1e-12)).mean()),
        classes=_class_figures(confusion, labels),
        confusion=confusion,
        bins=bins,
        worst=sorted(wrong, key=lambda scored: scored.p_true)[:worst],
        failures=failures,
        results=results,
    )


def calibration(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[float, list[tuple[int, float, float]]]:
    """Expected calibration error (n,) confidences and hits, and each bin's clips, mean confidence and accuracy.

    Bins are (0, 1/15], (1/15, 2/15] … (Naeini et al. 2015; Guo et al. 2017, equation 3).
    """
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    error, bins = 0.0, []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        if not count:
            bins.append((0, math.nan, math.nan))
            continue
        mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
        error += count / len(confidence) * abs(mean - accuracy)
        bins.append((count, mean, accuracy))
    return error, bins


def _class_figures(confusion: NDArray[np.int64], labels: Sequence[str]) -> list[ClassFigures]:
    figures = []
    for number, label in enumerate(labels):
        clips, answers, right = confusion[number].sum(), confusion[:, number].sum(), confusion[number, number]
        others = confusion[number].copy()
        others[number] = 0
        figures.append(
            ClassFigures(
                label,
                int(clips),
                float(right / clips) if clips else None,
                float(right / answers) if answers else None,
                float(2 * right / (clips + answers)) if clips + answers else None,
                labels[int(others.argmax())] if others.any() else None,
            )
        )
    return figures
