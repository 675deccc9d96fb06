"""Full disks, damaged journals, odd files and values: one line, nothing torn, and a way on that works."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.score import faults
from tests.score.test_run import Stub, make_tree, rows_of, run
from vidcls.errors import OutputError, UsageError, VidclsError
from vidcls.output import sinks
from vidcls.output.formats import FORMATS
from vidcls.paths import temporary_path
from vidcls.score import Job, merge, row_file, score
from vidcls.score.database import Database
from vidcls.score.listing import Inputs
from vidcls.video import object_store
from vidcls.video.sources import Source

SUFFIXES = [kind.suffixes[0] for kind in FORMATS.values() if kind.complete]


def paths_of(out: Path) -> list[str]:
    """Paths of all rows of a finished output, sorted; an error if anything in it is torn."""
    if out.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        return sorted(table.column("path").to_pylist())
    if out.suffix in (".csv", ".tsv"):
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="," if out.suffix == ".csv" else "\t", strict=True))
        assert all(None not in row and None not in row.values() for row in rows)
        return sorted(row["path"] for row in rows)
    return sorted(
        row["path"] for row in (json.loads(out.read_text()) if out.suffix == ".json" else rows_of(out))
    )


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") or "tmp" in path.name)


# 6: no single input may end a run


@dataclass(frozen=True)
class Given(Inputs):
    """Clips as they are given."""

    items: tuple[Source, ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Source]:
        return iter(self.items)

    def columns(self) -> dict[str, str]:
        return dict(self.kinds)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_names_sizes_and_times_end_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Point 6: a file dated after 2262 or before 1678, a size, a name that no system has, a store that stumbles."""
    states: dict[str, Any] = {
        "a.mp4": (1, 2**63), "b.mp4": (1, -(2**63) - 1), "c.mp4": (2**64, 10**30), "d.mp4": ZeroDivisionError,
        "e.mp4": OverflowError, "f\ud800\udfff.mp4": (1, 1), "g\udcff.mp4": (1, 1), "h\0\n.mp4": (1, 1),
    }  # fmt: skip

    def state(location: str) -> Any:
        found = states[location]
        if isinstance(found, type):
            raise found
        return found

    monkeypatch.setattr(object_store, "state", state)
    inputs = Given((), items=tuple(map(Source, states)))
    out = tmp_path / f"out{suffix}"
    for seen in (len(states), 0):
        stub = Stub()
        summary = score(Job(inputs, str(out), make_scorer=lambda _, stub=stub: stub), {"quiet": True})
        assert len(stub.seen) == seen
        assert (summary.rows, summary.failed) == (len(states), {})
        assert len(paths_of(out)) == len(states)


def test_a_file_of_the_year_3000(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips")
    try:
        os.utime(paths[0], ns=(32503680000 * 10**9,) * 2)
    except (OverflowError, OSError):
        pytest.skip("this file system has no such dates")
    if os.stat(paths[0]).st_mtime_ns < 2**63:
        pytest.skip("this file system keeps no such dates")
    for seen in (10, 0):
        assert len(run(tmp_path / "out.jsonl", tmp_path / "clips")[1].seen) == seen


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cells_that_no_output_can_hold_are_their_rows_error(tmp_path: Path, suffix: str) -> None:
    """Point 6: whatever a manifest brings along, the other clips get their rows."""
    cells: list[Any] = [
        1,
        2**63,
        -(2**63) - 1,
        "text",
        1.5,
        float("nan"),
        b"bytes",
        object(),
        None,
        [1],
        2**62,
    ]
    items = tuple(Source(f"{i}.mp4", columns={"count": cell}) for i, cell in enumerate(cells))
    inputs = Given((), items=items, kinds=(("count", "int"),))
    out = tmp_path / f"out{suffix}"
    summary = score(Job(inputs, str(out), make_scorer=lambda _: Stub()), {"quiet": True})
    assert summary.failed == {"unwritable": 8}
    assert "its row cannot be written (count is" in summary.examples["unwritable"]
    assert paths_of(out) == sorted(item.path for item in items)
    if suffix == ".jsonl":
        by_path = {row["path"]: row for row in rows_of(out)}
        assert [by_path[f"{i}.mp4"]["count"] for i in (0, 8, 10)] == [1, None, 2**62]
        assert by_path["1.mp4"]["error_kind"] == "unwritable"
        assert by_path["1.mp4"]["predictions"] == []


def test_nan_of_a_manifest_comes_through(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    inputs = Given((), items=(Source("a.mp4", columns={"rate": float("nan")}),), kinds=(("rate", "float"),))
    score(Job(inputs, str(tmp_path / "out.parquet"), make_scorer=lambda _: Stub()), {"quiet": True})
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["rate"] != row["rate"]


# 7: full disks


class FullDisk:
    """Lets the n-th call that brings something to the disk fail; half of what a write was given is there then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        write, sync, replace = os.write, os.fsync, os.replace

        def full(descriptor: int, data: Any) -> int:
            if self._over():
                if len(data) > 1 and self.left == 0:
                    return write(descriptor, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            return write(descriptor, data)

        def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
            def inner(*arguments: Any) -> Any:
                if self._over():
                    raise OSError(28, "No space left on device")
                return call(*arguments)

            return inner

        monkeypatch.setattr(sinks.os, "write", full)
        monkeypatch.setattr(sinks.os, "fsync", guarded(sync))
        monkeypatch.setattr(sinks.os, "replace", guarded(replace))

    def _over(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fills_up_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Point 7: one line, exit code 3, whole rows only, nothing left over; the same command goes on."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(row_file, "COMMIT_ROWS", 3)
    paths = make_tree(tmp_path / "clips")
    moments = 0
    for at in range(1, 60):
        folder = tmp_path / str(at)
        folder.mkdir()
        out = folder / f"out{suffix}"
        with monkeypatch.context() as patch:
            FullDisk(patch, at)
            try:
                run(out, tmp_path / "clips")
                break
            except OutputError as error:
                found = error
        moments += 1
        assert found.exit_code == 3
        assert re.search(
            r"^[^\n]*writing failed \(No space left on device\); free some space[^\n]*$", str(found)
        )
        text = out if suffix in (".jsonl", ".csv", ".tsv") else Path(f"{out}.rows")
        if text.exists() and text.suffix != ".rows" and text.stat().st_size:
            assert set(paths_of(text)) <= set(paths), at
        assert left_over(folder) == []
        summary, _ = run(out, tmp_path / "clips")
        assert summary.rows == 10
        assert paths_of(out) == paths, at
    assert moments >= 9


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_journal_whose_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Point 7: SQLite's own error, by its bound on the file's size, at each page that the journal may want."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(row_file, "COMMIT_ROWS", 40)
    (tmp_path / "list.txt").write_text("".join(f"{i:04}.mp4\n" for i in range(400)))
    failed = 0
    for pages in range(3, 12):
        out = tmp_path / f"{pages}{suffix}"
        connect = Database._connect

        def bounded(self: Database, pages: int = pages, connect: Any = connect) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(self)
            connection.execute(f"PRAGMA max_page_count={pages}")
            return connection

        with monkeypatch.context() as patch:
            patch.setattr(Database, "_connect", bounded)
            try:
                run(out, tmp_path / "list.txt")
                continue
            except OutputError as error:
                found = str(error)
        failed += 1
        assert "cannot be written (database or disk is full); free some space" in found
        if suffix == ".jsonl":
            assert len(rows_of(out)) < 400
        assert run(out, tmp_path / "list.txt")[0].rows == 400
        assert len(paths_of(out)) == 400
    assert failed >= 3


def test_a_read_only_folder_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point 7; the bits of a folder mean nothing to root, so it is the system's answers that are made."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("vidcls.score.database.sqlite3.connect", refuse)
    monkeypatch.setattr("vidcls.score.database.os.access", lambda *_: False)
    with pytest.raises(OutputError, match=r"the folder .* is read-only; choose another output"):
        run(tmp_path / "out.jsonl", tmp_path)
    monkeypatch.undo()
    for number, problem in ((30, "is on a read-only file system"), (13, "permission denied")):
        with monkeypatch.context() as patch:
            patch.setattr(
                sinks.os, "write", lambda *_, number=number: (_ for _ in ()).throw(OSError(number, "no"))
            )
            with pytest.raises(OutputError, match=problem):
                run(tmp_path / f"{number}.csv", tmp_path)


# 8: what a killed process leaves, and SIGTERM


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_a_killed_process_left_is_swept(tmp_path: Path, suffix: str) -> None:
    """Point 8: temporary files have fixed names, and go when the next run has the lock."""
    make_tree(tmp_path / "clips")
    out = tmp_path / "out" / f"a{suffix}"
    out.parent.mkdir()
    for path in (out, Path(f"{out}.rows")):
        temporary_path(path, alone=True).write_bytes(b"left by a kill")
    run(out, tmp_path / "clips")
    assert [name for name in left_over(out.parent) if not name.endswith(".rows.tmp")] == []
    assert suffix in (".csv", ".tsv", ".jsonl") or left_over(out.parent) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_while_finishing(tmp_path: Path, number: int) -> None:
    """Point 8: SIGTERM, as Slurm sends it, is handled everywhere as Ctrl-C is."""
    pytest.importorskip("pyarrow")
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.parquet"
    code = (
        "import signal, sys, time\n"
        "from vidcls.cli import guard\n"
        "from vidcls.cli.app import _terminate\n"
        "from vidcls.output.parquet import Parquet\n"
        "from tests.score.test_run import run\n"
        "signal.signal(signal.SIGTERM, _terminate)\n"
        "end = Parquet.end\n"
        "def slow(self):\n"
        "    print('finishing', flush=True); time.sleep(30); return end(self)\n"
        "Parquet.end = slow\n"
        "try: run(sys.argv[1], sys.argv[2])\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out), str(tmp_path / "clips")],
        stdout=subprocess.PIPE, cwd=faults.ROOT, env=faults.environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"finishing\n"
        begin = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == 130
        assert time.monotonic() - begin < 15
    assert left_over(tmp_path) == []
    assert not out.exists()
    assert run(out, tmp_path / "clips")[1].seen == []
    assert len(paths_of(out)) == 10


# 9: journals


def break_journal(journal: Path, how: str) -> None:
    data = journal.read_bytes()
    if how.startswith("cut"):
        journal.write_bytes(data[: int(len(data) * float(how[3:]))])
    elif how == "text":
        journal.write_text("no database " * 100)
    elif how == "overwritten":
        journal.write_bytes(data[:200] + os.urandom(len(data) - 200))
    elif how == "pages":
        journal.write_bytes(data[:4096] + b"\0" * (len(data) - 4096))
    elif how == "foreign":
        journal.unlink()
        with sqlite3.connect(journal) as connection:
            connection.execute("CREATE TABLE precious (x)")
        connection.close()
    else:
        with sqlite3.connect(journal) as connection:
            connection.execute({
                "newer": "PRAGMA user_version=99",
                "settings": "UPDATE meta SET value = '{half' WHERE name = 'settings'",
                "list": "UPDATE meta SET value = '[]' WHERE name = 'settings'",
                "length": "UPDATE meta SET value = 'x' WHERE name = 'length'",
                "run": "UPDATE meta SET value = 'x' WHERE name = 'run'",
                "tables": "DROP TABLE rows",
            }[how])  # fmt: skip
        connection.close()


WAYS = ["cut0.1", "cut0.5", "cut0.9", "text", "overwritten", "pages", "foreign", "newer", "settings", "list"]
WAYS += ["length", "run", "tables"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("how", WAYS)
def test_a_journal_that_cannot_be_used(tmp_path: Path, suffix: str, how: str) -> None:
    """Point 9: one line, nothing changed, and overwriting is a way out."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    paths = make_tree(tmp_path / "clips", 60)
    out = tmp_path / f"out{suffix}"
    run(out, tmp_path / "clips")
    before = out.read_bytes()
    break_journal(Path(f"{out}.journal"), how)
    with pytest.raises(VidclsError) as caught:
        run(out, tmp_path / "clips")
    text = str(caught.value)
    assert text.count("\n") == 0
    assert "is not a journal of vidcls, or is damaged (" in text
    assert "overwrite=True" in text
    assert out.read_bytes() == before
    with contextlib.suppress(UsageError):  # it needs less of a journal, and may find that whole
        merge.merge(str(tmp_path / "all.jsonl"), [str(out)])
        assert paths_of(tmp_path / "all.jsonl") == paths
    summary, stub = run(out, tmp_path / "clips", overwrite=True)
    assert len(stub.seen) == summary.rows == 60
    assert paths_of(out) == paths
    assert run(out, tmp_path / "clips")[1].seen == []


def test_an_empty_journal_is_none(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    out = tmp_path / "out.jsonl"
    run(out, tmp_path / "clips")
    Path(f"{out}.journal").write_bytes(b"")
    with pytest.raises(UsageError, match="without a vidcls journal"):
        run(out, tmp_path / "clips")
    assert run(out, tmp_path / "clips", overwrite=True)[0].rows == 10


def test_merge_from_read_only_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point 9: also where what a killed process had committed is in SQLite's log alone, and nothing is left there."""
    paths = make_tree(tmp_path / "clips")
    parts = tmp_path / "parts"
    parts.mkdir()
    code = (
        "import os, sys; from tests.score import test_run as t; from vidcls.score import run as r\n"
        "put = r.Journal.put\n"
        "def die(self, **facts):\n"
        "    put(self, **facts)\n"
        "    if facts.get('finished') == 1: os._exit(9)\n"
        "r.Journal.put = die\n"
        "t.run(*sys.argv[1:])\n"
    )
    out = parts / "a.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out), str(tmp_path / "clips")],
        cwd=faults.ROOT,
        env=faults.environment(),
    )
    assert done.returncode == 9
    assert (parts / "a.jsonl.journal-wal").exists()
    with out.open("ab") as file:
        file.write(b'{"path": "half a li')  # a tail that no commit counted
    before = {path.name: path.read_bytes() for path in parts.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(merge.os, "access", lambda *_: False)
        assert merge.merge(str(tmp_path / "all.jsonl"), [str(out)]) == 10
    assert paths_of(tmp_path / "all.jsonl") == paths
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before


def test_merge_takes_the_latest_row_of_a_part(tmp_path: Path) -> None:
    """An unfinished part may still hold rows that later ones have replaced."""
    paths = make_tree(tmp_path / "clips")
    out = tmp_path / "a.jsonl"
    run(out, tmp_path / "clips")
    os.utime(paths[0], ns=(1, 1))
    os.utime(paths[1], ns=(1, 1))

    class Second(Stub):
        def result(self, item: Source) -> Any:
            result = super().result(item)
            result.row["decoder"] = "second"
            return result

    with pytest.raises(RuntimeError):
        run(out, tmp_path / "clips", stub=Second(fail_after=1, error=RuntimeError("stopped")))
    assert len(rows_of(out)) == 11
    assert merge.merge(str(tmp_path / "all.jsonl"), [str(out)], partial=True) == 10
    assert [row["decoder"] for row in rows_of(tmp_path / "all.jsonl")].count("second") == 1
