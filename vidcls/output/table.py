"""Rows → plain text for pipes and files: path, rank, score and label between tabs."""

from __future__ import annotations

from typing import ClassVar

from vidcls.errors import printable
from vidcls.output.base import Format, Values


class Table(Format):
    """One line for each prediction, for people; on a terminal `vidcls.output.terminal` takes its place."""

    suffixes = (".txt",)
    complete: ClassVar[bool] = False

    def row(self, row: Values) -> bytes:
        """Return the row's lines."""
        path = printable(row["path"])
        if row.get("error") is not None:
            lines = [f"{path}\t-\t-\terror: {printable(row['error'])}\n"]
        else:
            lines = [
                f"{path}\t{p['rank']}\t{p['score']:.6f}\t{printable(p['label'])}\n"
                for p in row["predictions"]
            ]
        return "".join(lines).encode()
