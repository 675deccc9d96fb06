"""Manifests: CSV, TSV and Parquet files with a column of paths; their other columns go along into the results."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from vidcls.errors import InputError, UsageError, first_line, nearest, system_errors
from vidcls.output.parquet import need_pyarrow
from vidcls.output.row import is_reserved
from vidcls.video import object_store

SUFFIXES = (".csv", ".tsv", ".parquet")
PATH_COLUMNS = (
    "path", "video", "video_path", "file", "filename", "filepath", "file_path", "file_name", "uri", "url",
)  # fmt: skip
DELIMITERS = ",;\t|"
MAX_CELL = 16 << 20  # characters; a stray quote takes in all that follows it
BATCH = 4096  # rows of a Parquet manifest that are held at once

Entry = tuple[str, dict[str, Any]] | InputError
"""One row: its path and what else it says, or why there is none."""


def manifest_kind(source: str) -> str | None:
    """Return the suffix of a manifest in lower case, or None for anything else."""
    suffix = os.path.splitext(source)[1].lower()
    return suffix if suffix in SUFFIXES else None


def open_manifest(source: str, path_column: str | None = None) -> Manifest:
    """Read a manifest's header.

    Args:
        source: A path or an address with one of ``SUFFIXES``.
        path_column: Its column of paths; by default the first of ``PATH_COLUMNS`` that it has.

    Raises:
        UsageError: It cannot be read, or has no column of paths.
        DependencyError: pyarrow is not installed.
    """
    kind = ParquetManifest if manifest_kind(source) == ".parquet" else CsvManifest
    return kind(source, path_column)


class Manifest:
    """A table of clips; see ``open_manifest``.

    Attributes:
        columns: Columns that go along, under the names that they have in the results, and their types: ``int``,
            ``float``, ``bool`` or ``str``.
    """

    def __init__(self, source: str, path_column: str | None) -> None:
        self.source = source
        kinds = self._read_kinds(path_column)
        self._path = _path_column(source, kinds, path_column)
        others = {name: kind for name, kind in kinds.items() if name != self._path}
        self._names = free_names(others)
        self.columns = {self._names[name]: kind for name, kind in others.items()}

    def _read_kinds(self, path_column: str | None) -> dict[str, str]:
        raise NotImplementedError

    def entries(self) -> Iterator[Entry]:
        """Yield the rows; one that cannot be read is an error, and the others go on."""
        raise NotImplementedError

    def _entry(self, where: str, row: dict[str, Any]) -> Entry:
        path = row.pop(self._path, None)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or not path:
            return self._error(where, "has no path", "fill in or remove the row")
        return path, {self._names[name]: value for name, value in row.items() if name in self._names}

    def _error(self, where: str, problem: str, remedy: str) -> InputError:
        return InputError(f"{self.source}, {where}", problem, remedy, kind="input")


def free_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each column in the results, which have some of their own: ``seconds`` → ``input_seconds``."""
    found = {name: name for name in names if not is_reserved(name)}
    for name in names:
        if name not in found:
            free = f"input_{name}"
            while is_reserved(free) or free in found.values():
                free = f"input_{free}"
            found[name] = free
    return found


def _path_column(source: str, kinds: dict[str, str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted in kinds:
            return wanted
        problem = f"has no column {wanted!r}{nearest(wanted, kinds)}"
        raise UsageError(source, problem, f"choose from {', '.join(kinds)}")
    found = _first_path(kinds)
    if found is None:
        shown = ", ".join(kinds)[:200]
        raise UsageError(source, f"none of its columns ({shown}) is a path", "name it: path_column=NAME")
    return found


def _first_path(names: Iterable[str]) -> str | None:
    by_case = {name.lower(): name for name in reversed(list(names))}
    return next((by_case[name] for name in PATH_COLUMNS if name in by_case), None)


def _check_names(source: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise UsageError(source, "two of its columns have the same name", "rename one")
    for name in names:
        if not name.isprintable():
            raise UsageError(source, f"its column name {name!r} is not plain text", "save it as UTF-8")


class CsvManifest(Manifest):
    """A table of text; the delimiter is whichever of ``DELIMITERS`` gives its first line a column of paths."""

    def _read_kinds(self, path_column: str | None) -> dict[str, str]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
        self._header: Any
        self._delimiter = "\t" if manifest_kind(self.source) == ".tsv" else self._guess(path_column)
        with self._open() as text:
            self._header = next(self._rows(text), (1, []))[1]
        if isinstance(self._header, csv.Error):
            problem = f"is not a valid CSV file ({self._header})"
            raise UsageError(self.source, problem, "check its first line")
        if not self._header:
            raise UsageError(self.source, "is empty", "give a manifest with a line of column names")
        named = [name for name in self._header if name]
        _check_names(self.source, named)
        return dict.fromkeys(named, "str")

    def _guess(self, path_column: str | None) -> str:
        with self._open() as text:
            line = text.readline(MAX_CELL)
        for delimiter in DELIMITERS:
            try:
                names = next(csv.reader([line], delimiter=delimiter), [])
            except csv.Error:
                continue
            if path_column in names or (path_column is None and _first_path(names)):
                return delimiter
        return ","

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        with system_errors(UsageError, self.source, "the manifest cannot be read", "check the path"):
            raw = object_store.open_binary(self.source)
        with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield text

    def _rows(self, text: IO[str]) -> Iterator[tuple[int, Any]]:
        """Yield each row's first line and its cells, or what is wrong with it."""
        reader = csv.reader(text, delimiter=self._delimiter)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, error
            else:
                if cells:
                    yield line, cells

    def entries(self) -> Iterator[Entry]:
        """Yield the rows; missing cells are empty, surplus ones are left out."""
        with self._open() as text:
            rows = self._rows(text)
            next(rows, None)
            for line, cells in rows:
                if isinstance(cells, csv.Error):
                    yield self._error(f"line {line}", f"is not valid CSV ({cells})", "check its quotes")
                    continue
                cells += [""] * (len(self._header) - len(cells))
                yield self._entry(f"line {line}", dict(zip(self._header, cells, strict=False)))


class ParquetManifest(Manifest):
    """A typed table; dates, times and the like go along as text."""

    def _read_kinds(self, path_column: str | None) -> dict[str, str]:
        need_pyarrow(self.source)
        with self._open() as file:
            _check_names(self.source, file.schema_arrow.names)
            return {column.name: _kind(file, i, column.type) for i, column in enumerate(file.schema_arrow)}

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with system_errors(UsageError, self.source, "the manifest cannot be read", "check the path"):
            stream = object_store.open_binary(self.source)
        with stream:
            try:
                file = pq.ParquetFile(stream)
            except (pa.ArrowException, OSError) as error:
                problem = f"is not a valid Parquet file ({first_line(error)})"
                raise UsageError(self.source, problem, "check how it was written") from None
            yield file

    def entries(self) -> Iterator[Entry]:
        """Yield the rows; of a damaged row group those before the damage, and one error for the rest."""
        import pyarrow as pa

        wanted = [self._path, *self._names]
        texts = {name for name, new in self._names.items() if self.columns[new] == "str"}
        number = 0
        with self._open() as file:
            for group in range(file.num_row_groups):
                end = number + file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=wanted):
                        for row in _plain_rows(batch, texts):
                            number += 1
                            yield self._entry(f"row {number}", row)
                except (pa.ArrowException, OSError) as error:
                    rows = f"rows {number + 1} to {end}"
                    yield self._error(rows, f"cannot be read ({first_line(error)})", "write it again")
                number = end


def _kind(file: Any, index: int, type_: Any) -> str:
    import pyarrow.types as types

    if types.is_dictionary(type_):
        type_ = type_.value_type
    if types.is_uint64(type_) and not _fits_int64(file, index):
        return "str"
    if types.is_integer(type_):
        return "int"
    if types.is_floating(type_):
        return "float"
    return "bool" if types.is_boolean(type_) else "str"


def _fits_int64(file: Any, index: int) -> bool:
    """Whether the file says of all numbers of a column that they are less than 2⁶³."""
    meta = file.metadata
    if meta.num_columns != len(file.schema_arrow.names):  # nested columns: the numbers are others
        return False
    groups = (meta.row_group(i).column(index).statistics for i in range(meta.num_row_groups))
    return all(found is not None and found.has_min_max and found.max < 1 << 63 for found in groups)


def _plain_rows(batch: Any, texts: set[str]) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = []
    for name, column in zip(names, batch.columns, strict=True):
        try:
            values = column.to_pylist()
        except Exception:  # time zones and dates that Python has no word for; each by itself
            values = [_cell(value) for value in column]
        columns.append([_plain(value, name in texts) for value in values])
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception:  # whatever its library raises for it
        return str(getattr(scalar, "value", scalar))


def _plain(value: Any, as_text: bool) -> Any:
    """Return a value that JSON has a word for; dates and the like as text."""
    value = value.item() if hasattr(value, "item") else value  # float16 comes as NumPy's
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not as_text:
        return value
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
