"""Embeddings → Parquet with one vector a row, or npz; a clip's row holds all of its vectors until then."""

from __future__ import annotations

import base64
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from vidcls.errors import UsageError
from vidcls.output.base import Format, Values
from vidcls.output.parquet import Buffer, Parquet
from vidcls.output.row import Layout, column
from vidcls.output.text import valid_unicode

if TYPE_CHECKING:  # numpy is imported where vectors are touched: this module is part of every start
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

KIND = "embeddings"  # in the settings of what holds vectors
PER_VECTOR = ("view", "begin", "end", "vector")  # columns that differ within a clip
VECTOR_GROUP = 4096  # vectors that are held in memory at once
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class EmbeddingRow:
    """What is written of one vector; those of one clip follow one another.

    Attributes: see each field's ``about``.
    """

    path: str = column("the clip, as it was named")
    view: int | None = column("which view, from 0; null for a whole clip's vector", default=None)
    begin: float | None = column("time of the first frame that it is of, seconds", default=None)
    end: float | None = column("time of the last one, seconds", default=None)
    vector: Any = column("float32, all of one length; null where the clip failed", default=None)
    duration: float | None = column("length of the file, seconds", default=None)
    decoder: str | None = column("what decoded it: `decord` or `pyav`", default=None)
    warnings: list[str] = column("what the user should know about the clip", default_factory=list)
    error: str | None = column("why it could not be embedded", default=None)
    error_kind: str | None = column("the error in one word, to count by", default=None)
    seconds: float | None = column("time spent on the clip", default=None)


EMBEDDING_COLUMNS: dict[str, Field[Any]] = {column.name: column for column in fields(EmbeddingRow)}


def clip_row(path: str, vectors: Floats | None, parts: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the row of one clip, JSON's values only: that of its vectors, which stand packed in it as ``vectors``.

    Args:
        path: The clip.
        vectors: (n, d); None where there are none.
        parts: ``view``, ``begin`` and ``end``, a list each.
        **more: Other columns.
    """
    row = asdict(EmbeddingRow(path=path, **more))
    return {**row, **parts, "vector": None if vectors is None else pack(vectors)}


def pack(vectors: Floats) -> dict[str, Any]:
    """Write vectors (n, d) as JSON can hold them in little room; see `unpack`."""
    return {"shape": list(vectors.shape), "data": base64.b64encode(vectors.astype("<f4").tobytes()).decode()}


def unpack(packed: Mapping[str, Any] | None) -> Floats:
    """Read vectors (n, d) that `pack` wrote; none where there are none."""
    import numpy as np

    if packed is None:
        return np.empty((0, 0), np.float32)
    try:
        found = np.frombuffer(base64.b64decode(packed["data"], validate=True), "<f4")
        return found.astype(np.float32, copy=False).reshape(packed["shape"])
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError("vectors", f"are damaged ({error})", "embed the clips again") from None


class EmbeddingLayout(Layout):
    """The columns of a file of vectors."""

    columns = EMBEDDING_COLUMNS

    @classmethod
    def of(cls, settings: Mapping[str, Any], wide: bool = False) -> Layout:
        """Return the layout of vectors that were made under such settings.

        Raises:
            UsageError: A manifest's column is called like one of theirs.
        """
        clash = sorted({*settings["columns"]} & {*EMBEDDING_COLUMNS})
        if clash:
            problem = f"has columns of vidcls's own names ({', '.join(clash)})"
            raise UsageError("manifest", problem, "rename them")
        return cls(scored=True, carried=settings["columns"], settings=settings)

    def names(self) -> list[str]:
        """Return the names of a row's own columns, in their order."""
        return list(EMBEDDING_COLUMNS)

    def misfits(self, row: Values) -> dict[str, str]:
        """See `Layout.misfits`; what is a list of several vectors' was made here."""
        return super().misfits({**row, **dict.fromkeys(PER_VECTOR)})


class EmbeddingParquet(Parquet):
    """One row a vector, in a column of lists of fixed size; what it depends on is in the file's metadata."""

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__(layout)
        self._rows = 0

    def begin(self) -> bytes:
        """Return the file's first bytes."""
        import pyarrow.parquet as pq

        schema = vector_schema(self.layout)
        flat = [name for name in schema.names if name != "vector"]
        self._writer = pq.ParquetWriter(self._buffer, schema, compression="zstd", use_dictionary=flat)
        return self._buffer.drain()

    def row(self, row: Values) -> bytes:
        """Return nothing, or a whole row group."""
        vectors = unpack(row.get("vector"))
        self._group.append((valid_unicode({**row, "vector": None}), vectors))
        self._rows += max(1, len(vectors))
        if self._rows >= VECTOR_GROUP:
            self._write_group()
        return self._buffer.drain()

    def _write_group(self) -> None:
        import numpy as np
        import pyarrow as pa

        schema = self._writer.schema
        absent, flat, rows = [], [], []
        for row, vectors in self._group:
            count = max(1, len(vectors))
            absent += [not len(vectors)] * count
            flat.append(vectors if len(vectors) else np.zeros((1, _dimension(self.layout)), np.float32))
            for number in range(count):
                own = {name: _item(row[name], number) for name in PER_VECTOR if name != "vector"}
                rows.append({**row, **own})
        table = pa.Table.from_pylist(rows, schema=schema.remove(schema.get_field_index("vector")))
        numbers = np.concatenate(flat)
        # Null numbers, not a null list: most versions of pyarrow cannot write or read null lists of fixed size.
        values = pa.array(numbers.ravel(), mask=np.repeat(np.array(absent), numbers.shape[1]))
        column = pa.FixedSizeListArray.from_arrays(values, type=schema.field("vector").type)
        place = schema.get_field_index("vector")
        self._writer.write_table(table.add_column(place, schema.field("vector"), column))
        self._group.clear()
        self._rows = 0

    @classmethod
    def read(
        cls, path: str, length: int | None = None
    ) -> tuple[dict[str, Any] | None, Iterator[dict[str, Any]]]:
        """Return settings and the rows of clips; see `Format`."""
        settings, rows = super().read(path, length)
        return settings, map(_joined, (list(group) for _, group in groupby(rows, lambda row: row["path"])))


def vector_schema(layout: Layout) -> Any:
    """Return the columns and their types, as pyarrow has them."""
    import pyarrow as pa

    from vidcls.output.parquet import schema

    settings = dict(layout.settings or {})
    made = schema(layout, {"Any": pa.list_(pa.float32(), _dimension(layout))})
    facts = {name: str(settings[name]) for name in ("model", "layer", "per", "dimension") if name in settings}
    return made.with_metadata({**made.metadata, **facts})


def _dimension(layout: Layout) -> int:
    return int((layout.settings or {}).get("dimension", 0))


def _item(values: Any, number: int) -> Any:
    return values[number] if isinstance(values, list) else values


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Make one clip's row of those of its vectors."""
    import numpy as np

    first = rows[0]
    if first["error"] is not None:
        return {**first, "vector": None}
    parts = {name: [row[name] for row in rows] for name in PER_VECTOR if name != "vector"}
    return {**first, **parts, "vector": pack(np.array([row["vector"] for row in rows], np.float32))}


class EmbeddingNpz(Format):
    """NumPy's archive: ``vectors`` (n, d), and for each its ``path``, ``view``, ``begin`` and ``end``.

    Clips that failed are in ``failed`` and ``errors``; ``settings`` is JSON.
    """

    suffixes = (".npz",)
    text: ClassVar[bool] = False

    def stream(self, rows: Iterable[Values]) -> Iterator[bytes]:
        """Yield a whole file; the vectors wait on the disk until their number is known."""
        kept: dict[str, list[Any]] = {name: [] for name in "path view begin end failed errors".split()}
        with tempfile.TemporaryFile() as waiting:
            for row in rows:
                self._take(row, kept, waiting)
            yield from self._archive(kept, waiting)

    def _take(self, row: Values, kept: dict[str, list[Any]], waiting: BinaryIO) -> None:
        vectors = unpack(row.get("vector"))
        if not len(vectors):
            kept["failed"].append(valid_unicode(row["path"]))
            kept["errors"].append(valid_unicode(row["error"] or ""))
            return
        waiting.write(vectors.tobytes())
        kept["path"] += [valid_unicode(row["path"])] * len(vectors)
        kept["view"] += [-1 if view is None else view for view in row["view"]]
        kept["begin"] += row["begin"]
        kept["end"] += row["end"]

    def _archive(self, kept: dict[str, list[Any]], waiting: BinaryIO) -> Iterator[bytes]:
        import numpy as np

        buffer = Buffer()
        types = {"view": np.int32, "begin": np.float64, "end": np.float64}
        arrays = {name: np.array(values, types.get(name, str)) for name, values in kept.items()}
        arrays["settings"] = np.array(json.dumps(dict(self.layout.settings or {})))
        with zipfile.ZipFile(buffer, "w") as archive:
            shape = (len(kept["path"]), _dimension(self.layout))
            with archive.open("vectors.npy", "w", force_zip64=True) as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                waiting.seek(0)
                while block := waiting.read(BLOCK):
                    file.write(block)
                    yield buffer.drain()
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
                yield buffer.drain()
        yield buffer.drain()


EMBEDDING_FORMATS: dict[str, type[Format]] = {"parquet": EmbeddingParquet, "npz": EmbeddingNpz}
