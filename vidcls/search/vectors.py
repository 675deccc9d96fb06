"""Vectors that `vidcls embed` wrote, read block by block, so that a file may be larger than memory."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import UsageError, printable
from vidcls.output.embedding import EMBEDDING_FORMATS, KIND
from vidcls.output.parquet import METADATA, need_pyarrow

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
BLOCK_BYTES = 16 << 20  # of vectors that are read at once
MAX_DIMENSION = 1 << 20
SAME = ("model", "architecture", "weights_sha256", "layer", "dimension")  # what makes vectors comparable
TEXTS = ("kind", "model", "layer")  # settings that are text
PLACE = {"path": "U", "view": "iu", "begin": "f", "end": "f"}  # columns → kinds of NumPy types


@dataclass(frozen=True)
class Place:
    """Which part of which clip a vector is of.

    Attributes:
        path: The clip.
        view: Its view; None for the whole clip.
        begin: When it begins in the file, in seconds; None where that is not known.
        end: When it ends.
    """

    path: str
    view: int | None = None
    begin: float | None = None
    end: float | None = None


class VectorFile:
    """One file of vectors.

    Args:
        path: A Parquet or npz file.

    Raises:
        UsageError: It is not one that `vidcls embed` wrote.

    Attributes:
        settings: What its vectors depend on.
        dimension: Length of a vector.
        rows: Rows that it has, those of clips without a vector included.
    """

    def __init__(self, path: str) -> None:
        self.path, self.name = Path(path), printable(str(path))
        if not self.path.is_file():
            raise UsageError(self.name, "no such file", "make it with `vidcls embed CLIPS -o FILE`")
        with self._sound():
            settings, self.rows = self._describe()
            if not isinstance(settings, dict) or not all(isinstance(settings.get(key), str) for key in TEXTS):
                raise ValueError("it has other rows")
            if settings["kind"] != KIND or not 0 < int(settings["dimension"]) <= MAX_DIMENSION:
                raise ValueError("it has other rows")
            self.settings: dict[str, Any] = settings
            self.dimension = int(settings["dimension"])

    @contextlib.contextmanager
    def _sound(self) -> Iterator[None]:
        """Turn what a damaged or foreign file brings about into one error."""
        try:
            yield
        except UsageError:
            raise
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, MemoryError) as error:
            problem = f"is not a file of vectors that vidcls embed wrote ({str(error)[:160] or 'damaged'})"
            raise UsageError(self.name, problem, "embed the clips again") from None

    @property
    def _is_npz(self) -> bool:
        return self.path.suffix.lower() in EMBEDDING_FORMATS["npz"].suffixes

    def _describe(self) -> tuple[dict[str, Any], int]:
        if self._is_npz:
            if not zipfile.is_zipfile(self.path):
                raise ValueError("it is not an npz file")
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return json.loads(str(archive["settings"])), len(archive["path"])
        need_pyarrow(self.name)
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            _check_columns(file.schema_arrow)
            return json.loads((file.schema_arrow.metadata or {}).get(METADATA, b"{}")), file.metadata.num_rows

    def blocks(self) -> Iterator[tuple[Indices, Floats]]:
        """Yield the numbers of rows, and their vectors at length one, (n, d)."""
        size = max(1, BLOCK_BYTES // (4 * self.dimension))
        with self._sound():
            for rows, vectors in self._npz_blocks(size) if self._is_npz else self._parquet_blocks(size):
                yield rows, unit(vectors)

    def _npz_blocks(self, size: int) -> Iterator[tuple[Indices, Floats]]:
        with zipfile.ZipFile(self.path) as archive, archive.open("vectors.npy") as file:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            if kind != np.float32 or shape != (self.rows, self.dimension):
                raise ValueError("its vectors have another shape than it says")
            for start in range(0, shape[0], size):
                count = min(size, shape[0] - start)
                data = file.read(4 * count * self.dimension)
                vectors = np.frombuffer(data, np.float32).reshape(count, self.dimension)
                yield np.arange(start, start + count), vectors

    def _parquet_blocks(self, size: int) -> Iterator[tuple[Indices, Floats]]:
        import pyarrow.parquet as pq

        start = 0
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            # One row group after the other: asked for all of them, pyarrow keeps what it has read.
            groups = (
                batch
                for group in range(file.num_row_groups)
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=["vector"])
            )
            for batch in groups:
                column = batch.column(0)
                lists, numbers = column.is_valid(), column.drop_null().flatten()
                whole = np.asarray(numbers.is_valid()).reshape(-1, self.dimension).all(1)
                flat = numbers.to_numpy(zero_copy_only=False).reshape(-1, self.dimension)[whole]
                yield start + np.flatnonzero(lists)[whole], flat.astype(np.float32, copy=False)
                start += len(column)

    def places(self, wanted: Indices | None = None) -> Iterator[tuple[int, Place]]:
        """Yield row numbers, in their order, and what they are of; with ``wanted`` (sorted) those only."""
        with self._sound():
            start = 0
            for columns in self._place_columns():
                stop = start + len(columns["path"])
                inside: Any = range(start, stop)
                if wanted is not None:
                    inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, stop)].tolist()
                if None in columns["path"]:
                    raise ValueError("a row has no path")
                for row in inside:
                    yield row, Place(**{name: columns[name][row - start] for name in PLACE})
                start = stop

    def _place_columns(self) -> Iterator[dict[str, Any]]:
        if self._is_npz:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in PLACE}
            for name, kinds in PLACE.items():
                if arrays[name].dtype.kind not in kinds or arrays[name].shape != (self.rows,):
                    raise ValueError(f"{name} is of another type")
            found = {name: array.tolist() for name, array in arrays.items()}
            yield {**found, "view": [None if view < 0 else view for view in found["view"]]}
            return
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=65536, columns=list(PLACE)):
                yield batch.to_pydict()

    def find(self, path: str) -> Floats | None:
        """The mean of the vectors of a clip, at length one; None where the file has none."""
        rows = np.array([row for row, place in self.places() if place.path == path], np.int64)
        if not len(rows):
            return None
        found = [vectors[np.isin(numbers, rows)] for numbers, vectors in self.blocks()]
        own = np.concatenate(found)
        return unit(own.mean(0, keepdims=True))[0] if len(own) else None


def _check_columns(schema: Any) -> None:
    """Refuse a Parquet file whose columns are not those of `vidcls embed`."""
    import pyarrow as pa

    types = pa.types
    for name, kind in PLACE.items():
        tests = {"U": (types.is_string, types.is_large_string), "f": (types.is_floating,)}
        wanted = tests.get(kind, (types.is_integer,))
        if name not in schema.names or not any(test(schema.field(name).type) for test in wanted):
            raise ValueError("it has other rows")
    vectors = schema.field("vector").type if "vector" in schema.names else pa.null()
    if (
        not (types.is_list(vectors) or types.is_fixed_size_list(vectors))
        or vectors.value_type != pa.float32()
    ):
        raise ValueError("it has other rows")


def unit(vectors: Floats) -> Floats:
    """Bring vectors (n, d) to length one; one that has no direction becomes zero, which is like nothing."""
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    sound = np.isfinite(norms) & (norms > 0)
    return np.where(sound, vectors / np.where(sound, norms, 1), 0).astype(np.float32, copy=False)


def open_vectors(paths: Sequence[str]) -> list[VectorFile]:
    """Open files whose vectors can be compared.

    Raises:
        UsageError: One is not a file of vectors, or they are of different models, layers or lengths.
    """
    files = [VectorFile(path) for path in paths]
    for other in files[1:]:
        check_same(files[0].settings, other.settings, other.name, files[0].name)
    return files


def check_same(first: dict[str, Any], second: dict[str, Any], name: str, of: str) -> None:
    """Refuse to compare vectors that have nothing to do with one another.

    Args:
        first: Settings of one side.
        second: Settings of the other.
        name: The second side, for people.
        of: The first side.

    Raises:
        UsageError: They are of different models, layers or lengths; it says which.
    """
    wrong = [key for key in SAME if first.get(key) != second.get(key)]
    if wrong:
        shown = ", ".join(f"{key} {_short(second.get(key))} and {_short(first.get(key))}" for key in wrong)
        problem = f"has vectors that cannot be compared with those of {of} ({shown})"
        raise UsageError(name, problem, "embed both with the same model and layer")


def _short(value: Any) -> str:
    text = printable(str(value))
    return f"{text[:12]}…" if len(text) > 24 else text
