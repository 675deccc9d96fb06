"""Rows → the output file: appended durably as they come; Parquet is made of them at the end."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from vidcls.errors import OutputError, UsageError
from vidcls.output.text import printable
from vidcls.paths import replacing, sync_folder
from vidcls.score.resume_log import Entry, Journal
from vidcls.score.rows import Result

COMMIT_SECONDS = 1.0  # of work may be lost when the process is killed
COMMIT_ROWS = 2048
COPY_BLOCK = 1 << 20  # bytes

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class Lines(Protocol):
    """How a row becomes text."""

    header: str

    def text(self, row: dict[str, Any]) -> str:
        """Return the row's text, with its line end."""
        ...


def format_of(output: str) -> str:
    """Return the form that a file's name asks for.

    Raises:
        UsageError: It asks for none.
    """
    suffix = os.path.splitext(output)[1].lower()
    if suffix not in FORMATS:
        raise UsageError(output, "its form is not clear", f"end its name in {', '.join(FORMATS)}")
    return FORMATS[suffix]


class RowFile:
    """The text of all rows, and its journal.

    Args:
        path: The text file.
        journal: Says how much of it counts.
        lines: Makes text of a row.

    Raises:
        UsageError: The file and the journal do not belong together.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, journal: Journal, lines: Lines) -> None:
        self.path = path
        self._journal = journal
        self._lines = lines
        self._header = lines.header.encode()
        self._waiting: list[tuple[Result, bytes]] = []
        self._last = time.monotonic()
        self._file: BinaryIO | None = None
        self._length = 0
        with self._errors():
            self._recover()

    def _recover(self) -> None:
        """Bring the file to the length that the journal vouches for."""
        recorded = self._journal.get("length")
        size = self.path.stat().st_size if self.path.exists() else None
        if recorded is None:
            if size is not None and self._journal.get("begun") is None:
                raise UsageError(
                    printable(str(self.path)),
                    "is there already, without a journal of vidcls",
                    "choose another output, or --overwrite",
                )
            # The mark comes before the file, so that a file without the mark is known to be another's.
            self._journal.put(begun=1)
            with self.path.open("wb") as file:
                file.write(self._header)
                _sync(file)
            sync_folder(self.path.parent)
            recorded = str(len(self._header))
            self._journal.put(length=recorded)
        elif size is None or size < int(recorded):
            size = self._packed(size)
            recorded = str(size)
        elif self._journal.get("packing") is not None:
            self._journal.put(packing=0)
        self._length = int(recorded)
        self._file = self.path.open("r+b")
        self._file.truncate(self._length)
        self._file.seek(self._length)

    def _packed(self, size: int | None) -> int:
        """Finish a packing that was cut short after the file had been replaced."""
        if size is not None and str(size) == self._journal.get("packing"):
            self._journal.packed(len(self._header), size)
            return size
        name = printable(str(self.path))
        problem = "is gone, but its journal is there" if size is None else "is shorter than its journal says"
        raise UsageError(name, problem, "put it back, or --overwrite to start again")

    def add(self, result: Result) -> None:
        """Take a row; it is on the disk after the next ``commit``, which this may be.

        Raises:
            OutputError: The disk is full; rows of earlier commits are safe.
        """
        self._waiting.append((result, self._lines.text(result.row).encode()))
        self.tick()

    def tick(self) -> None:
        """Commit if it is time."""
        late = time.monotonic() - self._last > COMMIT_SECONDS
        if (self._waiting and late) or len(self._waiting) >= COMMIT_ROWS:
            self.commit()

    def commit(self) -> None:
        """Bring all rows taken so far to the disk."""
        self._last = time.monotonic()
        if not self._waiting:
            return
        entries = []
        place = self._length
        for result, text in self._waiting:
            entries.append(Entry(result.item.path, result.kind, place, len(text)))
            place += len(text)
        file = self._opened()
        with self._errors():
            try:
                file.write(b"".join(text for _, text in self._waiting))
                _sync(file)
                self._journal.commit(entries, place)
            except BaseException:
                # Half a line at the end of the file would stop its readers until the next run.
                with contextlib.suppress(OSError):
                    file.seek(self._length)
                    file.truncate(self._length)
                raise
        self._length = place
        self._waiting.clear()
        self._last = time.monotonic()

    def pack(self) -> None:
        """Remove the rows that later ones have replaced, in one step.

        Raises:
            OutputError: The disk is full; the file stays as it was.
        """
        live = len(self._header) + self._journal.live_bytes()
        if live == self._length:
            return
        file = self._opened()
        with self._errors():
            with replacing(self.path, alone=True) as place:
                with place.open("wb") as packed:
                    packed.write(self._header)
                    for block in self._live_blocks():
                        packed.write(block)
                self._journal.put(packing=live)
                file.close()
            self._journal.packed(len(self._header), live)
            self._length = live
            self._file = self.path.open("r+b")
            self._file.seek(live)

    def _live_blocks(self) -> Iterator[bytes]:
        """Yield the text of the rows that count, in pieces that end with a row."""
        with self.path.open("rb") as source:
            first = last = -1
            for start, length in self._journal.spans():
                if start != last or last - first > COPY_BLOCK:
                    if first >= 0:
                        yield _piece(source, first, last)
                    first = start
                last = start + length
            if first >= 0:
                yield _piece(source, first, last)

    def live_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that count; only for JSON lines."""
        for block in self._live_blocks():
            for line in block.splitlines():
                yield json.loads(line)

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                printable(str(self.path)),
                f"writing failed ({error.strerror or error})",
                "free some space, then start the same command again: it goes on where it was",
            ) from None


def remove_output(paths: list[Path]) -> None:
    """Delete what an earlier run wrote."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                str(path), f"cannot be replaced ({error.strerror})", "remove it yourself"
            ) from None


def atomically(target: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file beside its place and put it there when it is whole and on the disk.

    Raises:
        OutputError: The disk is full, or the place cannot be written; what was there stays.
    """
    try:
        with replacing(target, alone=True) as place:
            write(place)
    except OSError as error:
        raise OutputError(
            printable(str(target)),
            f"writing failed ({error.strerror or error})",
            "free some space, start it again",
        ) from None


def _piece(source: BinaryIO, first: int, last: int) -> bytes:
    source.seek(first)
    return source.read(last - first)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
