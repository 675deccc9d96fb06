"""How far scoring has come, on stderr: a bar on a terminal, else a line every 30 s; JSON lines where asked for."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vidcls.errors import printable
from vidcls.output.progress import ProgressBar, print_line
from vidcls.score.listing import Inputs
from vidcls.score.resume_log import in_shard

if TYPE_CHECKING:
    from vidcls.score.rows import Result

LINE_SECONDS = 30.0


@dataclass
class Counts:
    """What happened so far in this run.

    Attributes:
        scored: Clips scored.
        failed: Clips that failed, by kind.
        skipped: Clips that had their row already; those that failed then are in ``failed_before``.
        failed_before: By kind.
        duplicates: Paths that were listed more than once.
        video_seconds: Of the clips scored.
    """

    scored: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    failed_before: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    video_seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count a clip that was done in this run."""
        if result.kind is None:
            self.scored += 1
            self.video_seconds += result.video_seconds
        else:
            self.failed[result.kind] += 1

    @property
    def done(self) -> int:
        """Clips of this run that have their row, whenever it was made."""
        return self.scored + self.failed.total() + self.skipped

    @property
    def worked(self) -> int:
        """Clips that were read in this run."""
        return self.scored + self.failed.total()


class Reporter:
    """Shows the counts; as a context manager it shows them until it is left.

    Args:
        counts: Kept up to date by the caller, who calls ``tick`` now and then.
        inputs: Counted in the background where they can be listed twice, so that an end can be foreseen.
        shard: Which part of the inputs is this run's.
        json_lines: Write JSON lines in place of text.
        quiet: Show nothing.
        verbose: Show each clip's failure too.
    """

    def __init__(
        self,
        counts: Counts,
        inputs: Inputs,
        shard: tuple[int, int] = (1, 1),
        *,
        json_lines: bool = False,
        quiet: bool = False,
        verbose: bool = False,
    ) -> None:
        self._counts = counts
        self._inputs = inputs
        self._shard = shard
        self._json = json_lines
        self._quiet = quiet
        self._verbose = verbose and not quiet
        self._begin = self._last = time.monotonic()
        self._total: int | None = None
        self._ended = threading.Event()
        self._bar: ProgressBar | None = None
        self._wait_share: float | None = None

    def __enter__(self) -> Reporter:
        if self._quiet:
            return self
        if self._inputs.repeatable:
            threading.Thread(target=self._count, name="vidcls-count", daemon=True).start()
        if not self._json:
            self._bar = ProgressBar(transient=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar is not None:
            self._update_bar()
            self._bar.stop()

    def started(self) -> None:
        """Begin to measure: the model is ready."""
        self._begin = time.monotonic()

    def note(self, text: str) -> None:
        """Say what is worth knowing of the model."""
        if self._quiet:
            return
        if self._json:
            self.event("note", text=text)
        elif self._bar is not None and self._has_bar():
            self._bar.print(f"vidcls: {text}")
        else:
            print_line(f"vidcls: {printable(text)}")

    def tick(self, wait_share: float | None = None) -> None:
        """Show the counts if it is time."""
        self._wait_share = wait_share
        if self._has_bar():
            self._update_bar()
        elif not self._quiet and time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            self.event("progress", **self.figures())

    def failed(self, result: Result) -> None:
        """Say that a clip failed, where each is to be told."""
        if not self._verbose:
            return
        if self._bar is not None and self._has_bar():
            self._bar.print(result.row["error"])
        else:
            self.event("failed", path=result.row["path"], kind=result.kind, error=result.row["error"])

    def figures(self) -> dict[str, Any]:
        """Return the counts and rates as plain values."""
        counts = self._counts
        took = max(time.monotonic() - self._begin, 1e-9)
        rate = counts.worked / took
        left = None if self._total is None else max(self._total - counts.done - counts.duplicates, 0)
        return {
            "done": counts.done,
            "failed": counts.failed.total() + counts.failed_before.total(),
            "total": self._total,
            "clips_per_second": round(rate, 3),
            "video_hours_per_hour": round(counts.video_seconds / took, 2),
            "seconds_left": None if left is None or rate == 0 else round(left / rate),
            "wait_share": self._wait_share,
        }

    def event(self, name: str, **facts: Any) -> None:
        """Say something now."""
        if self._json:
            line = json.dumps({"event": name, "time": round(time.time(), 3), **facts}, default=str)
            print_line(line)
        else:
            is_progress = name == "progress"
            text = describe(facts, verbose=self._verbose) if is_progress else printable(facts["error"])
            print_line(f"vidcls: {text}")

    def _count(self) -> None:
        from vidcls.errors import VidclsError

        total = 0
        try:
            for item in self._inputs:
                if self._ended.is_set():
                    return
                total += in_shard(item.path, self._shard)
        except (VidclsError, OSError):  # the run itself meets it too, and reports it
            return
        self._total = total

    def _has_bar(self) -> bool:
        return self._bar is not None and self._bar.shown

    def _update_bar(self) -> None:
        facts = self.figures()
        if self._bar is not None:
            self._bar.update(facts["done"], facts["total"], describe(facts, verbose=self._verbose))


def describe(facts: dict[str, Any], *, verbose: bool = False) -> str:
    """Put the figures of ``Reporter.figures`` into one line, which fits 80 columns beside a bar unless ``verbose``."""
    total = "" if facts["total"] is None else f"/{facts['total']:,}"
    parts = [f"{facts['done']:,}{total} done", f"{facts['failed']:,} failed"]
    parts.append(f"{facts['clips_per_second']:.1f} clips/s")
    if facts["seconds_left"] is not None:
        parts.append(f"{_duration(facts['seconds_left'])} left")
    if verbose:
        parts.append(f"{facts['video_hours_per_hour']:.1f} h of video per hour")
        if facts["wait_share"] is not None:
            parts.append(f"model busy {100 * (1 - facts['wait_share']):.0f} %")
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
