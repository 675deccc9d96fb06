"""What every output format is, rows in, bytes out; and what writes rows with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar

from vidcls.errors import OutputError
from vidcls.output.row import Layout
from vidcls.output.sinks import Sink

Values = Mapping[str, Any]  # of a row, by column


class Format:
    """Turns rows into a file's bytes, from ``begin`` over ``row`` by row to ``end``; for one file only.

    Args:
        layout: Which columns there are.

    Attributes:
        suffixes: How the names of such files end, the usual one first.
        at_once: A file is valid after every row, so that rows may go straight into it.
        appendable: The bytes of a row stand for it alone, and nothing follows the last one.
        complete: It holds all columns of a row.
        flat: It has cells and no lists, so that predictions may stand side by side: ``Layout.wide``.
        keeps_types: It can be read back into the same rows.
        text: It may be shown on a terminal.
    """

    suffixes: ClassVar[tuple[str, ...]]
    at_once: ClassVar[bool] = False
    appendable: ClassVar[bool] = False
    complete: ClassVar[bool] = True
    flat: ClassVar[bool] = False
    keeps_types: ClassVar[bool] = False
    text: ClassVar[bool] = True

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout = layout or Layout()

    def begin(self) -> bytes:
        """Return what comes before the first row."""
        return b""

    def row(self, row: Values) -> bytes:
        """Return the bytes that are ready once this row is there; they may be those of many rows, or none."""
        raise NotImplementedError

    def end(self) -> bytes:
        """Return what comes after the last row."""
        return b""

    def stream(self, rows: Iterable[Values]) -> Iterator[bytes]:
        """Yield a whole file; memory holds a part of it at a time."""
        yield self.begin()
        for row in rows:
            yield self.row(row)
        yield self.end()

    @classmethod
    def read(
        cls, path: str, length: int | None = None
    ) -> tuple[dict[str, Any] | None, Iterator[dict[str, Any]]]:
        """Return the settings, where the file has them, and the rows of a file; only where it ``keeps_types``.

        Args:
            path: The file.
            length: Bytes of it that count, where what follows may be torn.
        """
        raise NotImplementedError


class Writer:
    """Takes rows and hands them on in one format.

    Args:
        sink: Where the bytes go.
        format: What makes bytes of the rows.

    Attributes:
        rows: How many were written.
        shown: Whether a person sees them on a terminal.
    """

    shown: ClassVar[bool] = False

    def __init__(self, sink: Sink, format: Format) -> None:
        self.format = format
        self.rows = 0
        self._sink = sink
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
                self._finish(keep=self.rows > 0)

    def write(self, row: Values, *, seconds: float | None = None) -> None:
        """Write one clip's row.

        Args:
            row: See ``vidcls.output.row.Row``.
            seconds: Time that the clip took, shown on a terminal.

        Raises:
            OutputError: It cannot be written, for instance for lack of space.
            BrokenPipeError: The reader of stdout has gone.
        """
        begin = b"" if self.rows else self.format.begin()
        self._sink.write(begin + self.format.row(row))
        self.rows += 1

    def close(self) -> None:
        """Finish the output; calling it again does nothing."""
        if self._open:
            self._finish(keep=True)

    def _finish(self, keep: bool) -> None:
        self._open = False
        if keep:
            begin = b"" if self.rows else self.format.begin()
            self._sink.write(begin + self.format.end())
        self._sink.close(keep)
