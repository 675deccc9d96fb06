"""Rows → CSV: one line for each prediction, or one for each clip with its predictions side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, ClassVar

from vidcls.output.base import Format, Values
from vidcls.output.row import RANKED, SCORES
from vidcls.output.text import finite, json_text


class Csv(Format):
    """Lines after a line of names.

    With ``top_k`` in its layout each clip has one line; else it has one for each rank, and a clip that failed has one
    without a rank.
    """

    suffixes = (".csv",)
    appendable: ClassVar[bool] = True

    def begin(self) -> bytes:
        """Return the line of names."""
        return csv_bytes([self.names()])

    def row(self, row: Values) -> bytes:
        """Return the row's lines."""
        predictions = list(row["predictions"])
        top_k = self.layout.top_k
        if top_k is None:
            lines = [self._ranked(prediction) for prediction in predictions or [{}]]
        else:
            some = (predictions + [{}] * top_k)[:top_k]
            lines = [[cell for prediction in some for cell in self._ranked(prediction, without_rank=True)]]
        head, tail = self._split()
        before = [_cell(name, row.get(name)) for name in head]
        after = [_cell(name, row.get(name)) for name in (*tail, *self.layout.carried)]
        return csv_bytes([*before, *line, *after] for line in lines)

    def names(self) -> list[str]:
        """Return the names of all columns."""
        top_k = self.layout.top_k
        ranked = list(RANKED)
        if top_k is not None:
            ranked = [f"{key}_{rank}" for rank in range(1, top_k + 1) for key in RANKED[1:]]
        head, tail = self._split()
        return [*head, *ranked, *tail, *self.layout.carried]

    def _split(self) -> tuple[list[str], list[str]]:
        """Return the columns before and after the predictions."""
        names = self.layout.names()
        at = names.index("predictions")
        return names[:at], names[at + 1 :]

    def _ranked(self, prediction: Values, without_rank: bool = False) -> list[Any]:
        return [finite(prediction.get(key)) for key in RANKED[without_rank:]]


def _cell(name: str, value: Any) -> Any:
    if name == "warnings":
        return "; ".join(value or ())
    if name == SCORES and value is not None:
        return json_text({name: value})[len(f'{{"{name}": ') : -1]
    return value


def csv_bytes(lines: Iterable[list[Any]]) -> bytes:
    """Write lines of CSV; what is not valid Unicode becomes an escape."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode("utf-8", "backslashreplace")
