"""Folders, globs, lists and manifests → clips to score, one after the other. Never holds the whole list.

A *manifest* is a CSV, TSV or Parquet file with a column of paths; its other columns are carried through to the
results. A *list* has one path a line.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

from vidcls.config import nearest
from vidcls.errors import InputError, OutputError, UsageError
from vidcls.output.parquet import need_pyarrow
from vidcls.output.row import is_reserved
from vidcls.video import object_store
from vidcls.video.sources import is_video_name
from vidcls.video.urls import is_url

PATH_COLUMNS = ("path", "video", "video_path", "file", "filename", "filepath", "file_path", "uri", "url")
MANIFESTS = (".csv", ".tsv", ".parquet")
LISTS = (".txt", ".lst", ".list")
MAX_LINE = 1 << 20  # bytes of one path in a list, far more than any system takes
MANIFEST_BATCH = 4096  # rows of a Parquet manifest that are held at once


@dataclass(frozen=True)
class Item:
    """One clip to score.

    Attributes:
        path: What it is called in the results.
        columns: What else its manifest says of it.
        root: Folder from which a relative ``path`` counts; empty for the current one.
        error: Why there is nothing to read.
    """

    path: str
    columns: dict[str, Any] = field(default_factory=dict)
    root: str = ""
    error: InputError | None = None

    @property
    def location(self) -> str:
        """Where the clip is: a path of this machine, or an address."""
        if self.root and "://" not in self.path:
            return os.path.join(self.root, self.path)
        return self.path


@dataclass(frozen=True)
class Inputs:
    """What a person named to be scored; iterating lists it anew each time.

    Args:
        sources: Folders, globs, files, addresses, lists, manifests, ``-`` for a list on standard input.
        path_column: Name of a manifest's column of paths; by default the first of ``PATH_COLUMNS`` that it has.
        root: Folder from which relative paths in lists and manifests count; by default the current one.
    """

    sources: tuple[str, ...]
    path_column: str | None = None
    root: str = ""

    @property
    def repeatable(self) -> bool:
        """Whether they can be listed more than once; standard input cannot."""
        return "-" not in self.sources

    def __iter__(self) -> Iterator[Item]:
        for source in self.sources:
            yield from self._list(source)

    def at_least(self, most: int) -> int | None:
        """Count the clips up to ``most``; None where that would use them up."""
        return sum(1 for _ in islice(self, most)) if self.repeatable else None

    def columns(self) -> dict[str, str]:
        """Return the carried columns of all manifests and their types: ``int``, ``float``, ``bool`` or ``str``.

        Raises:
            UsageError: A manifest has no column of paths, or two manifests have one column in different types.
        """
        found: dict[str, str] = {}
        for source in self.sources:
            if manifest_kind(source) and _exists(source):
                for name, kind in self._manifest_columns(source).items():
                    if found.setdefault(name, kind) != kind:
                        raise UsageError(
                            source,
                            f"its column {name!r} is of type {kind}, another manifest's of type {found[name]}",
                            "score them into two files",
                        )
        return found

    def _list(self, source: str) -> Iterator[Item]:
        if source == "-":
            yield from self._lines(sys.stdin.buffer)
        elif object_store.is_remote(source):
            yield from self._list_remote(source)
        elif is_url(source):
            yield Item(source)
        elif os.path.isdir(source):
            yield from _folder(source)
        elif os.path.lexists(source):
            yield from self._file(source)
        elif source.startswith("@"):
            yield from self._list_file(source[1:])
        elif glob.has_magic(source):
            yield from _glob(source)
        else:
            yield Item(source)

    def _list_remote(self, source: str) -> Iterator[Item]:
        if manifest_kind(source) or source.lower().endswith(LISTS):
            yield from self._file(source)
            return
        found = False
        for name in object_store.find(source):
            found = True
            yield Item(name)
        if not found:
            problem = "no videos in this folder, and no such file"
            yield _failed(source, problem, "check the address", "not_found")

    def _file(self, source: str) -> Iterator[Item]:
        if manifest_kind(source):
            yield from self._manifest(source)
        elif source.lower().endswith(LISTS):
            yield from self._list_file(source)
        else:
            yield Item(source)

    def _list_file(self, source: str) -> Iterator[Item]:
        try:
            stream = object_store.open_binary(source)
        except OSError as error:
            raise _unreadable(source, "list", error) from None
        with stream:
            yield from self._lines(stream)

    def _lines(self, stream: IO[bytes]) -> Iterator[Item]:
        for number, line in enumerate(_entries(stream), 1):
            if not line.strip() or line.startswith(b"#"):
                continue
            if len(line) > MAX_LINE:
                yield _failed(
                    f"line {number}", "is longer than a path can be", "give one path a line", "input"
                )
                continue
            yield Item(os.fsdecode(line), root=self.root)

    def _manifest(self, source: str) -> Iterator[Item]:
        column, _ = self._path_column(source)
        rows = _parquet_rows(source) if manifest_kind(source) == ".parquet" else _csv_rows(source)
        for number, row in enumerate(rows, 1):
            path = row.pop(column)
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if not isinstance(path, str) or not path:
                yield _failed(f"{source}, row {number}", "names no path", "fill or remove the row", "input")
            else:
                yield Item(path, {carried(name): value for name, value in row.items()}, self.root)

    def _manifest_columns(self, source: str) -> dict[str, str]:
        column, kinds = self._path_column(source)
        return {carried(name): kind for name, kind in kinds.items() if name != column}

    def _path_column(self, source: str) -> tuple[str, dict[str, str]]:
        kinds = _parquet_kinds(source) if manifest_kind(source) == ".parquet" else _csv_kinds(source)
        if self.path_column is not None:
            if self.path_column in kinds:
                return self.path_column, kinds
            hint = nearest(self.path_column, kinds)
            problem = f"has no column {self.path_column!r}{hint}"
            raise UsageError(source, problem, f"choose from {', '.join(kinds)}")
        for name in PATH_COLUMNS:
            for column in kinds:
                if column.lower() == name:
                    return column, kinds
        raise UsageError(
            source, f"none of its columns ({', '.join(kinds)}) is a path", "name it: --path-column"
        )


def manifest_kind(source: str) -> str | None:
    """Return the suffix of a manifest in lower case, or None for anything else."""
    suffix = os.path.splitext(source)[1].lower()
    return suffix if suffix in MANIFESTS else None


def carried(name: str) -> str:
    """Return the name under which a manifest's column stands in the results, which have some names of their own."""
    return f"input_{name}" if is_reserved(name) else name


def _exists(source: str) -> bool:
    return object_store.is_remote(source) or os.path.isfile(source)


def _folder(folder: str) -> Iterator[Item]:
    found = False
    for item in _walk(folder):
        found = True
        yield item
    if not found:
        problem = "no videos in this folder or below it"
        yield _failed(folder, problem, "list files with other suffixes in a file: @list.txt", "empty_folder")


def _walk(folder: str) -> Iterator[Item]:
    """Yield the videos below ``folder`` as the system gives them: a folder of millions is never held as a whole."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif is_video_name(entry.name) and not entry.is_dir():
                        yield Item(entry.path)
        except OSError as error:
            # An error of its own row: what lies in there would be missing silently.
            yield _failed(
                place, f"cannot be listed ({error.strerror})", "check its permissions", "permission"
            )


def _glob(pattern: str) -> Iterator[Item]:
    found = False
    for path in glob.iglob(pattern, recursive=True):
        found = True
        if os.path.isdir(path):
            if not pattern.endswith("**"):  # which lists what is in there by itself
                yield from _walk(path)
        else:
            yield Item(path)
    if not found:
        hint = "check it, and quote it from the shell"
        yield _failed(pattern, "no file matches this pattern", hint, "not_found")


def _entries(stream: IO[bytes]) -> Iterator[bytes]:
    """Split a stream at its line ends, or at NUL bytes if its first block has any (``find -print0``)."""
    rest = b""
    separator = None
    while block := stream.read(1 << 16):
        if separator is None:
            separator = b"\0" if b"\0" in block else b"\n"
        *whole, rest = (rest + block).split(separator)
        for entry in whole:
            yield entry.removesuffix(b"\r") if separator == b"\n" else entry
        if len(rest) > 2 * MAX_LINE:
            rest = rest[: MAX_LINE + 1]  # too long for a path already: its end may be lost, not our memory
    if rest:
        yield rest.removesuffix(b"\r")


def _csv_reader(source: str) -> tuple[IO[str], csv.DictReader[str]]:
    try:
        raw = object_store.open_binary(source)
    except OSError as error:
        raise _unreadable(source, "manifest", error) from None
    text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
    delimiter = "\t" if manifest_kind(source) == ".tsv" else ","
    return text, csv.DictReader(text, delimiter=delimiter, restkey="", restval="", strict=False)


def _csv_kinds(source: str) -> dict[str, str]:
    text, reader = _csv_reader(source)
    with text:
        names = _header(source, reader)
    if len(set(names)) < len(names):
        raise UsageError(source, "two of its columns have the same name", "rename one")
    return dict.fromkeys((name for name in names if name), "str")


def _header(source: str, reader: csv.DictReader[str]) -> list[str]:
    try:
        names = reader.fieldnames
    except csv.Error as error:
        raise UsageError(source, f"is no CSV file ({error})", "check its first line") from None
    if not names:
        raise UsageError(source, "is empty", "give a manifest with a line of column names")
    return list(names)


def _csv_rows(source: str) -> Iterator[dict[str, Any]]:
    text, reader = _csv_reader(source)
    with text:
        try:
            for row in reader:
                row.pop("", None)
                yield dict(row)
        except csv.Error as error:
            raise UsageError(source, f"line {reader.line_num} is no CSV ({error})", "mend it") from None


@contextlib.contextmanager
def _parquet(source: str) -> Iterator[Any]:
    need_pyarrow(source)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stream = object_store.open_binary(source)
    except OSError as error:
        raise _unreadable(source, "manifest", error) from None
    with stream:
        try:
            yield pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise UsageError(source, f"is no Parquet file ({error})", "check how it was written") from None


def _parquet_kinds(source: str) -> dict[str, str]:
    import pyarrow.types as types

    def kind(column: Any) -> str:
        if types.is_integer(column.type):
            return "int"
        if types.is_floating(column.type):
            return "float"
        return "bool" if types.is_boolean(column.type) else "str"

    with _parquet(source) as file:
        return {column.name: kind(column) for column in file.schema_arrow}


def _parquet_rows(source: str) -> Iterator[dict[str, Any]]:
    with _parquet(source) as file:
        for batch in file.iter_batches(batch_size=MANIFEST_BATCH):
            for row in batch.to_pylist():
                yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Return a value that JSON has a word for; dates and the like as text."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _unreadable(source: str, what: str, error: OSError) -> UsageError | OutputError:
    return UsageError(source, f"the {what} cannot be read ({error.strerror or error})", "check the path")


def _failed(name: str, problem: str, remedy: str, kind: str) -> Item:
    return Item(name, error=InputError(name, problem, remedy, kind=kind))


def parse_shard(text: str | None) -> tuple[int, int]:
    """Return which part of how many is to be scored, from ``I/N`` with I from 1 to N.

    Raises:
        UsageError: It is something else.
    """
    if text is None:
        return 1, 1
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UsageError("--shard", f"{text!r} is not I/N", "count from 1: 1/8 … 8/8 (Slurm: --array=1-8)")


def sources_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """Check what a person named; standard input can be read only once.

    Raises:
        UsageError: It is named twice.
    """
    if list(arguments).count("-") > 1:
        raise UsageError("-", "standard input is named twice", "name it once")
    return tuple(arguments)
