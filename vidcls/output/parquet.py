"""Rows → a Parquet file with typed columns, in row groups, as pandas, DuckDB and Spark read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vidcls.output.text import valid_unicode

GROUP = 8192  # rows that are held in memory at once
METADATA = b"vidcls"  # key of the settings in the file's metadata


def schema(settings: dict[str, Any]) -> Any:
    """Return the columns and their types; scores are float32 as the model gives them."""
    import pyarrow as pa

    prediction = pa.struct(
        [
            ("rank", pa.int32()),
            ("index", pa.int32()),
            ("label", pa.string()),
            ("score", pa.float32()),
        ]
    )
    fields = [
        ("path", pa.string()),
        ("model", pa.string()),
        ("weights", pa.string()),
        ("views", pa.int32()),
        ("crops", pa.int32()),
        ("num_frames", pa.int32()),
        ("stride", pa.int32()),
        ("fps", pa.float64()),
        ("duration", pa.float64()),
        ("decoder", pa.string()),
        ("predictions", pa.list_(prediction)),
        ("warnings", pa.list_(pa.string())),
        ("error", pa.string()),
        ("error_kind", pa.string()),
        ("seconds", pa.float64()),
    ]
    if settings["all_scores"]:
        fields.append(("scores", pa.list_(pa.float32())))
    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}
    fields += [(name, kinds[kind]) for name, kind in settings["columns"].items()]
    return pa.schema(fields, metadata={METADATA: json.dumps(settings).encode()})


def write_parquet(path: Path, rows: Iterable[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write all rows; memory holds ``GROUP`` of them at a time.

    Raises:
        OSError: It cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = schema(settings)
    with pq.ParquetWriter(path, wanted, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist([valid_unicode(row) for row in group], schema=wanted))


def read_parquet(path: str) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the settings and the rows of a file that ``write_parquet`` made."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    settings = json.loads((file.schema_arrow.metadata or {}).get(METADATA, b"{}"))

    def rows() -> Iterator[dict[str, Any]]:
        with file:
            for batch in file.iter_batches(batch_size=GROUP):
                yield from batch.to_pylist()

    return settings, rows()


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while group := list(islice(iterator, GROUP)):
        yield group
