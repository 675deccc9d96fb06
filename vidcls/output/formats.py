"""All output formats, and which one a file's name asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vidcls.errors import UsageError, nearest, printable
from vidcls.output.base import Format
from vidcls.output.csv import Csv, Tsv
from vidcls.output.jsonl import Json, JsonLines
from vidcls.output.parquet import Parquet
from vidcls.output.table import Table

FORMATS: dict[str, type[Format]] = {
    "table": Table,
    "json": Json,
    "jsonl": JsonLines,
    "csv": Csv,
    "tsv": Tsv,
    "parquet": Parquet,
}
BY_SUFFIX = {suffix: name for name, kind in FORMATS.items() for suffix in kind.suffixes}


def choose_format(path: str | os.PathLike[str] | None, format: str | None = None) -> str:
    """Return the key of ``FORMATS`` for an output.

    Args:
        path: Where it goes; None for stdout.
        format: What was asked for; None goes by the suffix of ``path``, or is a table where there is none.

    Raises:
        UsageError: There is no such format, or the suffix is another format's or none's.
    """
    if format is not None and format not in FORMATS:
        problem = f"{format!r} is not known{nearest(format, FORMATS)}"
        raise UsageError("format", problem, f"choose from {', '.join(FORMATS)}")
    suffix = "" if path is None else Path(path).suffix.lower()
    if not suffix:
        return format or "table"
    name = printable(os.fspath(path or ""))
    found = BY_SUFFIX.get(suffix)
    if found is None:
        wanted = BY_SUFFIX if format is None else FORMATS[format].suffixes
        raise UsageError(name, "its suffix is not that of an output format", f"end its name in {_or(wanted)}")
    if format not in (None, found):
        problem = f"its suffix is that of {found}, not of {format}"
        raise UsageError(name, problem, f"end its name in {_or(FORMATS[str(format)].suffixes)}")
    return found


def complete_format(path: str, format: str | None = None) -> str:
    """Return the key of a format that keeps whole rows: ``format``, or what ``path`` asks for by its suffix.

    Raises:
        UsageError: It asks for none, for one that does not, or for another one than ``format``.
    """
    found = choose_format(path, format) if format else BY_SUFFIX.get(os.path.splitext(path)[1].lower())
    if found is None or not FORMATS[found].complete:
        wanted = [suffix for suffix, name in BY_SUFFIX.items() if FORMATS[name].complete]
        raise UsageError(printable(path), "its format is unclear", f"end its name in {_or(wanted)}")
    return found


def check_wide(format: str, wide: bool) -> None:
    """Refuse predictions side by side in a format that has lists.

    Raises:
        UsageError: It has.
    """
    if wide and not FORMATS[format].flat:
        flat = _or(name.upper() for name, kind in FORMATS.items() if kind.flat)
        raise UsageError("wide", f"is for {flat}; {format} has one row for each clip", "leave it out")


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
