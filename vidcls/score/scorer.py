"""What `score` asks of whatever scores clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from vidcls.score.rows import Result
from vidcls.video.sources import Source


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
