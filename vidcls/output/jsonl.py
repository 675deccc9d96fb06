"""Rows → JSON: one object a line, or one list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from vidcls.errors import UsageError, printable
from vidcls.output.base import Format, Values
from vidcls.output.text import escape_json, json_text


class JsonLines(Format):
    """One object a line; a file is valid at every moment."""

    suffixes = (".jsonl", ".ndjson")
    at_once: ClassVar[bool] = True
    appendable: ClassVar[bool] = True
    keeps_types: ClassVar[bool] = True

    def row(self, row: Values) -> bytes:
        """Return the row's line."""
        return f"{json_text(row)}\n".encode()

    @classmethod
    def read(
        cls, path: str, length: int | None = None
    ) -> tuple[dict[str, Any] | None, Iterator[dict[str, Any]]]:
        """Return no settings and the rows; see ``Format``."""
        return None, _rows(path, length)


class RowLines(JsonLines):
    """Lines between scoring and the finished file, read by vidcls alone: NaN and infinities stay what they are."""

    def row(self, row: Values) -> bytes:
        """Return the row's line."""
        return f"{escape_json(json.dumps(dict(row), ensure_ascii=False))}\n".encode()


class Json(Format):
    """A list of objects."""

    suffixes = (".json",)
    _before = "[\n  "

    def row(self, row: Values) -> bytes:
        """Return the row's object and what separates it from the one before."""
        before, self._before = self._before, ",\n  "
        return (before + json_text(row, indent=2).replace("\n", "\n  ")).encode()

    def end(self) -> bytes:
        """Return the end of the list."""
        return b"[]\n" if self._before == Json._before else b"\n]\n"


def _rows(path: str, length: int | None) -> Iterator[dict[str, Any]]:
    place = 0
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            place += len(line)
            if length is not None and place > length:
                return
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                raise UsageError(printable(path), f"line {number} is not a row", "score that part again")
            yield row
