"""What `score` asks of whatever scores clips."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from vidcls.score.rows import Result
from vidcls.video.sources import Source

TICK = 0.25  # seconds between looks at the clock and at Ctrl-C

T = TypeVar("T")
# What a thread hands over: results, an error, or None at the end.
Arrived = queue.Queue[Result | BaseException | None]


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


def put_until(stop: threading.Event, target: queue.Queue[T], item: T) -> bool:
    """Put an item into a bounded queue; False where ``stop`` was set before there was room."""
    while not stop.is_set():
        try:
            target.put(item, timeout=TICK)
            return True
        except queue.Full:
            continue
    return False


class Scorer:
    """Whatever scores clips: one model here, several, or a cluster's."""

    def __init__(self) -> None:
        self._settings: dict[str, Any] = {}
        self._labels: tuple[str, ...] = ()
        self._leftovers: list[Result] = []

    def settings(self) -> dict[str, Any]:
        """Return all that the scores depend on, ready for JSON."""
        return self._settings

    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return self._labels

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the model before it runs, one line each."""
        return ()

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        """Score clips in any order; None now and then, when nothing is ready.

        Closing the generator stops all that is under way.

        Raises:
            VidclsError: Something is wrong with the model or the machine, rather than with a clip.
        """
        raise NotImplementedError

    def leftovers(self) -> list[Result]:
        """Return what was scored but not handed out when ``run`` was closed."""
        return self._leftovers

    def stats(self) -> dict[str, Any]:
        """Return what was measured on the way: see ``Stats``."""
        raise NotImplementedError

    def close(self) -> None:
        """Free all processes."""
        raise NotImplementedError
