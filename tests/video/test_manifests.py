"""Tables with a column of paths: odd values, odd names, damage."""

from __future__ import annotations

import csv
import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.score.test_run import rows_of, run
from vidcls.errors import InputError, UsageError
from vidcls.video.manifests import MAX_CELL, free_names, open_manifest
from vidcls.video.sources import expand


def csv_file(path: Path, text: str) -> str:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return str(path)


def entries(source: str) -> list[Any]:
    return [
        str(entry).removeprefix(f"{source}, ") if isinstance(entry, InputError) else entry
        for entry in open_manifest(source).entries()
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_by_the_header(tmp_path: Path, delimiter: str) -> None:
    rows = [["id", "File_Name", "note"], ["1", "a b.mp4", "x"], ["2", "c.mp4", ""]]
    source = csv_file(tmp_path / "m.csv", "".join(delimiter.join(row) + "\n" for row in rows))
    assert entries(source) == [("a b.mp4", {"id": "1", "note": "x"}), ("c.mp4", {"id": "2", "note": ""})]


def test_13_11_names_of_results_are_free_or_made_so(tmp_path: Path) -> None:
    source = csv_file(
        tmp_path / "m.csv", "path,seconds,label_1,input_seconds,label,score_9x\na.mp4,1,2,3,4,5\n"
    )
    assert entries(source) == [
        (
            "a.mp4",
            {
                "input_input_seconds": "1",
                "input_label_1": "2",
                "input_seconds": "3",
                "label": "4",
                "score_9x": "5",
            },
        )
    ]
    assert len(set(free_names(["seconds", "input_seconds", "input_input_seconds", "path"]).values())) == 4
    (tmp_path / "a.mp4").write_bytes(b"x")
    run(tmp_path / "out.csv", source, root=str(tmp_path))
    header = (tmp_path / "out.csv").read_text().splitlines()[0].split(",")
    assert len(set(header)) == len(header)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path,a,a\nx.mp4,1,2\n", "two of its columns have the same name"),
        ("path,a\udcff\nx.mp4,1\n", "is not plain text"),
        ("path,a\0b\nx.mp4,1\n", "is not plain text|is not a valid CSV"),
        ("", "is empty"),
        ("a,b\n1,2\n", r"none of its columns \(a, b\) is a path"),
    ],
)
def test_13_11_headers_are_refused_before_scoring_starts(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        run(tmp_path / "out.jsonl", csv_file(tmp_path / "m.csv", text))
    assert not (tmp_path / "out.jsonl").exists()


def test_13_11_large_cells_and_right_line_numbers(tmp_path: Path) -> None:
    large = "y" * 300_000
    text = f'path,note\na.mp4,{large}\n\nb.mp4,"two\nlines"\n,empty\nc.mp4,"never closed\nd.mp4,'
    source = csv_file(tmp_path / "m.csv", text + "z" * (MAX_CELL + 1) + "\ne.mp4,last\n")
    first, second, third, fourth, fifth = entries(source)
    assert first == ("a.mp4", {"note": large})
    assert second == ("b.mp4", {"note": "two\nlines"})
    assert third == "line 6: has no path; fill in or remove the row"
    assert fourth.startswith("line 7: is not valid CSV (field larger than field limit")
    assert fifth == ("e.mp4", {"note": "last"})


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def test_13_11_numbers_that_do_not_fit_go_along_as_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    columns = {
        "path": ["a.mp4", "b.mp4"],
        "large": pa.array([1, (1 << 64) - 1], pa.uint64()),
        "small": pa.array([1, (1 << 63) - 1], pa.uint64()),
        "x": pa.array([math.nan, 0.5]),
        "half": pa.array([np.float16(0.5), None], pa.float16()),
    }
    source = parquet(tmp_path / "m.parquet", columns)
    manifest = open_manifest(source)
    assert manifest.columns == {"large": "str", "small": "int", "x": "float", "half": "float"}
    (_, first), (_, second) = entries(source)
    assert math.isnan(first.pop("x"))
    assert first == {"large": "1", "small": 1, "half": 0.5}
    assert second == {"large": str((1 << 64) - 1), "small": (1 << 63) - 1, "x": 0.5, "half": None}
    assert (
        open_manifest(parquet(tmp_path / "n.parquet", columns, write_statistics=False)).columns["small"]
        == "str"
    )


def test_13_11_odd_time_zones_and_dates_go_along_as_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    moment = dt.datetime(2024, 1, 2, 3, 4, 5)
    columns = {
        "path": ["a.mp4", "b.mp4"],
        "odd": pa.array([moment, None], pa.timestamp("us", "Mars/Olympus_Mons")),
        "plain": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "far": pa.array([1 << 52, 0], pa.timestamp("ms")),
        "nano": pa.array([1, 10**18 + 1], pa.timestamp("ns")),
        "day": pa.array([dt.date(2024, 1, 2), None]),
        "bytes": pa.array([b"\xff", None]),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
        "list": [[1, 2], None],
    }
    source = parquet(tmp_path / "m.parquet", columns)
    assert set(open_manifest(source).columns.values()) == {"str"}
    (path, first), (_, second) = entries(source)
    assert path == "a.mp4"
    assert all(isinstance(value, str) for value in first.values()), first
    assert first["plain"] == "2024-01-02 03:04:05+00:00"
    assert (first["day"], first["kind"], first["list"]) == ("2024-01-02", "x", "[1, 2]")
    assert second["odd"] is None


def test_13_11_a_corrupt_page_costs_its_row_group_only(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    paths = [f"{'x' * 50}{i}.mp4" for i in range(30)]
    source = parquet(tmp_path / "m.parquet", {"path": paths, "n": list(range(30))}, row_group_size=10)
    column = pq.ParquetFile(source).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(Path(source).read_bytes())
    data[start + 20 : start + column.total_compressed_size] = b"\xa5" * (column.total_compressed_size - 20)
    Path(source).write_bytes(data)
    found = entries(source)
    assert [entry[0] for entry in found if isinstance(entry, tuple)] == [*paths[:10], *paths[20:]]
    (error,) = (entry for entry in found if isinstance(entry, str))
    assert error.startswith("rows 11 to 20: cannot be read (")
    Path(source).write_bytes(data[:-20])
    with pytest.raises(UsageError, match="is not a valid Parquet file"):
        open_manifest(source)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_13_11_odd_values_reach_the_results(tmp_path: Path, form: str) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "path": ["a.mp4"],
        "x": [math.nan],
        "big": pa.array([(1 << 64) - 1], pa.uint64()),
        "seconds": pa.array([dt.datetime(2024, 1, 2)], pa.timestamp("us", "Mars/Olympus_Mons")),
    }
    (tmp_path / "a.mp4").write_bytes(b"x")
    run(tmp_path / f"out.{form}", parquet(tmp_path / "m.parquet", columns), root=str(tmp_path))
    if form == "parquet":
        (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert math.isnan(row["x"])
    elif form == "csv":
        (row,) = csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines())
        assert row["x"] == "nan"
    else:
        (row,) = rows_of(tmp_path / "out.jsonl")
        assert row["x"] is None  # JSON has no word for it
    assert row["big"] == "18446744073709551615"
    assert row["input_seconds"]
    assert float(row["seconds"]) > 0


def test_rows_of_manifests_are_single_clips(tmp_path: Path) -> None:
    source = csv_file(tmp_path / "m.csv", "path\n*.mp4\nsub\n-\n@x\n")
    assert [s.path for s in expand([source])] == ["*.mp4", "sub", "-", "@x"]
    assert all(s.error is None for s in expand([source]))
