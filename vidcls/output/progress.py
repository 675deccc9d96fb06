"""Lines on stderr, and the one progress bar: where that is a terminal, nothing elsewhere. rich heeds NO_COLOR."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from vidcls.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

BYTES = "bytes"
WIDE = 110  # columns of a terminal that leave room for a long bar


def wrapped(text: str, stream: TextIO) -> str:
    """Break a line at words where it goes to a terminal; a word that is too long, such as a path, stays whole."""
    if not stream.isatty():
        return text
    import shutil
    import textwrap

    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, max(width, 20), break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )


_wording: Callable[[str], str] = str


@contextlib.contextmanager
def wording(translate: Callable[[str], str]) -> Iterator[None]:
    """Within this context, put `worded` texts as the command line does: flags in place of parameters."""
    global _wording
    before, _wording = _wording, translate
    try:
        yield
    finally:
        _wording = before


def worded(text: str) -> str:
    """A message of the library as the command that runs puts it; outside of commands as it is."""
    return _wording(text)


def print_line(text: str) -> None:
    """Print a line on stderr; where nobody can take it (a full disk, a closed pipe), go on without."""
    try:
        text = "\n".join(wrapped(line, sys.stderr) for line in text.split("\n"))
        print(text.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # what is in its buffer goes nowhere too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class ProgressBar:
    """A bar for one task at a time; use it as a context manager, or ``stop`` it.

    Args:
        label: What is being done.
        total: When it is done; None: not known yet.
        unit: What is counted; ``BYTES`` shows sizes and a speed, None leaves the numbers to ``update``'s text.
        shown: False for no bar on a terminal either.
        transient: Whether it goes away when it stops.

    Attributes:
        shown: Whether there is a bar to be seen.
    """

    def __init__(
        self,
        label: str = "",
        total: float | None = None,
        *,
        unit: str | None = None,
        shown: bool = True,
        transient: bool = True,
    ) -> None:
        # A terminal that cannot move its cursor would show each state of the bar as a line.
        still = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        self.shown = shown and sys.stderr.isatty() and not still
        if not self.shown:
            return
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        bar_width = 40 if console.width >= WIDE else 12
        self._progress: Progress = Progress(*_columns(unit, bar_width), console=console, transient=transient)
        self._task = self._progress.add_task(printable(label), total=total, text="")
        self._progress.start()

    def update(self, done: float, total: float | None = None, text: str = "", label: str = "") -> None:
        """Move the bar.

        Args:
            done: How much is done.
            total: Of how much, where that has become known.
            text: Shown behind the bar.
            label: What is being done now; empty: as before.
        """
        if self.shown:
            self._progress.update(
                self._task,
                completed=done,
                total=total,
                text=printable(text),
                description=printable(label) if label else None,
                visible=True,
            )

    def clear(self) -> None:
        """Hide the bar until the next ``update``, which begins a new task."""
        if self.shown:
            self._progress.reset(self._task, visible=False)

    def print(self, text: str) -> None:
        """Print a line above the bar; only where there is one."""
        from rich.text import Text

        self._progress.console.print(Text(printable(text)))

    def stop(self) -> None:
        """Take the bar away."""
        if self.shown:
            self._progress.stop()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _columns(unit: str | None, bar_width: int) -> list[ProgressColumn]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    label = TextColumn("{task.description}", markup=False)
    text = TextColumn("{task.fields[text]}", markup=False)
    bar = BarColumn(bar_width)
    if unit is None:
        return [label, bar, text]
    if unit == BYTES:
        return [label, bar, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    amount = [MofNCompleteColumn(), TextColumn(unit, markup=False)]
    return [label, bar, *amount, text, TimeRemainingColumn()]
