"""All output formats, and which one a file's name asks for.

To add one: a subclass of `vidcls.output.base.Format` in a file of its own here, and one line in `FORMATS`; `predict`,
`score` and `merge` then have it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcls.errors import UsageError, counted, nearest, printable
from vidcls.output.base import Format
from vidcls.output.csv import Csv, Tsv
from vidcls.output.embedding import EMBEDDING_FORMATS, KIND, EmbeddingLayout
from vidcls.output.jsonl import Json, JsonLines
from vidcls.output.parquet import Parquet
from vidcls.output.row import Layout
from vidcls.output.table import Table

FORMATS: dict[str, type[Format]] = {
    "table": Table,
    "json": Json,
    "jsonl": JsonLines,
    "csv": Csv,
    "tsv": Tsv,
    "parquet": Parquet,
}


@dataclass(frozen=True)
class RowKind:
    """One kind of results: the formats that have a place for them, and what lays their columns out.

    Attributes:
        formats: Their name → the format.
        layout: Settings, and whether predictions stand side by side → layout.
        done: What happened to a clip that has one.
        content: Numbers of rows and of those without an error → what an output has, in words.
    """

    formats: Mapping[str, type[Format]]
    layout: Callable[[Mapping[str, Any], bool], Layout]
    done: str
    content: Callable[[int, int], str]


def _rows(rows: int, good: int) -> str:
    return counted(rows, "row")


def _vectors(rows: int, good: int) -> str:
    return f"the vectors of {counted(good, 'clip')}"


SCORED = RowKind(FORMATS, Layout.of, "scored", _rows)
EMBEDDED = RowKind(EMBEDDING_FORMATS, EmbeddingLayout.of, "embedded", _vectors)


def kind_of(settings: Mapping[str, Any]) -> RowKind:
    """Return the kind of rows that were made under such settings."""
    return EMBEDDED if settings.get("kind") == KIND else SCORED


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


def complete_format(path: str, format: str | None = None, kind: RowKind = SCORED) -> str:
    """Return the key of a format that keeps whole rows: ``format``, or what ``path`` asks for by its suffix.

    Raises:
        UsageError: It asks for none, for one that does not, or for another one than ``format``.
    """
    by_suffix = {suffix: name for name, one in kind.formats.items() for suffix in one.suffixes}
    found = choose_format(path, format) if format else by_suffix.get(os.path.splitext(path)[1].lower())
    if found is None or not kind.formats[found].complete:
        wanted = [suffix for suffix, name in by_suffix.items() if kind.formats[name].complete]
        raise UsageError(printable(path), "its format is unclear", f"end its name in {_or(wanted)}")
    return found


def check_wide(format: str, wide: bool) -> None:
    """Refuse predictions side by side in a format that has lists."""
    if wide and not FORMATS[format].flat:
        flat = _or(name.upper() for name, kind in FORMATS.items() if kind.flat)
        raise UsageError("wide", f"is for {flat}; {format} has one row for each clip", "leave it out")


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
