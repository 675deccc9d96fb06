"""The text of all rows, appended durably as they come; formats that cannot be appended to are made of it at the end."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vidcls.errors import OutputError, UsageError, printable, system_errors
from vidcls.output.base import Format
from vidcls.output.sinks import write_all, write_error
from vidcls.paths import replacing, sync_folder
from vidcls.score.resume_log import Entry, Journal
from vidcls.score.rows import Result, unwritable

COMMIT_SECONDS = 1.0  # of work may be lost when the process is killed
COMMIT_ROWS = 2048
COPY_BLOCK = 1 << 20  # bytes


class RowFile:
    """The text of all rows, and its journal.

    Nothing is buffered here: what a write could not bring to the file is cut off again by its descriptor, so that the
    file ends with a whole row whatever happens.

    Args:
        path: The text file.
        journal: Says how much of it counts.
        format: Makes bytes of a row; one that is ``appendable``.

    Raises:
        UsageError: The file and the journal do not belong together.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, journal: Journal, format: Format) -> None:
        self.path = path
        self._journal = journal
        self._format = format
        self._header = format.begin()
        self._waiting: list[tuple[Result, bytes]] = []
        self._last = time.monotonic()
        self._length = 0
        self._file: BinaryIO | None = None
        with self._errors():
            self._length = self._recover()
            self._file = self._open()

    def _recover(self) -> int:
        """Return the length that the journal vouches for, after making the file anew where there is none yet."""
        recorded = self._journal.number("length")
        size = self.path.stat().st_size if self.path.exists() else None
        if recorded is None:
            return self._begin(size)
        if size is None or size < recorded:
            return self._packed(size)
        if self._journal.get("packing") is not None:
            self._journal.put(packing=0)
        return recorded

    def _begin(self, size: int | None) -> int:
        if size is not None and self._journal.get("begun") is None:
            raise foreign(self.path)
        # The mark comes before the file, so that a file without the mark is known to be another's.
        self._journal.put(begun=1)
        with self.path.open("wb", buffering=0) as file:
            write_all(file.fileno(), self._header)
            _sync(file)
        sync_folder(self.path.parent)
        self._journal.put(length=len(self._header))
        return len(self._header)

    def _packed(self, size: int | None) -> int:
        """Finish a packing that was cut short after the file had been replaced."""
        if size is not None and str(size) == self._journal.get("packing"):
            self._journal.packed(len(self._header), size)
            return size
        problem = "is missing, but its journal exists" if size is None else "is shorter than its journal says"
        remedy = "put it back, or pass overwrite=True to start again"
        raise UsageError(printable(str(self.path)), problem, remedy)

    def _open(self) -> BinaryIO:
        file = self.path.open("ab", buffering=0)
        file.truncate(self._length)
        return file

    def add(self, result: Result) -> Result:
        """Take a row; it is on the disk after the next ``commit``, which this may be.

        Returns:
            What is written: the result, or its failure where no output could hold its row.

        Raises:
            OutputError: The disk is full; rows of earlier commits are safe.
        """
        kept, text = self._encoded(result)
        self._waiting.append((kept, text))
        self.tick()
        return kept

    def _encoded(self, result: Result) -> tuple[Result, bytes]:
        """Return a result and its text; a row that cannot be written becomes one that says so."""
        layout = self._format.layout
        misfits = layout.misfits(result.row)
        try:
            if not misfits:
                return result, self._format.row(result.row)
        except (TypeError, ValueError, OverflowError, csv.Error) as error:
            misfits = dict.fromkeys(layout.carried or ("predictions",), str(error)[:200])
        failed = unwritable(result, misfits)
        return failed, self._format.row(failed.row)

    def tick(self) -> None:
        """Commit if it is time."""
        late = time.monotonic() - self._last > COMMIT_SECONDS
        if (self._waiting and late) or len(self._waiting) >= COMMIT_ROWS:
            self.commit()

    def commit(self) -> None:
        """Bring all rows taken so far to the disk.

        Raises:
            OutputError: The disk is full; none of them is there then, and those of earlier commits are.
        """
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
                write_all(file.fileno(), b"".join(text for _, text in self._waiting))
                _sync(file)
                self._journal.commit(entries, place)
            except BaseException:
                # Rows that the journal does not count would be cut off by the next run; readers come before it.
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), self._length)
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
        with self._errors():
            with replacing(self.path, alone=True) as place:
                with place.open("wb", buffering=0) as packed:
                    write_all(packed.fileno(), self._header)
                    for block in self._live_blocks():
                        write_all(packed.fileno(), block)
                self._journal.put(packing=live)
                self._opened().close()
            self._journal.packed(len(self._header), live)
            self._length = live
            self._file = self._open()

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
            with contextlib.suppress(OSError):  # what it could complain of is on the disk already
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
            again = ", then start the same command again: it resumes where it stopped"
            raise write_error(printable(str(self.path)), error, again) from None


def foreign(path: Path) -> UsageError:
    """The error of an output that something else has written."""
    problem = "already exists, without a vidcls journal"
    return UsageError(printable(str(path)), problem, "choose another output, or pass overwrite=True")


def remove_output(paths: list[Path]) -> None:
    """Delete what an earlier run wrote."""
    for path in paths:
        with system_errors(OutputError, printable(str(path)), "cannot be replaced", "remove it yourself"):
            path.unlink(missing_ok=True)


def write_whole(target: Path, format: Format, rows: Iterable[dict[str, Any]]) -> None:
    """Write a file of all rows; it is there when it is whole and on the disk.

    Raises:
        OutputError: The disk is full, or the place cannot be written; what was there stays.
    """
    try:
        with replacing(target, alone=True) as place, place.open("wb", buffering=0) as file:
            for data in format.stream(rows):
                write_all(file.fileno(), data)
    except OSError as error:
        raise write_error(printable(str(target)), error, ", then start it again") from None


def _piece(source: BinaryIO, first: int, last: int) -> bytes:
    source.seek(first)
    return source.read(last - first)


def _sync(file: BinaryIO) -> None:
    os.fsync(file.fileno())
