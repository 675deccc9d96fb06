"""Results → text: a table for people, JSON, JSON lines and CSV for programs. Imports no torch.

A row is one clip's result::

    {"path", "model", "weights", "views", "crops", "num_frames", "stride", "fps", "duration", "decoder",
     "predictions": [{"rank", "index", "label", "score"}], "warnings": [], "error": null}

Writers take rows one by one and write each at once. File names and labels come from strangers: what would steer a
terminal is shown in its place as an escape, and what is not valid Unicode never stops the output.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from vidcls.config import nearest
from vidcls.errors import OutputError, UsageError
from vidcls.output.text import finite, json_text, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Row = Mapping[str, Any]

ROW_KEYS = (
    "path", "model", "weights", "views", "crops", "num_frames", "stride", "fps", "duration", "decoder",
)  # fmt: skip
PREDICTION_KEYS = ("rank", "index", "label", "score")
SUFFIXES = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "table"}
BAR_WIDTH = 24  # columns of a full bar
LEAST_WIDTH = 28  # columns of a table without bars
NARROW = 56  # columns of a terminal below which bars give way to labels


def open_output(
    path: str | os.PathLike[str] | None, format: str | None = None, *, hint: str | None = None
) -> Writer:
    """Open a writer of rows; use it as a context manager.

    A file is written beside its place and moved there when it is whole, so that no reader ever sees half of it;
    JSON lines are whole at every line and go straight into the file. Where writing stops early, the rows so far
    still make a valid file.

    Args:
        path: Where to write; None or ``-`` is stdout.
        format: A key of ``FORMATS``; None goes by the suffix of ``path``, else ``table``.
        hint: One line printed under the last table on a terminal.

    Raises:
        UsageError: There is no such format.
        OutputError: The file cannot be written.
    """
    if path is not None and os.fspath(path) == "-":
        path = None
    suffix = Path(path).suffix.lower() if path is not None else ""
    if format is None:
        if suffix == ".parquet":
            raise UsageError(str(path), "Parquet is written by `vidcls score`", f"use {', '.join(FORMATS)}")
        format = SUFFIXES.get(suffix, "table")
    if format not in FORMATS:
        raise UsageError(
            "--format",
            f"{format!r} is not known{nearest(format, FORMATS)}",
            f"choose from {', '.join(FORMATS)}",
        )
    kind = FORMATS[format]
    if kind is TableWriter and path is None and sys.stdout.isatty():
        return TerminalWriter(hint)
    sink = _Stdout() if path is None else _File(Path(path), atomic=kind.atomic)
    return kind(sink)


class _Sink:
    """Where text goes, as UTF-8."""

    name = "stdout"

    def write(self, text: str) -> None:
        raise NotImplementedError

    def close(self, keep: bool) -> None:
        """Finish; without ``keep`` what was there before stays."""


class _Stdout(_Sink):
    """Standard output, flushed after every row so that a pipe's reader sees it at once."""

    def write(self, text: str) -> None:
        try:
            sys.stdout.flush()
            raw = getattr(sys.stdout, "buffer", None)
            if raw is None:
                sys.stdout.write(text)
            else:
                # Programs read UTF-8, whatever this terminal's encoding and line ends are.
                raw.write(text.encode("utf-8"))
                raw.flush()
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _write_error("stdout", error) from None


class _File(_Sink):
    """A file, replaced as a whole when ``atomic``."""

    def __init__(self, path: Path, *, atomic: bool) -> None:
        self.name = printable(str(path))
        try:
            # A link's target is replaced, not the link; devices and pipes are written into.
            self._target = path.resolve() if path.is_symlink() else path
            special = self._target.exists() and not self._target.is_file()
            self._place = self._target
            if atomic and not special:
                self._place = self._target.with_name(f".{self._target.name[:200]}.{os.getpid()}.tmp")
            # What was in a file that is written into goes only when there is something to write.
            self._stale = self._place == self._target and not special
            self._file: TextIO = self._place.open("a" if self._stale else "w", encoding="utf-8", newline="")
        except (OSError, ValueError) as error:
            raise OutputError(self.name, *_reason(error, path)) from None

    def write(self, text: str) -> None:
        if self._file.closed:
            raise OutputError(self.name, "is closed already", "open it again")
        try:
            self._clear()
            self._file.write(text)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._stopped(error) from None

    def close(self, keep: bool) -> None:
        if self._file.closed:
            return
        try:
            if self._place == self._target:
                if keep:
                    self._clear()
                self._file.close()
                return
            if not keep:
                self._file.close()
                self._place.unlink()
                return
            os.fsync(self._file.fileno())
            self._file.close()
            if self._target.exists():
                shutil.copymode(self._target, self._place)
            self._place.replace(self._target)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._stopped(error) from None

    def _clear(self) -> None:
        if self._stale:
            self._file.truncate(0)
            self._stale = False

    def _stopped(self, error: OSError) -> OutputError:
        """Close without losing what is on the disk, and say where it is."""
        with contextlib.suppress(OSError):  # the same trouble again: closing flushes
            self._file.close()
        failure = _write_error(self.name, error)
        if self._place != self._target and self._place.exists():
            if self._place.stat().st_size == 0:
                self._place.unlink()
            else:
                failure.remedy += f"; what was written so far is in {printable(str(self._place))}"
        return OutputError(failure.subject, failure.problem, failure.remedy)


def _reason(error: OSError | ValueError, path: Path) -> tuple[str, str]:
    """Say what is wrong with a place to write to, and what to do."""
    if isinstance(error, FileNotFoundError):
        return f"the folder {printable(str(path.parent))} does not exist", "create it first"
    if isinstance(error, IsADirectoryError):
        return "is a folder", "name a file"
    if isinstance(error, PermissionError):
        return "permission denied", "choose another place"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"cannot be written ({reason or error})", "choose another place"


def _write_error(name: str, error: OSError) -> OutputError:
    return OutputError(
        name, f"writing failed ({error.strerror or error})", "free some space or choose another place"
    )


class Writer:
    """Takes rows; one subclass for each form.

    Attributes:
        atomic: A file in this form is only valid as a whole.
    """

    atomic: ClassVar[bool] = True

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._rows = 0
        self._open = True

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        # What was computed before an interruption is kept; without any row the earlier file is.
        with contextlib.suppress(BrokenPipeError, OutputError):  # the first error says more
            if self._open:
                self._finish(keep=self._rows > 0)

    def write(self, row: Row, *, seconds: float | None = None) -> None:
        """Write one clip's row.

        Args:
            row: See the head of this file; further keys are kept where the form has room for them.
            seconds: Time that the clip took, shown on a terminal.

        Raises:
            OutputError: It cannot be written, for instance for lack of space.
            BrokenPipeError: The reader of stdout has gone.
        """
        self._sink.write(self._text(row))
        self._rows += 1

    def close(self) -> None:
        """Finish the output; calling it again does nothing.

        Raises:
            OutputError: It cannot be written.
        """
        if self._open:
            self._finish(keep=True)

    def _finish(self, keep: bool) -> None:
        self._open = False
        end = self._end()
        if end:
            self._sink.write(end)
        self._sink.close(keep)

    def _text(self, row: Row) -> str:
        raise NotImplementedError

    def _end(self) -> str:
        return ""


class JsonWriter(Writer):
    """A list of objects."""

    def _text(self, row: Row) -> str:
        return ("[\n  " if self._rows == 0 else ",\n  ") + json_text(row, indent=2).replace("\n", "\n  ")

    def _end(self) -> str:
        return "\n]\n" if self._rows else "[]\n"


class JsonLinesWriter(Writer):
    """One object per line; a file is valid at every moment."""

    atomic = False

    def _text(self, row: Row) -> str:
        return json_text(row) + "\n"


class CsvWriter(Writer):
    """One line per (file, rank), after a line of names; a clip that failed has one line without a rank."""

    def _text(self, row: Row) -> str:
        head = [row.get(key) for key in ROW_KEYS]
        tail = ["; ".join(row.get("warnings") or ()), row.get("error")]
        predictions = row.get("predictions") or [dict.fromkeys(PREDICTION_KEYS)]
        lines = [[*head, *(finite(p[key]) for key in PREDICTION_KEYS), *tail] for p in predictions]
        return self._names() + csv_text(lines)

    def _end(self) -> str:
        return self._names()

    def _names(self) -> str:
        return "" if self._rows else csv_text([[*ROW_KEYS, *PREDICTION_KEYS, "warnings", "error"]])


def csv_text(lines: list[list[Any]]) -> str:
    """Write lines of CSV; what is not valid Unicode becomes an escape."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")


class TableWriter(Writer):
    """Plain text for pipes and files: path, rank, score and label between tabs, one prediction per line."""

    def _text(self, row: Row) -> str:
        path = printable(row["path"])
        if row.get("error") is not None:
            return f"{path}\t-\t-\terror: {printable(row['error'])}\n"
        return "".join(
            f"{path}\t{p['rank']}\t{p['score']:.6f}\t{printable(p['label'])}\n" for p in row["predictions"]
        )


class TerminalWriter(Writer):
    """A table per clip on a terminal, with bars and colors as far as it has them (NO_COLOR is heeded).

    Args:
        hint: One line printed under the last table.
        console: Another terminal than stdout, for tests.
    """

    def __init__(self, hint: str | None = None, console: Console | None = None) -> None:
        super().__init__(_Sink())
        from rich.console import Console

        self._console = console or Console(highlight=False, markup=False, emoji=False)
        # A table needs this much; on a narrower terminal the lines wrap.
        if self._console.width < LEAST_WIDTH:
            self._console.width = LEAST_WIDTH
        self._hint = hint

    def write(self, row: Row, *, seconds: float | None = None) -> None:
        """Print one clip's table; a failed clip has none, its error stands on stderr."""
        if row.get("error") is not None:
            return
        from rich.text import Text

        self._print(Text(self._safe(row["path"]), style="bold", overflow="fold"))
        self._print(self._table(row["predictions"]))
        for warning in row.get("warnings") or ():
            self._print(Text(self._safe(f"warning: {warning}"), style="yellow", overflow="fold"))
        self._print(Text(self._safe(_footer(row, seconds)), style="dim", overflow="fold"))
        self._print("")
        self._rows += 1

    def _end(self) -> str:
        if self._hint and self._rows:
            from rich.text import Text

            self._print(Text(self._safe(self._hint), style="dim", overflow="fold"))
        return ""

    def _print(self, line: RenderableType) -> None:
        try:
            self._console.print(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _write_error("stdout", error) from None

    def _safe(self, text: str) -> str:
        """Escape what would steer the terminal, and what its encoding cannot show."""
        encoding = self._console.encoding
        return printable(text).encode(encoding, "backslashreplace").decode(encoding)

    def _table(self, predictions: list[dict[str, Any]]) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("rank", justify="right", no_wrap=True)
        table.add_column("label", overflow="fold", min_width=8)
        wide = self._console.width >= NARROW
        if wide:
            table.add_column("", no_wrap=True, width=BAR_WIDTH)
        table.add_column("score", justify="right", no_wrap=True, min_width=6)
        for p in predictions:
            label = Text(self._safe(p["label"]), style="bold" if p["rank"] == 1 else "")
            bar = [Text(self._bar(p["score"]), style="cyan")] if wide else []
            table.add_row(str(p["rank"]), label, *bar, f"{100 * p['score']:.1f}%")
        return table

    def _bar(self, score: float) -> str:
        share = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
        if not self._console.encoding.lower().startswith("utf"):
            return "#" * round(share * BAR_WIDTH)
        eighths = round(share * BAR_WIDTH * 8)
        return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _footer(row: Row, seconds: float | None) -> str:
    """One line under a table: model, views, frames used, decoder, seconds."""
    views = f"{row['views']} views" if row["views"] != 1 else "1 view"
    crops = f" x {row['crops']} crops" if row["crops"] != 1 else ""
    parts = [row["model"], f"{views}{crops} of {row['num_frames']} frames, stride {row['stride']}"]
    if row.get("decoder"):
        parts.append(row["decoder"])
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return " | ".join(parts)


FORMATS: dict[str, type[Writer]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
    "csv": CsvWriter,
}
