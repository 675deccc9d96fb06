"""Formats of timelines. To add one: a function here or in a module beside, and its line in `FORMATS`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from vidcls.errors import UsageError, nearest, printable
from vidcls.output.csv import csv_bytes
from vidcls.output.parquet import need_pyarrow
from vidcls.output.sinks import open_error, write_error
from vidcls.output.text import escape_json, finite, valid_unicode
from vidcls.paths import replacing
from vidcls.timeline.subtitles import edl, srt, vtt

if TYPE_CHECKING:
    from vidcls.timeline.result import Timeline

    Timelines = Sequence[Timeline]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        make: Timelines, and the folder in which the file will lie → the file's bytes.
        single: A file holds one video.
        text: It may be shown on a terminal.
    """

    make: Callable[[Timelines, Path], bytes]
    single: bool = False
    text: bool = True


def to_json(timelines: Timelines) -> bytes:
    """Return a list of objects, one for each video."""
    plain = finite([timeline.to_dict() for timeline in timelines])
    return (escape_json(json.dumps(plain, ensure_ascii=False, indent=1, allow_nan=False)) + "\n").encode()


def to_csv(timelines: Timelines) -> bytes:
    """Return one line for each segment; a video that failed has one with its error."""
    rows = list(segment_rows(timelines))
    return csv_bytes([list(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)])


def to_parquet(timelines: Timelines) -> bytes:
    """Return a Parquet file with one row for each segment, zstd; the predictions are a list of structs."""
    need_pyarrow("Parquet")
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    ranked = pa.struct(
        [("rank", pa.int32()), ("index", pa.int32()), ("label", pa.string()), ("score", pa.float32())]
    )
    types = {"float": pa.float64(), "str": pa.string(), "int": pa.int32()}
    fields = [(name, types[kind]) for name, kind in COLUMNS.items()]
    schema = pa.schema([*fields, ("predictions", pa.list_(ranked))])
    rows = [valid_unicode(row) for row in segment_rows(timelines)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


COLUMNS = {
    "path": "str", "start": "float", "end": "float", "label": "str", "score": "float", "index": "int",
    "model": "str", "duration": "float", "fps": "float", "error": "str", "error_kind": "str",
}  # fmt: skip


def segment_rows(timelines: Timelines) -> Iterable[dict[str, Any]]:
    """Yield a row for each segment, or one with the error."""
    for timeline in timelines:
        plain = timeline.to_dict()
        shared = {name: plain.get(name) for name in COLUMNS}
        segments = plain["segments"] or ([{}] if timeline.error is not None else [])
        for segment in segments:
            predictions = segment.get("predictions", [])
            index = predictions[0]["index"] if predictions else None
            yield {**shared, **segment, "index": index, "predictions": predictions}


def to_html(timelines: Timelines, folder: Path) -> bytes:
    """Return the page of `vidcls report`; a video that lies in the page's folder plays in it."""
    page = resolve_name("vidcls.report.page:page_of_timelines")  # a room above this one
    name = timelines[0].path if len(timelines) == 1 else "timelines"
    text: str = page([timeline.to_dict() for timeline in timelines], name, folder)
    return text.encode("utf-8", "backslashreplace")


def _one(make: Callable[[Timeline], str]) -> Format:
    return Format(lambda timelines, _: make(timelines[0]).encode("utf-8", "backslashreplace"), single=True)


FORMATS: dict[str, Format] = {
    "json": Format(lambda timelines, _: to_json(timelines)),
    "csv": Format(lambda timelines, _: to_csv(timelines)),
    "srt": _one(srt),
    "vtt": _one(vtt),
    "edl": _one(edl),
    "parquet": Format(lambda timelines, _: to_parquet(timelines), text=False),
    "html": Format(to_html),
}


def choose(path: str | os.PathLike[str], format: str | None = None) -> str:
    """Return the key of `FORMATS` for a file, by its suffix.

    Raises:
        UsageError: No format has this suffix, or another one was asked for.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    name = printable(os.fspath(path))
    if suffix not in FORMATS:
        wanted = ", ".join(f".{key}" for key in FORMATS)
        problem = f"its suffix is not that of a timeline{nearest(suffix, FORMATS) if suffix else ''}"
        raise UsageError(name, problem, f"end its name in one of {wanted}")
    if format not in (None, suffix):
        raise UsageError(
            name, f"its suffix is that of {suffix}, not of {format}", f"end its name in .{format}"
        )
    return suffix


def check_installed(format: str) -> None:
    """Refuse a format whose package is missing, before anything is done."""
    if format == "parquet":
        need_pyarrow("Parquet")


def check_single(format: str, name: str, count: int | None) -> None:
    """Refuse several videos in a format that holds one, before anything is done; None is a number not known."""
    if FORMATS[format].single and count is not None and count > 1:
        problem = f"{format} holds one video, but several were given"
        raise UsageError(name, problem, "name a folder, or a .json file")


def encode(timelines: Timelines, format: str, name: str, folder: Path = Path()) -> bytes:
    """Return timelines in a format.

    Args:
        timelines: Of all videos.
        format: A key of `FORMATS`.
        name: Of the output, for errors.
        folder: In which the output will lie.

    Raises:
        UsageError: The format holds one video and there are others.
        InputError: The one video failed.
    """
    chosen = FORMATS[format]
    if chosen.single and len(timelines) != 1:
        problem = f"{format} holds one video, but there are {len(timelines)}"
        raise UsageError(name, problem, "name a folder, or a .json file")
    if chosen.single and timelines[0].error is not None:
        raise timelines[0].error
    return chosen.make(timelines, folder.absolute())


def write(path: Path, timelines: Timelines) -> None:
    """Write timelines to a file, whole or not at all.

    Raises:
        UsageError: No format has this suffix, or it does not hold so many videos.
        OutputError: The file cannot be written.
    """
    data = encode(timelines, choose(path), printable(str(path)), path.parent)
    if not path.parent.is_dir():
        raise open_error(path, FileNotFoundError())
    try:
        with replacing(path) as place:
            place.write_bytes(data)
    except OSError as error:
        raise write_error(printable(str(path)), error) from None
