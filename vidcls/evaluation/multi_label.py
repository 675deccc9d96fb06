"""Clips with several labels each: average precision, and precision, recall and F1 at a score of one half."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import UsageError
from vidcls.evaluation.evaluate import scored_rows
from vidcls.evaluation.report import CLIPS, write_csv, write_figures
from vidcls.output.sinks import writing
from vidcls.score.scorer import Scorer
from vidcls.training.data.listing import Sample

THRESHOLD = 0.5


@dataclass(frozen=True)
class ClassFigures:
    """One class: the clips that show it, and figures where they are defined.

    Attributes:
        label: Its name.
        clips: How many clips show it.
        average_precision: See `average_precision`.
        precision: At the threshold.
        recall: At the threshold.
        f1: At the threshold.
        best_threshold: Score above which the class's F1 is highest on these clips.
        best_f1: F1 there; other clips do not reach it.
    """

    label: str
    clips: int
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    best_threshold: float | None = None
    best_f1: float | None = None


@dataclass(frozen=True)
class Report:
    """The figures of an evaluation of clips with several labels.

    Attributes:
        clips: Clips scored.
        failed: Clips that could not be scored; they count neither way.
        map: Mean average precision over the classes that have clips.
        precision: At the threshold, over all classes and clips together (micro).
        recall: Likewise.
        f1: Likewise.
        macro_f1: Mean F1 of the classes that have clips.
        top1: Share of clips whose best class is one of theirs.
        classes: Figures of each class.
        failures: Paths and reasons of the clips that could not be scored.
    """

    clips: int
    failed: int
    map: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    top1: float
    classes: list[ClassFigures]
    failures: list[tuple[str, str]]

    def summary(self) -> dict[str, float | int]:
        """The figures of the whole set."""
        keys = ("clips", "failed", "map", "precision", "recall", "f1", "macro_f1", "top1")
        return {key: getattr(self, key) for key in keys}

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each figure, for people."""
        shares = {
            "mAP": self.map,
            f"precision at {THRESHOLD}": self.precision,
            f"recall at {THRESHOLD}": self.recall,
            f"F1 at {THRESHOLD}": self.f1,
            "macro F1": self.macro_f1,
            "best is right": self.top1,
        }
        found = [("clips", str(self.clips)), *((name, f"{share:.2%}") for name, share in shares.items())]
        return found + ([("not scored", str(self.failed))] if self.failed else [])

    def class_lines(self) -> list[tuple[str, str]]:
        """Name and average precision of each class that has clips, for people."""
        return [
            (c.label, f" average precision {c.average_precision:>6.1%} of {c.clips:>5}")
            for c in self.classes
            if c.average_precision is not None
        ]


def evaluate(
    scorer: Scorer,
    samples: Sequence[Sample],
    labels: Sequence[Sequence[int]],
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    reporter_options: dict[str, Any] | None = None,
) -> Report:
    """Score clips and compare with their labels; arguments as for `vidcls.evaluation.evaluate.evaluate`.

    Args:
        scorer: Made from an ``evaluation_setup``; it is closed.
        samples: The clips.
        labels: The class ids of each, any number.
        folder: Keeps the rows.
        overwrite: Begin anew.
        reporter_options: See `vidcls.score.progress.Reporter`.

    Raises:
        UsageError: The folder holds rows of different settings, or no clip could be scored.
    """
    with scored_rows(scorer, samples, folder, overwrite, reporter_options) as rows:
        scores, failures = _read(rows, samples)
    kept = sorted(scores)
    if not kept:
        first = failures[0][1] if failures else "the list is empty"
        problem = f"no clip could be scored (first: {first})"
        raise UsageError("data", problem, "check the paths, or pass videos=FOLDER")
    truth = np.zeros((len(kept), len(scorer.labels())), bool)
    for row, number in enumerate(kept):
        truth[row, list(labels[number])] = True
    return make_report(np.stack([scores[number] for number in kept]), truth, scorer.labels(), failures)


def _read(
    rows: Path, samples: Sequence[Sample]
) -> tuple[dict[int, NDArray[np.float32]], list[tuple[str, str]]]:
    """The scores (k,) of each sample by its number, and what could not be scored."""
    numbers = {sample.path: number for number, sample in enumerate(samples)}
    scores: dict[int, NDArray[np.float32]] = {}
    failures: dict[int, tuple[str, str]] = {}
    with rows.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            number = numbers.get(row["path"])
            if number is not None and row["error"] is None:
                scores[number] = np.array(row["scores"], np.float32)
            elif number is not None:
                failures[number] = (row["path"], row["error"])
    return scores, [failures[number] for number in sorted(failures) if number not in scores]


def make_report(
    scores: NDArray[np.floating[Any]],
    truth: NDArray[np.bool_],
    labels: Sequence[str],
    failures: Sequence[tuple[str, str]] = (),
) -> Report:
    """Work out all figures from scores (n, k) and whether each clip shows each class (n, k)."""
    guess = scores > THRESHOLD
    both, guessed, shown = (guess & truth).sum(0), guess.sum(0), truth.sum(0)
    classes = [
        ClassFigures(
            label,
            int(shown[k]),
            average_precision(scores[:, k], truth[:, k]),
            _share(both[k], guessed[k]),
            _share(both[k], shown[k]),
            _share(2 * both[k], guessed[k] + shown[k]),
            *best_threshold(scores[:, k], truth[:, k]),
        )
        for k, label in enumerate(labels)
    ]
    with_clips = [c for c in classes if c.clips]
    best = truth[np.arange(len(truth)), scores.argmax(1)]
    return Report(
        clips=len(scores),
        failed=len(failures),
        map=mean_average_precision(scores, truth),
        precision=_share(both.sum(), guessed.sum()) or 0.0,
        recall=_share(both.sum(), shown.sum()) or 0.0,
        f1=_share(2 * both.sum(), guessed.sum() + shown.sum()) or 0.0,
        macro_f1=float(np.mean([c.f1 or 0.0 for c in with_clips])) if with_clips else 0.0,
        top1=float(best.mean()),
        classes=classes,
        failures=list(failures),
    )


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def average_precision(scores: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> float | None:
    """Area under the steps of precision over recall (n,), as scikit-learn has it; None without a true clip.

    Clips of one score are taken together: their order is not told by the scores.
    """
    if not truth.any():
        return None
    hits, last, _ = _ranked(scores, truth)
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])


def _ranked(
    scores: NDArray[np.floating[Any]], truth: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.floating[Any]]]:
    """True clips down to each different score, the place of its last clip, and all scores, highest first."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    return np.cumsum(truth[order])[last], last, ranked


def best_threshold(
    scores: NDArray[np.floating[Any]], truth: NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    """Score above which F1 is highest, half-way between two of (n,), and F1 there; None without a true clip."""
    if not truth.any():
        return None, None
    hits, last, ranked = _ranked(scores, truth)
    f1 = 2 * hits / (last + 1 + truth.sum())
    best = int(f1.argmax())
    below = ranked[last[best] + 1] if last[best] + 1 < len(ranked) else 0.0
    return float(ranked[last[best]] + below) / 2, float(f1[best])


def mean_average_precision(scores: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> float:
    """Mean over the classes that a clip shows, of scores (n, k) and whether each clip shows each class (n, k)."""
    found = [average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1])]
    return float(np.mean([precision for precision in found if precision is not None] or [0.0]))


def as_json(report: Report, about: dict[str, Any]) -> dict[str, Any]:
    """The whole report in values that JSON holds."""
    return {
        **about,
        "threshold": THRESHOLD,
        **report.summary(),
        "classes": [asdict(c) for c in report.classes],
        "failures": [{"path": path, "error": error} for path, error in report.failures],
    }


def write_report(
    report: Report, folder: Path, about: dict[str, Any], clips: Iterable[tuple[str, Sequence[str]]]
) -> None:
    """Write ``report.json``, ``classes.csv`` and ``clips.csv`` into a folder.

    Args:
        report: The figures.
        folder: Where to.
        about: What was evaluated.
        clips: Each clip and its true labels, which are written with ``|`` between them.
    """
    with writing(folder):
        write_figures(folder, as_json(report, about), report.classes)
        lines = [(path, "|".join(names)) for path, names in clips]
        write_csv(folder / CLIPS, ("path", "true_labels"), lines)
