"""What a video's timeline is: segments with labels, and the scores that they were made of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.errors import InputError
from vidcls.inference.prediction import ScoredLabel
from vidcls.timeline.segments import Cell, Run


@dataclass(frozen=True)
class Settings:
    """How timelines are made.

    Attributes:
        by: ``windows`` or ``shots``.
        window: Length of a window in seconds; None means the model's own clip length.
        step: Seconds from window to window; None means half of the window.
        min_length: Minimum length of a segment in seconds; None means 1 s by windows, and no minimum by shots.
        threshold: Score, 0 to 1, that a label must reach.
        top_k: Number of labels per segment.
    """

    by: str = "windows"
    window: float | None = None
    step: float | None = None
    min_length: float | None = None
    threshold: float = 0.5
    top_k: int = 3

    @property
    def least(self) -> float:
        """Least length of a segment in seconds."""
        if self.min_length is not None:
            return self.min_length
        return 1.0 if self.by == "windows" else 0.0


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one label.

    Attributes:
        start: Seconds from the first frame.
        end: Seconds.
        top: The best labels, best first by mean score over the segment, but the segment's own always first.
    """

    start: float
    end: float
    top: tuple[ScoredLabel, ...]

    @property
    def label(self) -> str:
        """The segment's label."""
        return self.top[0].label

    @property
    def score(self) -> float:
        """Mean score of the label over the segment, 0 to 1."""
        return self.top[0].score

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        predictions = [
            {"rank": rank, "index": one.class_index, "label": one.label, "score": one.score}
            for rank, one in enumerate(self.top, 1)
        ]
        return {
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            "label": self.label,
            "score": self.score,
            "predictions": predictions,
        }


@dataclass(frozen=True, repr=False)
class Timeline:
    """The timeline of one video.

    Attributes:
        path: The video, as it was named.
        segments: In order; they do not overlap, and moments without a label are in none.
        facts: What else is written of the video: model, settings, length, frame rate, decoder, warnings.
        cuts: Seconds at which a new shot begins, where it was made by shots.
        cells: The smoothed scores of which the segments were made; by shots those of the shots.
        units: Frames or tubelets that the windows have together, and how many were encoded.
        error: Why there is none.
    """

    path: str
    segments: tuple[Segment, ...]
    facts: dict[str, Any]
    cuts: tuple[float, ...] | None = None
    cells: tuple[Cell, ...] = field(default=(), repr=False)
    units: tuple[int, int] | None = None
    error: InputError | None = None

    @property
    def duration(self) -> float:
        """Length of the video in seconds; 0 where that is not known."""
        return self.facts.get("duration") or 0.0

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the segments, each once, in order of appearance."""
        return tuple(dict.fromkeys(segment.label for segment in self.segments))

    def at(self, seconds: float) -> Segment | None:
        """Return the segment at a moment, or None."""
        return next((one for one in self.segments if one.start <= seconds < one.end), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``vidcls timeline`` writes it as JSON."""
        return {
            "path": self.path,
            **self.facts,
            "segments": [segment.to_dict() for segment in self.segments],
            "cuts": None if self.cuts is None else [round(cut, 6) for cut in self.cuts],
            "error": None if self.error is None else str(self.error),
            "error_kind": None if self.error is None else self.error.kind,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it in the format that the suffix names: ``.json``, ``.csv``, ``.srt`` …; a file there is replaced.

        Raises:
            UsageError: No format has this suffix.
            OutputError: The file cannot be written.
        """
        from vidcls.timeline.formats import write

        write(Path(path), [self])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the segments as bars, one line a label, above their scores.

        Args:
            path: Where to save the picture, such as ``timeline.png``; None saves none.

        Returns:
            matplotlib's figure.

        Raises:
            DependencyError: matplotlib is not installed.
            OutputError: The picture cannot be written.
        """
        from vidcls.output.plots import save_figure
        from vidcls.timeline.plot import draw

        figure = draw(self)
        if path is not None:
            save_figure(figure, Path(path))
        return figure

    def _repr_html_(self) -> str:
        from vidcls.timeline.page import fragment

        return fragment(self)

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Timeline({self.path!r}: {self.error})"
        said = ", ".join(f"{s.start:.1f}-{s.end:.1f} {s.label} {s.score:.2f}" for s in self.segments[:4])
        more = f", … {len(self.segments) - 4} more" if len(self.segments) > 4 else ""
        return f"Timeline({self.path!r}, {self.duration:.1f} s: {said or 'no segment'}{more})"


def segment_of(run: Run, labels: tuple[str, ...], top_k: int) -> Segment:
    """Make a segment of a run that has a label."""
    assert run.label is not None
    best = [run.label, *(int(i) for i in np.argsort(-run.scores, kind="stable") if i != run.label)]
    top = tuple(ScoredLabel(labels[i], float(run.scores[i]), i) for i in best[: max(1, top_k)])
    return Segment(run.start, run.end, top)


def segments_of(runs: Iterable[Run], labels: tuple[str, ...], top_k: int) -> Iterator[Segment]:
    """Yield the segments of runs; those without a label are none."""
    for run in runs:
        if run.label is not None:
            yield segment_of(run, labels, top_k)
