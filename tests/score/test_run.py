"""Listing, journal, output and runs as a whole, with a scorer that has no model."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.score import faults
from vidcls.errors import DeviceError, InputError, OutputError, UsageError
from vidcls.score import Job, Summary, score
from vidcls.score import row_file as sink
from vidcls.score.listing import Inputs
from vidcls.score.merge import merge
from vidcls.score.resume_log import Journal
from vidcls.score.rows import Result, finish
from vidcls.score.setup import Setup
from vidcls.video.sources import Source

ROW = {
    "path": "", "model": "stub", "weights": "none", "views": 1, "crops": 1, "frames": 8, "stride": 1,
    "fps": 25.0, "duration": 2.0, "decoder": "none", "warnings": ["a warning"], "error": None,
    "predictions": [{"rank": 1, "index": 3, "label": "wave, hello", "score": 0.5}],
}  # fmt: skip


class Stub:
    """Scores clips by looking at their names; may stop with an error after so many."""

    def __init__(
        self, top_k: int = 5, fail_after: int | None = None, error: BaseException | None = None
    ) -> None:
        self.top_k = top_k
        self.fail_after = fail_after
        self.error = error
        self.seen: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"model": "stub", "top_k": self.top_k, "all_scores": False, "weights_sha256": "0" * 64}

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        for number, item in enumerate(items):
            if number == self.fail_after and self.error is not None:
                raise self.error
            self.seen.append(item.path)
            yield self.result(item)
            yield None

    def result(self, item: Source) -> Result:
        error = item.error
        if "bad" in os.path.basename(item.path) and error is None:
            error = InputError(item.path, "is bad", "fix it", kind="unreadable")
        row = {**ROW, "path": item.path}
        if error is not None:
            row = {**row, "predictions": [], "error": str(error), "duration": None}
        return finish(item, row, seconds=0.25, error=error)

    def leftovers(self) -> list[Result]:
        return []

    def notes(self) -> tuple[str, ...]:
        return ()

    def stats(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def run(output: Path, *sources: Any, stub: Stub | None = None, **job: Any) -> tuple[Summary, Stub]:
    stub = stub or Stub()
    inputs = Inputs(tuple(map(str, sources)), job.pop("path_column", None), job.pop("root", ""))
    done = score(Job(inputs, str(output), make_scorer=lambda setup: stub, **job), {"quiet": True})
    return done, stub


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_tree(folder: Path, count: int = 10) -> list[str]:
    paths = []
    for i in range(count):
        place = folder / f"sub{i % 3}" / "deep"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{'bad' if i % 5 == 4 else 'good'}{i}.mp4"
        path.write_bytes(b"x" * (i + 1))
        paths.append(str(path))
    (folder / "notes.txt").write_text("no clip")
    return sorted(paths)


def test_each_input_has_one_row_whatever_the_run(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    summary, stub = run(out, tmp_path / "clips", f"{tmp_path}/clips/*/deep/good*.mp4", paths[0])
    assert sorted(stub.seen) == paths
    assert sorted(row["path"] for row in rows_of(out)) == paths
    assert (summary.counts.scored, summary.counts.duplicates, summary.rows) == (8, 9, 10)
    assert summary.failed == {"unreadable": 2}
    assert summary.examples["unreadable"].endswith("is bad; fix it")

    summary, stub = run(out, tmp_path / "clips", tmp_path / "clips")
    assert stub.seen == []
    assert (summary.counts.skipped, summary.counts.duplicates) == (10, 10)
    assert summary.failed == {"unreadable": 2}  # the exit code is that of all inputs

    new = tmp_path / "clips" / "new.mp4"
    new.write_bytes(b"new")
    good = [path for path in paths if "good" in path]
    os.utime(good[0], ns=(1, 1))  # this one has changed
    gone = Path(good[1])
    gone.unlink()  # and what was computed of a clip outlives it
    summary, stub = run(out, tmp_path / "clips", gone)
    assert sorted(stub.seen) == sorted([str(new), good[0]])
    assert sorted(row["path"] for row in rows_of(out)) == sorted([*paths, str(new)])

    summary, stub = run(out, tmp_path / "clips", retry_failed=True)
    assert [("bad" in path) for path in stub.seen] == [True, True]
    assert sorted(row["path"] for row in rows_of(out)) == sorted([*paths, str(new)])


def test_rows_that_were_replaced_are_removed(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips")
    for form in ("jsonl", "csv"):
        out = tmp_path / f"out.{form}"
        run(out, tmp_path / "clips")
        for _ in range(3):
            run(out, tmp_path / "clips", retry_failed=True)
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file)) if form == "csv" else [json.loads(line) for line in file]
        assert sorted(row["path"] for row in rows) == paths
        os.utime(paths[0], ns=(5, 5))
        summary, _ = run(out, tmp_path / "clips")
        assert summary.rows == 10


class Two(Stub):
    """Every clip has two labels."""

    def result(self, item: Source) -> Result:
        done = super().result(item)
        second = {"rank": 2, "index": 1, "label": "nod", "score": 0.25}
        done.row["predictions"] = done.row["predictions"] and [*done.row["predictions"], second]
        return done


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_lines_of_flat_formats(tmp_path: Path, format: str) -> None:
    paths = make_tree(tmp_path / "clips")
    lines = {}
    for wide in (False, True):
        out = tmp_path / f"out{wide}.{format}"
        run(out, tmp_path / "clips", stub=Two(top_k=2), wide=wide)
        with pytest.raises(UsageError, match=r"different settings.*wide"):
            run(out, tmp_path / "clips", stub=Two(top_k=2), wide=not wide)
        run(
            out, tmp_path / "clips", stub=Two(top_k=2), wide=wide, retry_failed=True
        )  # rows are replaced whole
        with out.open(newline="", encoding="utf-8") as file:
            lines[wide] = list(csv.DictReader(file, delimiter="," if format == "csv" else "\t"))
    assert sorted(line["path"] for line in lines[True]) == paths
    assert sorted(line["path"] for line in lines[False] if line["rank"] in ("1", "")) == paths
    assert len(lines[False]) == 8 * 2 + 2
    labels = {(line["path"], line["rank"]): line["label"] for line in lines[False]}
    for line in lines[True]:
        assert line["label_2"] == labels.get((line["path"], "2"), "")


def test_the_format_may_be_named(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips")
    run(tmp_path / "rows", tmp_path / "clips", format="jsonl")
    assert sorted(row["path"] for row in rows_of(tmp_path / "rows")) == paths
    assert merge(str(tmp_path / "all"), [str(tmp_path / "rows")], format="csv", wide=True) == 10
    assert (tmp_path / "all").read_text().startswith("path,index_1,label_1")
    for output, format in (("rows.csv", "jsonl"), ("rows", None), ("rows", "table"), ("rows.jsonl", "csv")):
        with pytest.raises(UsageError):
            run(tmp_path / output, tmp_path / "clips", format=format)
    with pytest.raises(UsageError, match="wide: is for CSV or TSV"):
        run(tmp_path / "x.jsonl", tmp_path / "clips", wide=True)


def test_a_torn_write_is_undone(tmp_path: Path) -> None:
    """What a kill leaves behind: text that the journal has not counted."""
    paths = make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    with pytest.raises(DeviceError):
        run(out, tmp_path / "clips", stub=Stub(fail_after=4, error=DeviceError("cuda", "out of memory")))
    assert len(rows_of(out)) == 4  # and what was computed before an error is kept
    with out.open("ab") as file:
        file.write(b'{"path": "half a li')
    _, stub = run(out, tmp_path / "clips")
    assert len(stub.seen) == 6
    assert sorted(row["path"] for row in rows_of(out)) == paths


def test_a_packing_that_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_tree(tmp_path / "clips")
    out = tmp_path / "out.csv"
    for moment in ("before", "after"):
        run(out, tmp_path / "clips", overwrite=True)

        def cut(self: Journal, *arguments: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            if moment == "after":
                patch.setattr(Journal, "packed", cut)
            else:
                patch.setattr(sink.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run(out, tmp_path / "clips", retry_failed=True)
        _, stub = run(out, tmp_path / "clips")
        assert stub.seen == []
        with out.open(newline="", encoding="utf-8") as file:
            assert sorted(row["path"] for row in csv.DictReader(file)) == paths, moment


def test_settings_must_be_the_same(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    run(out, tmp_path / "clips")
    with pytest.raises(
        UsageError, match=r"out.jsonl: was written with different settings \(top_k was 5, is 3\)"
    ) as caught:
        run(out, tmp_path / "clips", stub=Stub(top_k=3))
    assert "overwrite=True" in str(caught.value)
    with pytest.raises(UsageError, match="shard was 1/1, is 1/2"):
        run(out, tmp_path / "clips", shard=(1, 2))
    summary, stub = run(out, tmp_path / "clips", stub=Stub(top_k=3), overwrite=True)
    assert len(stub.seen) == summary.rows == 10


def test_overwriting_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    run(out, tmp_path / "clips")
    with pytest.raises(DeviceError):
        run(
            out, tmp_path / "clips", stub=Stub(fail_after=7, error=DeviceError("cpu", "gone")), overwrite=True
        )
    _, stub = run(out, tmp_path / "clips", overwrite=True)
    assert len(stub.seen) == 3
    _, stub = run(out, tmp_path / "clips", overwrite=True)  # and a finished one is replaced
    assert len(stub.seen) == 10


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    for name in ("mine.jsonl", "mine.csv", "mine.parquet"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(UsageError, match="already exists, without a vidcls journal"):
            run(tmp_path / name, tmp_path / "clips")
        assert (tmp_path / name).read_text() == "precious"
    run(tmp_path / "mine.jsonl", tmp_path / "clips", overwrite=True)
    assert len(rows_of(tmp_path / "mine.jsonl")) == 10
    (tmp_path / "mine.jsonl").write_text("")
    with pytest.raises(UsageError, match="is shorter than its journal says"):
        run(tmp_path / "mine.jsonl", tmp_path / "clips")
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(UsageError, match="is missing, but its journal exists"):
        run(tmp_path / "mine.jsonl", tmp_path / "clips")
    (tmp_path / "other.jsonl.journal").write_text("no database " * 50)
    with pytest.raises(OutputError, match="is not a journal of vidcls"):
        run(tmp_path / "other.jsonl", tmp_path / "clips")
    run(tmp_path / "other.jsonl", tmp_path / "clips", overwrite=True)
    for name, problem in (("scores.txt", "format is unclear"), ("scores", "format is unclear")):
        with pytest.raises(UsageError, match=problem):
            run(tmp_path / name, tmp_path / "clips")
    with pytest.raises(OutputError, match="does not exist"):
        run(tmp_path / "none" / "scores.csv", tmp_path / "clips")


def test_a_model_that_cannot_be_loaded_costs_no_results(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    run(out, tmp_path / "clips")

    def fail(setup: Setup) -> Stub:
        raise UsageError("vivit-fee", "no such model")

    with pytest.raises(UsageError):
        score(Job(Inputs((str(tmp_path / "clips"),)), str(out), overwrite=True, make_scorer=fail))
    assert len(rows_of(out)) == 10


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from vidcls.score.resume_log import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 'x'); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, f"{out}.journal"], stdout=subprocess.PIPE, cwd=faults.ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"out\.jsonl: another process is writing it"):
                run(out, tmp_path / "clips", overwrite=overwrite)
        other.kill()
        other.wait()
        run(out, tmp_path / "clips")  # the lock died with its owner
    assert len(rows_of(out)) == 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    write = sink._sync
    full = threading.Event()

    def sync(file: Any) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        write(file)

    monkeypatch.setattr(sink, "_sync", sync)
    monkeypatch.setattr(sink, "COMMIT_ROWS", 3)

    class Filling(Stub):
        def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
            for number, item in enumerate(items):
                if number == 5:
                    full.set()
                yield self.result(item)

    with pytest.raises(
        OutputError, match=r"writing failed \(No space left on device\); free some space, then"
    ):
        run(out, tmp_path / "clips", stub=Filling())
    assert len(rows_of(out)) == 3  # whole lines only
    full.clear()
    summary, stub = run(out, tmp_path / "clips")
    assert (len(stub.seen), summary.rows, len(rows_of(out))) == (7, 10, 10)


def test_a_journal_that_cannot_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"

    def full(self: Journal, *arguments: Any) -> None:
        raise self._database.failure(sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "commit", full)
        with pytest.raises(OutputError, match="database or disk is full"):
            run(out, tmp_path / "clips")
    assert out.read_bytes() == b""
    assert run(out, tmp_path / "clips")[0].rows == 10


def test_strange_names(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    names = [b"comma,quote\"'.mp4", b"new\nline.mp4", "ümläut 電影.mp4".encode(), b"\xff\xfe.mp4", b"@at.mp4"]
    kept = []
    for name in names:
        try:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
            kept.append(os.fsdecode(os.fsencode(folder) + b"/" + name))
        except (OSError, ValueError):  # this file system does not take it
            continue
    run(tmp_path / "out.jsonl", folder)
    assert sorted(row["path"] for row in rows_of(tmp_path / "out.jsonl")) == sorted(kept)
    run(tmp_path / "out.csv", folder)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(kept)
    run(tmp_path / "again.jsonl", folder)
    assert run(tmp_path / "again.jsonl", folder)[1].seen == []


def test_shards_are_parts_of_the_whole(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips", 40)
    found: list[str] = []
    for part in (1, 2, 3):
        out = tmp_path / f"part{part}.jsonl"
        run(out, tmp_path / "clips", shard=(part, 3))
        found += [row["path"] for row in rows_of(out)]
    assert sorted(found) == paths


@pytest.mark.skipif(sys.platform == "win32", reason="signals to other processes are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: int) -> None:
    """A first Ctrl-C keeps what was computed and ends in order."""
    make_tree(tmp_path / "clips", 200)
    out = tmp_path / "out.jsonl"

    class Slow(Stub):
        def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
            for result in super().run(items):
                time.sleep(0.005)
                yield result

    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    summary, stub = run(out, tmp_path / "clips", stub=Slow())
    assert summary.interrupted
    assert 0 < len(rows_of(out)) < 200
    assert len(rows_of(out)) == len(stub.seen)
    again, second = run(out, tmp_path / "clips")
    assert len(second.seen) + len(stub.seen) == 200
    assert not again.interrupted
