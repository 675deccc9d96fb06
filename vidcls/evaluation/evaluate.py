"""Score a labeled set through the same path as `vidcls predict`, and say how good the scores are.

With a folder for the report, each scored clip is a line of ``journal.jsonl`` there at once; the same call goes on
where it was broken off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import OutputError, UsageError
from vidcls.inference.classifier import Classifier, Prediction
from vidcls.training.data import listing
from vidcls.training.data.listing import Sample

JOURNAL = "journal.jsonl"
TOP = 5
BINS = 15
"""Equal parts of 0..1 into which confidences are sorted for the calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Scored:
    """What became of one clip.

    Attributes:
        path: The clip.
        label: Its class id.
        top: Class ids of the best scores, best first, at most five.
        scores: Those scores.
        p_true: Score of the right class.
        error: Why it could not be scored; then the rest says nothing.
    """

    path: str
    label: int
    top: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    p_true: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class ClassFigures:
    """One class: its clips, how many were found (recall), and how often the answer was right (precision)."""

    label: str
    clips: int
    recall: float | None
    precision: float | None
    mistaken_for: str | None


@dataclass(frozen=True)
class Report:
    """How good the scores are.

    Attributes:
        clips: Clips scored.
        failed: Clips that could not be scored; they count neither way.
        top1: Share whose best score is right.
        top5: Share whose right class is among the best five.
        mean_class: Mean recall over the classes that have clips.
        calibration_error: Mean gap between confidence and accuracy, over 15 bins of confidence.
        confidence: Mean best score.
        loss: Mean −ln of the right class's score.
        classes: Figures of each class.
        confusion: (k, k) counts, rows the right class, columns the answer.
        bins: For each bin its clips, mean confidence and accuracy.
        worst: The wrong clips whose right class had the least score, worst first.
        failures: The clips that could not be scored.
    """

    clips: int
    failed: int
    top1: float
    top5: float
    mean_class: float
    calibration_error: float
    confidence: float
    loss: float
    classes: list[ClassFigures]
    confusion: NDArray[np.int64]
    bins: list[tuple[int, float, float]]
    worst: list[Scored]
    failures: list[Scored]

    def summary(self) -> dict[str, float | int]:
        """The figures of the whole set."""
        keys = ("clips", "failed", "top1", "top5", "mean_class", "calibration_error", "confidence", "loss")
        return {key: getattr(self, key) for key in keys}


def read_samples(
    source: str, labels: Sequence[str], videos: str | None = None
) -> tuple[list[Sample], list[int]]:
    """Read and check a labeled set; a missing file is left to be counted among the failures.

    Raises:
        UsageError: The list has mistakes, or labels that the model does not know; all are named together.
    """
    found = listing.read_listing(source, videos)
    problems, _ = listing.find_problems(found, check_files=False)
    problems += listing.unknown_labels(found, [labels])
    if problems:
        raise listing.report(source, problems, [], "mend the list, or give the model that knows these labels")
    lookup = [{name: i for i, name in enumerate(labels)}]
    return found.samples, [listing.label_ids(sample, [labels], lookup)[0] for sample in found.samples]


class Journal:
    """Scored clips, one a line, after a first line that says what scored them.

    Args:
        folder: Of the report; it is made.
        header: Model, weights, views and data; a journal of another header is not gone on with.

    Raises:
        UsageError: The folder holds another evaluation.
        OutputError: It cannot be read or written.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self.path = folder / JOURNAL
        self.done: dict[tuple[str, int], Scored] = {}
        header = json.loads(json.dumps(header))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                str(self.path), f"cannot be read ({reason})", "name another folder with -o"
            ) from None
        rows = [row for row in map(_parse, lines) if row is not None]
        if rows and rows[0] != header:
            changed = [key for key in header if rows[0].get(key) != header[key]] or ["something else"]
            raise UsageError(
                str(folder),
                f"holds an evaluation with another {', '.join(changed)}",
                "name another folder with -o",
            )
        for row in rows[1:]:
            scored = Scored(**{**row, "top": tuple(row["top"]), "scores": tuple(row["scores"])})
            if scored.error is None:
                self.done[scored.path, scored.label] = scored
        # Written anew: the last line may be half, and clips that failed are tried again.
        self._write(json.dumps(header) + "\n" + "".join(_line(scored) for scored in self.done.values()), "w")

    def add(self, scored: Scored) -> None:
        """Append one clip."""
        self._write(_line(scored), "a")

    def _write(self, text: str, mode: str) -> None:
        try:
            with self.path.open(mode, encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(
                str(self.path), f"cannot be written ({error.strerror})", "make room, then go on"
            ) from None


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _line(scored: Scored) -> str:
    return json.dumps(asdict(scored)) + "\n"


def evaluate(
    classifier: Classifier,
    samples: Sequence[Sample],
    labels: Sequence[int],
    *,
    journal: Journal | None = None,
    on_clip: Any = None,
    worst: int = 20,
) -> Report:
    """Score clips and compare with their labels.

    Args:
        classifier: Scores a clip as `vidcls predict` does.
        samples: The clips.
        labels: Their class ids.
        journal: Takes each clip as it is scored, and gives those that were scored before.
        on_clip: Called with each `Scored`, for a progress bar.
        worst: How many of the most wrong clips to keep.
    """
    done = journal.done if journal is not None else {}
    results: dict[int, Scored] = {}
    todo = []
    for number, (sample, label) in enumerate(zip(samples, labels, strict=True)):
        known = done.get((sample.path, label))
        if known is not None:
            results[number] = known
        else:
            todo.append(number)
    for number, prediction in zip(
        todo, classifier.predict_many([samples[n].path for n in todo], TOP), strict=True
    ):
        scored = _scored(samples[number].path, labels[number], prediction)
        results[number] = scored
        if journal is not None:
            journal.add(scored)
        if on_clip is not None:
            on_clip(scored)
    return make_report([results[number] for number in sorted(results)], classifier.labels, worst)


def _scored(path: str, label: int, prediction: Prediction) -> Scored:
    if prediction.scores is None:
        return Scored(path, label, error=str(prediction.error))
    best = prediction.row["predictions"]
    return Scored(
        path,
        label,
        tuple(int(p["index"]) for p in best),
        tuple(float(p["score"]) for p in best),
        float(prediction.scores[label]),
    )


def make_report(results: Sequence[Scored], labels: Sequence[str], worst: int = 20) -> Report:
    """Work out all figures.

    Args:
        results: The clips.
        labels: Class names.
        worst: How many of the most wrong clips to keep.
    """
    good = [scored for scored in results if scored.error is None]
    failures = [scored for scored in results if scored.error is not None]
    if not good:
        first = failures[0].error if failures else "the list is empty"
        raise UsageError(
            "data", f"no clip could be scored (first: {first})", "check the paths, or give --videos"
        )
    true = np.array([scored.label for scored in good])
    best = np.array([scored.top[0] for scored in good])
    confidence = np.array([scored.scores[0] for scored in good])
    p_true = np.array([scored.p_true for scored in good])
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (true, best), 1)
    counts = confusion.sum(1)
    recall = confusion.diagonal()[counts > 0] / counts[counts > 0]
    error, bins = calibration(confidence, best == true)
    wrong = sorted(
        (scored for scored in good if scored.top[0] != scored.label), key=lambda scored: scored.p_true
    )
    return Report(
        clips=len(good),
        failed=len(failures),
        top1=float((best == true).mean()),
        top5=float(np.mean([scored.label in scored.top[:TOP] for scored in good])),
        mean_class=float(recall.mean()),
        calibration_error=error,
        confidence=float(confidence.mean()),
        loss=float(-np.log(np.maximum(p_true, 1e-12)).mean()),
        classes=_class_figures(confusion, labels),
        confusion=confusion,
        bins=bins,
        worst=wrong[:worst],
        failures=failures,
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
                labels[int(others.argmax())] if others.any() else None,
            )
        )
    return figures
