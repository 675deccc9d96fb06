"""Rows → a Parquet file with typed columns, in row groups, as pandas, DuckDB and Spark read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar

from vidcls.errors import UsageError, needing, printable
from vidcls.output.base import Format, Values
from vidcls.output.row import Layout, RankedLabel
from vidcls.output.text import valid_unicode

GROUP = 8192  # rows that are held in memory at once
METADATA = b"vidcls"  # key of the settings in the file's metadata


class Parquet(Format):
    """Row groups, compressed by zstd; scores are float32 as the model gives them."""

    suffixes = (".parquet",)
    keeps_types: ClassVar[bool] = True
    text: ClassVar[bool] = False

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__(layout)
        need_pyarrow("Parquet")
        self._buffer = Buffer()
        self._group: list[Any] = []
        self._writer: Any = None

    def begin(self) -> bytes:
        """Return the file's first bytes."""
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(self._buffer, schema(self.layout), compression="zstd")
        return self._buffer.drain()

    def row(self, row: Values) -> bytes:
        """Return nothing, or a whole row group."""
        self._group.append(valid_unicode(row))
        if len(self._group) >= GROUP:
            self._write_group()
        return self._buffer.drain()

    def end(self) -> bytes:
        """Return the last row group and the footer."""
        if self._group:
            self._write_group()
        self._writer.close()
        return self._buffer.drain()

    def _write_group(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._group, schema=self._writer.schema))
        self._group.clear()

    @classmethod
    def read(
        cls, path: str, length: int | None = None
    ) -> tuple[dict[str, Any] | None, Iterator[dict[str, Any]]]:
        """Return settings and rows; see ``Format``."""
        need_pyarrow(path)
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from None
        try:
            settings = json.loads((file.schema_arrow.metadata or {}).get(METADATA, b"null"))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, error) from None

        def rows() -> Iterator[dict[str, Any]]:
            try:
                with file:
                    for batch in file.iter_batches(batch_size=GROUP):
                        yield from batch.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from None

        return settings, rows()


def schema(layout: Layout, more: Mapping[str, Any] | None = None) -> Any:
    """Return the columns and their types, as pyarrow has them.

    Args:
        layout: Which columns there are.
        more: Types of fields that only this layout has, by their annotation.
    """
    import pyarrow as pa

    arrow = {"str": pa.string(), "int": pa.int32(), "float": pa.float64(), "list[str]": pa.list_(pa.string())}
    ranked = [(f.name, arrow[str(f.type)]) for f in fields(RankedLabel) if f.name != "score"]
    arrow["list[RankedLabel]"] = pa.list_(pa.struct([*ranked, ("score", pa.float32())]))
    arrow["list[float]"] = pa.list_(pa.float32())
    arrow.update(more or {})
    columns = [
        (name, arrow[str(layout.columns[name].type).removesuffix(" | None")]) for name in layout.names()
    ]
    carried = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
    columns += [(name, carried[kind]) for name, kind in layout.carried.items()]
    settings = layout.settings
    return pa.schema(
        columns, metadata=None if settings is None else {METADATA: json.dumps(settings).encode()}
    )


def need_pyarrow(subject: str) -> None:
    """Refuse Parquet on a machine without pyarrow."""
    remedy = "pip install 'vidcls[parquet]', or use CSV or JSON lines"
    with needing(subject, "Parquet needs pyarrow", remedy):
        import pyarrow.parquet  # noqa: F401


def _damaged(path: str, error: Exception) -> UsageError:
    return UsageError(printable(path), f"is not a valid Parquet file ({str(error)[:200]})", "score it again")


class Buffer:
    """What a library writes a file into: it keeps the bytes until they are taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._length += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def drain(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
