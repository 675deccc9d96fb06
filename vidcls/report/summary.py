"""What a page says of all clips together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vidcls.report.items import Item

BINS = 20  # of the histogram of scores
MAX_BARS = 200  # labels that are listed; a model may have thousands
PLAIN = "failed"  # kind of an error whose row has no kind: `predict` writes none


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart: a name, a count and its share of the longest, in per cent."""

    name: str
    count: int
    width: float


@dataclass(frozen=True)
class Summary:
    """Figures of all clips.

    Attributes:
        clips: How many there are.
        scored: How many have predictions.
        seconds: Of video, as far as lengths are known.
        labels: Best labels, the most frequent first.
        more_labels: Labels that are not among those.
        errors: Kinds of errors, the most frequent first.
        scores: Histogram of the best scores over 0..1.
        median: Of the best scores; None where nothing was scored.
    """

    clips: int
    scored: int
    seconds: float
    labels: list[Bar]
    more_labels: int
    errors: list[Bar]
    scores: list[Bar]
    median: float | None

    @property
    def length(self) -> tuple[str, str]:
        """Number and unit of the length of all video."""
        return length(self.seconds)


def summarize(items: Sequence[Item]) -> Summary:
    """Count clips, labels, errors and scores."""
    best = sorted(item.top[0][1] for item in items if item.top)
    labels = Counter(item.label for item in items if item.label is not None)
    errors = Counter(item.error_kind or PLAIN for item in items if item.error is not None)
    bins = Counter(min(max(int(score * BINS), 0), BINS - 1) for score in best)
    spans = [(f"{number / BINS:.0%} to {(number + 1) / BINS:.0%}", bins[number]) for number in range(BINS)]
    return Summary(
        clips=len(items),
        scored=len(best),
        seconds=sum(item.duration or 0.0 for item in items),
        labels=bars(labels.most_common(MAX_BARS)),
        more_labels=max(len(labels) - MAX_BARS, 0),
        errors=bars(errors.most_common()),
        scores=bars(spans),
        median=best[len(best) // 2] if best else None,
    )


def bars(counts: Iterable[tuple[str, int]]) -> list[Bar]:
    """Return bars of names and counts, in their order."""
    counts = list(counts)
    longest = max((count for _, count in counts), default=0) or 1
    return [Bar(name, count, round(100 * count / longest, 2)) for name, count in counts]


def length(seconds: float) -> tuple[str, str]:
    """Return a length of time as a number and its unit."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f}", unit
    return f"{seconds:.1f}", "s"
