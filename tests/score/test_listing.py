"""Folders, globs, lists, manifests; merging parts; what is carried through."""

from __future__ import annotations

import csv
import io
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.score.test_run import ROW, Stub, make_tree, rows_of, run
from vidcls.errors import UsageError
from vidcls.score.listing import Inputs, parse_shard, sources_of
from vidcls.score.merge import merge
from vidcls.score.resume_log import in_shard
from vidcls.score.rows import Result, finish
from vidcls.video.sources import Source


def paths_of(*sources: Any, **options: Any) -> list[str]:
    return sorted(item.path for item in Inputs(tuple(map(str, sources)), **options))


def test_folders_globs_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_tree(tmp_path / "clips")
    (tmp_path / "clips" / "sub0" / "upper.MP4").write_bytes(b"x")
    everything = sorted([*paths, str(tmp_path / "clips/sub0/upper.MP4")])
    assert paths_of(tmp_path / "clips") == everything
    assert paths_of(f"{tmp_path}/clips/sub[01]") == [p for p in everything if "sub2" not in p]
    assert paths_of(f"{tmp_path}/clips/**/*.mp4") == paths
    (tmp_path / "list.txt").write_bytes(b"# mine\r\na b.mp4\r\n\r\n  lead.mp4\n\xff.mp4")
    expected = sorted(["a b.mp4", "  lead.mp4", "\udcff.mp4"])
    assert paths_of(tmp_path / "list.txt") == paths_of(f"@{tmp_path}/list.txt") == expected
    for data in (b"a.mp4\nnew line.mp4\n", b"a.mp4\0new line.mp4\0"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert paths_of("-") == ["a.mp4", "new line.mp4"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * (5 << 20) + b"\nlast.mp4")))
    found = list(Inputs(("-",)))
    assert found[0].error is not None
    assert found[1].path == "last.mp4"
    assert paths_of("plain.bin", "http://host/a.mp4") == ["http://host/a.mp4", "plain.bin"]


def test_what_leads_nowhere_has_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, kind in [(tmp_path / "empty", "empty_folder"), (tmp_path / "*.mp4", "not_found")]:
        (item,) = Inputs((str(source),))
        assert item.error is not None
        assert item.error.kind == kind
    for source in (tmp_path / "none.csv", "@none.txt"):
        assert not Path(str(source)).exists()
    with pytest.raises(UsageError, match="cannot be read"):
        list(Inputs(("@none.txt",)))
    with pytest.raises(UsageError, match="twice"):
        sources_of(["-", "a", "-"])


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_manifests_carry_their_columns_through(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips")
    names = [str(Path(path).relative_to(tmp_path)) for path in paths]
    rows = [
        {"id": f"{i:03}", "Video": name, "label": "a,b", "model": "theirs"} for i, name in enumerate(names)
    ]
    for name, delimiter in (("m.csv", ","), ("m.tsv", "\t")):
        manifest = write_csv(tmp_path / name, rows, delimiter)
        for form in ("jsonl", "csv"):
            out = tmp_path / f"{name}.{form}"
            run(out, manifest, root=str(tmp_path))
            with out.open(newline="", encoding="utf-8") as file:
                got = list(csv.DictReader(file)) if form == "csv" else rows_of(out)
            assert sorted(row["path"] for row in got) == names
            by_path = {row["path"]: row for row in got}
            for row in rows:
                mine = by_path[row["Video"]]
                label = mine["input_label" if form == "csv" else "label"]  # in CSV that is the predicted one
                assert (mine["id"], label, mine["input_model"]) == (row["id"], "a,b", "theirs")
                assert mine["model"] == "stub"


def test_parquet_manifests_keep_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    paths = make_tree(tmp_path / "clips")
    columns = {
        "uri": paths,
        "n": list(range(10)),
        "x": [0.5] * 9 + [None],
        "ok": [True] * 10,
        "s": ["a"] * 10,
    }
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    run(tmp_path / "out.parquet", tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    kinds = {
        name: str(table.schema.field(name).type) for name in ("n", "x", "ok", "s", "predictions", "views")
    }
    assert kinds == {
        "n": "int64", "x": "double", "ok": "bool", "s": "string", "views": "int32",
        "predictions": "list<element: struct<rank: int32, index: int32, label: string, score: float>>",
    }  # fmt: skip
    by_path = {row["path"]: row for row in table.to_pylist()}
    assert [by_path[path]["n"] for path in paths] == list(range(10))
    assert by_path[paths[9]]["x"] is None
    assert {row["error_kind"] for row in by_path.values()} == {None, "unreadable"}


def test_manifests_that_say_too_little(tmp_path: Path) -> None:
    manifest = write_csv(tmp_path / "m.csv", [{"a": "1", "clip": "x.mp4"}, {"a": "2", "clip": ""}])
    with pytest.raises(
        UsageError, match=r"none of its columns \(a, clip\) is a path; name it: path_column=NAME"
    ):
        run(tmp_path / "out.jsonl", manifest)
    with pytest.raises(UsageError, match=r"has no column 'clap'.*did you mean 'clip'"):
        run(tmp_path / "out.jsonl", manifest, path_column="clap")
    summary, _ = run(tmp_path / "out.jsonl", manifest, path_column="clip")
    assert summary.counts.failed == {"input": 1}
    (tmp_path / "none.csv").touch()
    with pytest.raises(UsageError, match="is empty"):
        run(tmp_path / "out2.jsonl", tmp_path / "none.csv")
    (tmp_path / "fake.parquet").write_text("no parquet")
    with pytest.raises(UsageError, match="is not a valid Parquet file"):
        run(tmp_path / "out2.jsonl", tmp_path / "fake.parquet")


def test_listing_holds_no_list(tmp_path: Path) -> None:
    with (tmp_path / "m.csv").open("w") as file:
        file.write("path,label\n")
        file.writelines(f"/data/{i:07}/a-rather-long-name-of-a-clip.mp4,{i}\n" for i in range(50_000))
    tracemalloc.start()
    count = sum(1 for _ in Inputs((str(tmp_path / "m.csv"),)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 2 << 20


def test_shards(tmp_path: Path) -> None:
    for text in ("0/4", "5/4", "1", "a/b", "-1/4", "1/0"):
        with pytest.raises(UsageError, match="is not I/N"):
            parse_shard(text)
    assert parse_shard("3/8") == (3, 8)
    sizes = [sum(in_shard(f"/data/{i}.mp4", (part, 4)) for i in range(4000)) for part in (1, 2, 3, 4)]
    assert sum(sizes) == 4000
    assert min(sizes) > 900


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_merge(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    paths = make_tree(tmp_path / "clips", 30)
    parts = [tmp_path / f"part{i}.{form}" for i in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        run(part, tmp_path / "clips", shard=(number, 3))
    names = list(map(str, parts))
    assert merge(str(tmp_path / "all.jsonl"), names) == 30
    rows = rows_of(tmp_path / "all.jsonl")
    assert sorted(row["path"] for row in rows) == paths
    assert all(row["predictions"] == [] if row["error"] else len(row["predictions"]) == 1 for row in rows)
    assert merge(str(tmp_path / "all.csv"), names) == 30
    with (tmp_path / "all.csv").open(newline="") as file:
        assert sorted(row["path"] for row in csv.DictReader(file)) == paths
    if form == "parquet":
        assert merge(str(tmp_path / "all.parquet"), names) == 30
        assert merge(str(tmp_path / "one.jsonl"), [str(tmp_path / "all.parquet")]) == 30
    with pytest.raises(UsageError, match="already exists"):
        merge(str(tmp_path / "all.csv"), names)
    with pytest.raises(UsageError, match="some are missing: 2/3"):
        merge(str(tmp_path / "some.jsonl"), [names[0], names[2]])
    assert merge(str(tmp_path / "some.jsonl"), [names[0], names[2]], partial=True) < 30
    with pytest.raises(UsageError, match="is one of the parts"):
        merge(names[0], names, overwrite=True)


def test_merge_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    names = [str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "c")]
    run(Path(names[0]), tmp_path / "clips", shard=(1, 2))
    run(Path(names[1]), tmp_path / "clips", shard=(2, 2), stub=Stub(top_k=2))
    with pytest.raises(
        UsageError, match=r"was scored with different settings than .*a\.jsonl \(top_k 2 not 5\)"
    ):
        merge(str(tmp_path / "out.jsonl"), names[:2])
    error = RuntimeError("stopped")
    with pytest.raises(RuntimeError):
        run(Path(names[2]), tmp_path / "clips", shard=(2, 2), stub=Stub(fail_after=1, error=error))
    with pytest.raises(UsageError, match="is not finished"):
        merge(str(tmp_path / "out.jsonl"), [names[0], names[2]])
    Path(f"{names[0]}.journal").unlink()
    with pytest.raises(UsageError, match="its journal is missing"):
        merge(str(tmp_path / "out.jsonl"), names)
    with pytest.raises(UsageError, match="no such file"):
        merge(str(tmp_path / "out.jsonl"), [str(tmp_path / "none.jsonl")])
    with pytest.raises(UsageError, match="CSV does not keep types"):
        merge(str(tmp_path / "out.jsonl"), [str(tmp_path / "none.csv")])
    assert not (tmp_path / "out.jsonl").exists()


def test_merge_prefers_the_row_without_an_error(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    run(first, tmp_path / "clips")

    class Better(Stub):
        def result(self, item: Source) -> Result:
            return finish(item, {**ROW, "path": item.path}, seconds=0.1)

    run(second, tmp_path / "clips", stub=Better())
    assert merge(str(tmp_path / "out.jsonl"), [str(first), str(second)], partial=True) == 10
    assert all(row["error"] is None for row in rows_of(tmp_path / "out.jsonl"))
