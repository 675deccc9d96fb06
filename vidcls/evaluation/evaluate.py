"""Score a labeled set by `vidcls score` and say how good the scores are.

The rows, with the scores of all classes, are in ``scores.jsonl`` of the report's folder; the same call goes on where
it was broken off, as `vidcls score` does, on the same engines and as many devices.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcls.evaluation.metrics import TOP, Report, Scored, make_report
from vidcls.output.row import VIEWS_USED
from vidcls.output.sinks import writing
from vidcls.score import Job, score
from vidcls.score.listing import Inputs
from vidcls.score.scorer import Scorer
from vidcls.score.setup import Setup
from vidcls.training.data.listing import Sample
from vidcls.video.sources import Source

ROWS = "scores.jsonl"


@dataclass(frozen=True)
class LabeledInputs(Inputs):
    """The clips of a labeled set, for `vidcls score`."""

    def __iter__(self) -> Iterator[Source]:
        return map(Source, self.sources)

    def columns(self) -> dict[str, str]:
        """Return no columns: labels are looked up by path, so that they can be corrected without scoring anew."""
        return {}


def evaluation_setup(
    load: dict[str, Any], workers: int | None = None, batch_size: int | None = None
) -> Setup:
    """Return the setup of a scorer that `evaluate` can use: rows with the scores of all classes."""
    return Setup(load, TOP, True, workers, batch_size)


def evaluate(
    scorer: Scorer,
    samples: Sequence[Sample],
    labels: Sequence[int],
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    worst: int = 20,
    reporter_options: dict[str, Any] | None = None,
) -> Report:
    """Score clips and compare with their labels.

    Args:
        scorer: Made from an ``evaluation_setup``; it is closed.
        samples: The clips.
        labels: Their class ids.
        folder: Keeps the rows, so that the next call goes on with them; clips that failed are tried again.
        overwrite: Begin anew, whatever rows are there.
        worst: How many of the worst errors to keep.
        reporter_options: See `vidcls.score.progress.Reporter`.

    Raises:
        UsageError: The folder holds rows of different settings, or no clip could be scored.
        OutputError: The rows cannot be written.
        KeyboardInterrupt: It was interrupted; the rows so far are kept.
    """
    with scored_rows(scorer, samples, folder, overwrite, reporter_options) as rows:
        return make_report(read_scores(rows, samples, labels), scorer.labels(), worst)


@contextlib.contextmanager
def scored_rows(
    scorer: Scorer,
    samples: Sequence[Sample],
    folder: Path | None,
    overwrite: bool,
    reporter_options: dict[str, Any] | None,
) -> Iterator[Path]:
    """Score clips and give the file of their rows; arguments and errors as for `evaluate`."""
    with tempfile.TemporaryDirectory(prefix="vidcls-evaluate-") as temporary:
        folder = folder or Path(temporary)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        rows = folder / ROWS
        job = Job(
            inputs=LabeledInputs(tuple(sample.path for sample in samples)),
            output=str(rows),
            retry_failed=True,
            overwrite=overwrite,
            make_scorer=lambda setup: scorer,
        )
        if score(job, reporter_options).interrupted:
            raise KeyboardInterrupt
        yield rows


def spared(report: Report, scorer: Scorer) -> dict[str, float]:
    """Return the shares of views, and of frames in this run, that `--views auto` did without; empty otherwise."""
    if report.mean_views is None:
        return {}
    settings, stats = scorer.settings(), scorer.stats()
    found = {"views_spared": 1 - report.mean_views / (settings["num_views"] * settings["num_crops"])}
    if stats.get("frames"):
        found["frames_spared"] = stats["frames_spared"] / (stats["frames"] + stats["frames_spared"])
    return found


def read_scores(rows: Path, samples: Sequence[Sample], labels: Sequence[int]) -> list[Scored]:
    """Return what became of each sample, in their order; memory holds no vector of scores.

    Args:
        rows: JSON lines with the scores of all classes.
        samples: The clips.
        labels: Their class ids.
    """
    wanted: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        wanted[sample.path].append(number)
    found: dict[int, Scored] = {}
    with rows.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            for number in wanted.get(row["path"], ()):
                found[number] = _scored(row, labels[number])
    return [found[number] for number in sorted(found)]


def _scored(row: dict[str, Any], label: int) -> Scored:
    if row["error"] is not None:
        return Scored(row["path"], label, error=row["error"])
    best = row["predictions"]
    return Scored(
        row["path"],
        label,
        tuple(int(p["index"]) for p in best),
        tuple(float(p["score"]) for p in best),
        float(row["scores"][label]),
        views=row.get(VIEWS_USED),
    )
