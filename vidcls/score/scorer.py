"""What `score` asks of whatever scores clips."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from vidcls.score.rows import Result
from vidcls.video.sources import Source

TICK = 0.25  # seconds between looks at the clock and at Ctrl-C

Arrived = queue.Queue[
    Result | BaseException | None
]  # what a thread hands over: results, an error, or None at the end


def arriving(arrived: Arrived) -> Iterator[Result | None]:
    """Yield what another thread hands over, and None now and then, when nothing is there."""
    while True:
        try:
            result = arrived.get(timeout=TICK)
        except queue.Empty:
            yield None
            continue
        if result is None:
            return
        if isinstance(result, BaseException):
            raise result
        yield result


def left_in(arrived: Arrived) -> list[Result]:
    """Return the results that nobody has asked for."""
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            result = arrived.get_nowait()
            if isinstance(result, Result):
                found.append(result)
    return found


class Scorer(Protocol):
    """Whatever scores clips: one model here, several, or a cluster's."""

    def settings(self) -> dict[str, Any]:
        """Return all that the scores depend on, ready for JSON."""
        ...

    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of the model before it runs, one line each."""
        ...

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        """Score clips in any order; None now and then, when nothing is ready."""
        ...

    def leftovers(self) -> list[Result]:
        """Return what was scored but not handed out when ``run`` was closed."""
        ...

    def stats(self) -> dict[str, Any]:
        """Return what was measured on the way: see ``Stats``."""
        ...

    def close(self) -> None:
        """Free all processes."""
        ...
