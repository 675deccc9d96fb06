"""What a page shows of one video's timeline, as `vidcls timeline` writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidcls.report.items import Item, get, label_of, number
from vidcls.report.summary import Bar, bars, length


@dataclass(frozen=True)
class Stretch:
    """A stretch of a video with one label: seconds at which it starts and ends, and its best labels."""

    start: float
    end: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Film:
    """One video.

    Attributes:
        path: As it was named.
        model: Name of the model.
        duration: Seconds.
        stretches: In order.
        cuts: Seconds at which a shot begins.
        error: Why there is no timeline.
    """

    path: str
    model: str
    duration: float
    stretches: tuple[Stretch, ...]
    cuts: tuple[float, ...] = ()
    error: str | None = None

    @property
    def item(self) -> Item:
        """The video as what gets pictures: frames of the whole file."""
        return Item(self.path, error=self.error)


def film_of(plain: Mapping[str, Any]) -> Film:
    """Return the film of a timeline.

    Raises:
        ValueError: It is not one; the message says which of its values is wrong.
    """
    stretches = tuple(map(_stretch, get(plain, "segments", list, [])))
    end = max((one.end for one in stretches), default=0.0)
    return Film(
        path=get(plain, "path", str, ""),
        model=get(plain, "model", str, ""),
        duration=max(number(plain, "duration") or 0.0, end),
        stretches=stretches,
        cuts=tuple(number({"cuts": cut}, "cuts") or 0.0 for cut in get(plain, "cuts", list, [])),
        error=get(plain, "error", str, None),
    )


def _stretch(plain: Any) -> Stretch:
    start, end = number(plain, "start") or 0.0, number(plain, "end") or 0.0
    if not 0 <= start <= end:
        raise ValueError(f"a segment is from {start:g} s to {end:g} s")
    ranked: list[Any] = get(plain, "predictions", list, [])
    return Stretch(start, end, tuple(map(label_of, ranked)) or (label_of(plain),))


@dataclass(frozen=True)
class FilmSummary:
    """Figures of all videos.

    Attributes:
        films: How many there are.
        failed: How many have no timeline.
        seconds: Of video.
        segments: How many there are.
        labels: Time that has each label, the longest first: the bars count whole seconds.
        labeled: Share of the time that has a label.
    """

    films: int
    failed: int
    seconds: float
    segments: int
    labels: list[Bar]
    labeled: float

    @property
    def length(self) -> tuple[str, str]:
        """Number and unit of the length of all video."""
        return length(self.seconds)


def summarize_films(films: Sequence[Film]) -> FilmSummary:
    """Count videos, segments and the time of each label."""
    times: Counter[str] = Counter()
    for film in films:
        for one in film.stretches:
            times[one.top[0][0]] += one.end - one.start  # type: ignore[assignment]
    seconds = sum(film.duration for film in films)
    return FilmSummary(
        films=len(films),
        failed=sum(film.error is not None for film in films),
        seconds=seconds,
        segments=sum(len(film.stretches) for film in films),
        labels=bars((label, round(time)) for label, time in times.most_common()),
        labeled=sum(times.values()) / seconds if seconds else 0.0,
    )
