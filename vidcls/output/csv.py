"""Rows → CSV and TSV: one line for each prediction, or one for each clip with its predictions side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, ClassVar

from vidcls.errors import printable
from vidcls.output.base import Format, Values
from vidcls.output.row import RANKED, SCORES, Layout
from vidcls.output.text import finite, json_text


class Csv(Format):
    """Lines after a line of names.

    A clip has one line for each of its predictions, and one without a rank where it failed; with ``wide`` in the
    layout it has one line with all of them.
    """

    suffixes = (".csv",)
    appendable: ClassVar[bool] = True
    flat: ClassVar[bool] = True

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__(layout)
        self._head, *self._tail = (name for name in self.layout.names() if name != "predictions")

    def begin(self) -> bytes:
        """Return the line of names."""
        return self._lines([self.names()])

    def row(self, row: Values) -> bytes:
        """Return the row's lines."""
        predictions, wide = list(row["predictions"]), self.layout.wide
        if wide is None:
            ranked = [_ranked(prediction) for prediction in predictions or [{}]]
        else:
            some = (predictions + [{}] * wide)[:wide]
            ranked = [[cell for prediction in some for cell in _ranked(prediction)[1:]]]
        before = _cell(self._head, row.get(self._head))
        after = [_cell(name, row.get(name)) for name in (*self._tail, *self.layout.carried)]
        return self._lines([before, *cells, *after] for cells in ranked)

    def names(self) -> list[str]:
        """Return the names of all columns."""
        wide = self.layout.wide
        ranked = list(RANKED)
        if wide is not None:
            ranked = [f"{key}_{rank}" for rank in range(1, wide + 1) for key in RANKED[1:]]
        names = [self._head, *ranked, *self._tail]
        for name in self.layout.carried:
            # A manifest's ``label`` is told from the predicted one.
            while name in names:
                name = f"input_{name}"
            names.append(name)
        return names

    def _lines(self, lines: Iterable[list[Any]]) -> bytes:
        return csv_bytes(lines)


class Tsv(Csv):
    """The same with tabs; control characters are escapes, so that a line is a line for a terminal and for ``cut``."""

    suffixes = (".tsv",)

    def _lines(self, lines: Iterable[list[Any]]) -> bytes:
        shown = ([printable(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
        return csv_bytes(shown, "\t")


def _ranked(prediction: Values) -> list[Any]:
    return [finite(prediction.get(key)) for key in RANKED]


def _cell(name: str, value: Any) -> Any:
    if name == "warnings":
        return "; ".join(value or ())
    if name == SCORES and value is not None:
        return json_text({name: value})[len(f'{{"{name}": ') : -1]
    return value


def csv_bytes(lines: Iterable[list[Any]], delimiter: str = ",") -> bytes:
    """Write lines; what is not valid Unicode becomes an escape."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode("utf-8", "backslashreplace")
