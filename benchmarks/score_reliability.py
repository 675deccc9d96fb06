"""Kills, full disks and signals, many times each: what is on the disk afterwards, and whether the same command goes on.

    python benchmarks/score_reliability.py kills [--runs 120]           # kill -9 at random moments, jsonl, csv, Parquet
    python benchmarks/score_reliability.py disks [--runs 14]            # a real full disk; as root, it mounts a tmpfs
    python benchmarks/score_reliability.py signals [--runs 20]          # SIGTERM and SIGINT at random moments

A scorer stands in for decoders and model, so that hundreds of runs take minutes: it is the pipeline's
listing, journal, rows and finishing that are tried here; `score_faults.py` kills whole command lines with real clips.

Ends with an error if an input has no row or two, if a row is torn or another than in a run without trouble, if an
error is not one line or has the wrong exit code, or if a temporary file is left. Run from the root of the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FORMATS = ("jsonl", "csv", "parquet")
INPUTS = 3000


class Stub:
    """Scores clips by their names: each takes a moment, and every seventh one fails."""

    def settings(self) -> dict[str, Any]:
        return {"model": "stub", "top_k": 1, "all_scores": False}

    def labels(self) -> tuple[str, ...]:
        return ("wave",)

    def notes(self) -> tuple[str, ...]:
        return ()

    def run(self, items: Iterable[Any]) -> Iterator[Any]:
        from vidcls.errors import InputError
        from vidcls.output.row import RankedLabel, Row
        from vidcls.score.rows import finish

        print("working", flush=True)
        for number, item in enumerate(items):
            if number % 20 == 0:
                time.sleep(0.01)
            error = InputError(item.path, "is bad", kind="bad") if "bad" in item.path else None
            best = [] if error else [RankedLabel(rank=1, index=0, label="wave", score=0.5)]
            row = Row(
                path=item.path, model="stub", weights="none", views=1, crops=1, frames=8, stride=1,
                predictions=best, error=None if error is None else str(error),
            )  # fmt: skip
            yield finish(item, row.to_dict(), seconds=0.25, error=error)

    def leftovers(self) -> list[Any]:
        return []

    def stats(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def run_scoring(out: str, listed: str) -> None:
    """Be a command line whose scorer has no model."""
    import typer

    from vidcls.cli import guard
    from vidcls.cli.app import _terminate
    from vidcls.score import Job, row_file, score
    from vidcls.score.listing import Inputs

    signal.signal(signal.SIGTERM, _terminate)
    row_file.COMMIT_SECONDS, row_file.COMMIT_ROWS = 0.05, 150

    def command() -> int:
        job = Job(Inputs((listed,)), out, make_scorer=lambda setup: Stub())
        return 130 if score(job, {"quiet": True}).interrupted else 0

    try:
        guard(command)()
    except typer.Exit as end:
        sys.exit(end.exit_code)


def start(out: Path, listed: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "run", str(out), str(listed)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows; anything torn is an error."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file, strict=True))
        assert all(None not in row and None not in row.values() for row in found), "a torn line"
        return found
    text = path.read_text(encoding="utf-8")
    assert not text or text.endswith("\n"), "a torn line"
    return [json.loads(line) for line in text.splitlines()]


def check_complete(out: Path, expected: list[dict[str, Any]]) -> None:
    rows = sorted(read_rows(out), key=lambda row: str(row["path"]))
    assert len({row["path"] for row in rows}) == len(rows), "an input has two rows"
    assert rows == expected, "rows differ from those of a run without trouble"
    left = [path.name for path in out.parent.iterdir() if path.name.startswith(".")]
    assert not left, f"left over: {left}"


def one_line(process: subprocess.Popen[str], allowed: tuple[int, ...]) -> int:
    """Wait for the end of a run and hold it to one line of error and the right exit code."""
    _, said = process.communicate(timeout=300)
    lines = said.strip().splitlines()
    assert process.returncode in allowed, f"exit code {process.returncode}: {said}"
    assert len(lines) <= 1, said
    return process.returncode


@dataclass
class Calm:
    """What runs without trouble give.

    Attributes:
        listed: The list of inputs.
        rows: For each format the rows, by path.
        seconds: For each format how long a run took, without Python's own start.
    """

    listed: Path
    rows: dict[str, list[dict[str, Any]]]
    seconds: dict[str, float]


def prepare(folder: Path) -> Calm:
    """Write the list of inputs, and score it in each format without trouble."""
    calm = Calm(folder / "list.txt", {}, {})
    names = [f"{'bad' if i % 7 == 3 else 'clip'}{i:05}.mp4" for i in range(INPUTS)]
    calm.listed.write_text("".join(f"{name}\n" for name in names))
    for form in FORMATS:
        out = folder / f"calm.{form}"
        process = start(out, calm.listed)
        wait_for_work(process)
        begin = time.monotonic()
        one_line(process, (0,))
        calm.seconds[form] = time.monotonic() - begin
        calm.rows[form] = sorted(read_rows(out), key=lambda row: str(row["path"]))
        assert len(calm.rows[form]) == INPUTS
    return calm


def finish(out: Path, calm: Calm, form: str) -> None:
    one_line(start(out, calm.listed), (0,))
    check_complete(out, calm.rows[form])


def wait_for_work(process: subprocess.Popen[str]) -> None:
    """Wait until Python itself has started."""
    assert process.stdout is not None
    process.stdout.readline()


def wait_or(process: subprocess.Popen[str], seconds: float, number: int) -> bool:
    """Send a signal after some time; False: the run had ended before."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return True


def kills(folder: Path, runs: int, chance: random.Random) -> Counter[str]:
    """Kill -9 again and again at random moments; each output is then finished and held to the calm one."""
    calm = prepare(folder)
    count: Counter[str] = Counter()
    turn = killed = 0
    while killed < runs:
        form = FORMATS[turn % len(FORMATS)]
        out = folder / f"kill{turn}" / f"out.{form}"
        out.parent.mkdir()
        for _ in range(4):
            process = start(out, calm.listed)
            wait_for_work(process)
            hit = wait_or(process, calm.seconds[form] * chance.uniform(0, 0.35), signal.SIGKILL)
            process.communicate()
            killed += hit
            count[f"{form}: killed" if hit else f"{form}: was faster"] += 1
            if form != "parquet" and out.exists():
                check_whole(out)
        finish(out, calm, form)
        count[f"{form}: finished, identical"] += 1
        turn += 1
    return count


def check_whole(out: Path) -> None:
    """After a kill the last line may be one that no commit has counted yet; all before it are whole."""
    text = out.read_bytes()
    whole = text[: text.rfind(b"\n") + 1].decode()
    if out.suffix == ".jsonl":
        for line in whole.splitlines():
            json.loads(line)
    else:
        rows = list(csv.reader(whole.splitlines(keepends=True)))
        assert all(len(row) == len(rows[0]) for row in rows)


def signals(folder: Path, runs: int, chance: random.Random) -> Counter[str]:
    """SIGTERM and SIGINT at random moments: exit code 130, rows kept, nothing torn or left over."""
    calm = prepare(folder)
    count: Counter[str] = Counter()
    for turn in range(runs * len(FORMATS)):
        form, number = FORMATS[turn % len(FORMATS)], (signal.SIGTERM, signal.SIGINT)[turn // len(FORMATS) % 2]
        out = folder / f"signal{turn}" / f"out.{form}"
        out.parent.mkdir()
        process = start(out, calm.listed)
        wait_for_work(process)
        sent = wait_or(process, chance.uniform(0, calm.seconds[form]), number)
        # Python itself, when it is ending, no longer listens: the run is complete then.
        code = one_line(process, (0, 130, -number))
        if code == -number:
            check_complete(out, calm.rows[form])
        count[f"{signal.Signals(number).name if sent else 'faster'}, {form}: exit code {code}"] += 1
        if out.exists():
            read_rows(out)
        assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]
        finish(out, calm, form)
    return count


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A tmpfs of so many KiB; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disks(folder: Path, runs: int, chance: random.Random) -> Counter[str]:
    """Score to a disk that is too small; make room; the same command goes on."""
    calm = prepare(folder)
    count: Counter[str] = Counter()
    for form in FORMATS:
        needed = sum(path.stat().st_size for path in folder.glob(f"calm.{form}*")) // 1024
        full = turn = 0
        while full < runs:
            turn += 1
            with small_disk(folder / f"disk-{form}-{turn}", 4 * needed + 8192) as place:
                ballast = place / "ballast"
                with ballast.open("wb") as file, contextlib.suppress(OSError):
                    left = chance.randrange(16, needed + 3000) * 1024
                    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
                    file.write(b"\0" * max(0, free - left))
                out = place / f"out.{form}"
                code = one_line(start(out, calm.listed), (0, 3))
                count[f"{form}: exit code {code}"] += 1
                full += code == 3
                if out.exists() and code == 3 and form != "parquet":
                    count[f"{form}: rows kept"] += len(read_rows(out))
                ballast.unlink()
                finish(out, calm, form)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["kills", "disks", "signals"])
    parser.add_argument(
        "--runs", type=int, help="kills: 120 in all; disks: 14 and signals: 20 for each format"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run, usual = {"kills": (kills, 120), "disks": (disks, 14), "signals": (signals, 20)}[options.what]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        count = run(Path(folder), options.runs or usual, random.Random(options.seed))
    for name, number in sorted(count.items()):
        print(f"{number:6,}  {name}")
    print(f"{time.monotonic() - begin:.0f} s; every output identical to that of a run without trouble")


if __name__ == "__main__":
    run_scoring(*sys.argv[2:]) if sys.argv[1:2] == ["run"] else main()
