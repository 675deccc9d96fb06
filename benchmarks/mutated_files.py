"""Thousands of damaged files through ``vidcls score``: every one gets its row, and nothing crashes, hangs or is left.

    python benchmarks/mutated_files.py [--count 15000] [--seed 0] [--keep FOLDER]

Tiny clips in 20 containers and codecs are damaged in ten ways: bits flipped, bytes set, parts cut, zeroed, doubled or
exchanged, numbers in headers changed, two files joined. Ends with an error if

- the command ends otherwise than with 0 or 1, or prints a traceback;
- an input has no row or two, or a row has neither predictions nor an error;
- a row's frame rate, duration or number of seconds is absurd and it has no warning;
- a process or a temporary file is left behind.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.clips import make_clip

FRAMES = 12
SANE_FPS = (0.1, 1000.0)
SANE_DURATION = 3600.0  # seconds; of half a second's clips
LIMIT = 120.0  # seconds that a row may take

# name → make_clip's arguments
CLIPS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264-faststart.mp4": {"faststart": True, "bframes": 2, "options": {"preset": "veryfast"}},
    "h264-sound.mov": {"audio": True},
    "h264-turned.mov": {"rotation": 90},
    "h264.mkv": {"bframes": 2, "options": {"preset": "veryfast"}},
    "h264.ts": {"bframes": 2, "options": {"preset": "veryfast"}},
    "h264.flv": {},
    "hevc.mp4": {"codec": "libx265"},
    "hevc.mkv": {"codec": "libx265"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4-b.avi": {"codec": "mpeg4", "bframes": 2},
    "mpeg4.3gp": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg1.ts": {"codec": "mpeg1video"},
    "wmv2.wmv": {"codec": "wmv2"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "av1.mkv": {"codec": "libsvtav1"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}

Bytes = np.ndarray
Mutation = Callable[[Bytes, np.random.Generator, list[Bytes]], Bytes]


def _spot(data: Bytes, rng: np.random.Generator, share: float = 0.2) -> slice:
    start = int(rng.integers(len(data)))
    return slice(start, start + int(rng.integers(1, max(2, int(share * len(data))))))


def _flip(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    at = rng.integers(0, len(data), int(rng.choice([1, 4, 32, 256])))
    data[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
    return data


def _set(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    data[rng.integers(0, len(data), int(rng.choice([1, 8, 64])))] = rng.choice([0, 1, 127, 128, 255])
    return data


def _cut(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    return data[: int(rng.integers(1, len(data)))]


def _behead(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    return data[int(rng.integers(1, max(2, len(data) // 4))) :]


def _delete(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    return np.delete(data, _spot(data, rng))


def _zero(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    data[_spot(data, rng)] = 0
    return data


def _double(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    part = data[_spot(data, rng)]
    at = int(rng.integers(len(data)))
    return np.concatenate([data[:at], *[part] * int(rng.integers(1, 5)), data[at:]])


def _exchange(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    half = len(data) // 2
    length = int(rng.integers(1, max(2, half // 2)))
    a, b = int(rng.integers(half - length + 1)), half + int(rng.integers(half - length + 1))
    data[a : a + length], data[b : b + length] = data[b : b + length].copy(), data[a : a + length].copy()
    return data


def _edit_header(data: Bytes, rng: np.random.Generator, _: list[Bytes]) -> Bytes:
    """Numbers of two, four or eight bytes near the start or the end, where headers and indices are."""
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.choice([2, 4, 8]))
        near = int(rng.integers(min(1500, len(data) - size)))
        at = near if rng.random() < 0.6 else len(data) - size - near
        value = int(rng.choice([0, 1, 2, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 90_000]))
        data[at : at + size] = np.frombuffer((value % (1 << 8 * size)).to_bytes(size, "big"), np.uint8)
    return data


def _join(data: Bytes, rng: np.random.Generator, others: list[Bytes]) -> Bytes:
    other = data if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    return np.concatenate([data, other[int(rng.integers(0, 64)) :]])


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _set,
    _cut,
    _behead,
    _delete,
    _zero,
    _double,
    _exchange,
    _edit_header,
    _join,
)


def write_files(folder: Path, count: int, seed: int) -> None:
    """Damaged files of all kinds in equal numbers; every fifth is damaged twice."""
    clean = folder.parent / "clean"
    clean.mkdir(exist_ok=True)
    originals = {}
    for name, arguments in CLIPS.items():
        path = make_clip(clean / name, FRAMES, **{"size": (48, 64), "gop": 5, **arguments})
        originals[name] = np.frombuffer(path.read_bytes(), np.uint8)
    names, others = list(originals), list(originals.values())
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        name = names[number % len(names)]
        data = originals[name].copy()
        for _ in range(1 + (number % 5 == 0)):
            mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
            if len(data) > 16:
                data = mutation(data, rng, others)
        stem, suffix = name.split(".")
        (folder / f"{number:06d}-{stem}.{suffix}").write_bytes(data.tobytes())


def faults_of(row: dict[str, Any]) -> list[str]:
    """What must not be in a row."""
    if row["error"] is not None:
        return [] if row["error_kind"] and "Traceback" not in row["error"] else ["an error without a kind"]
    found = [] if row["predictions"] else ["neither predictions nor an error"]
    fps, duration = row["fps"] or 0.0, row["duration"] or 0.0
    if not math.isfinite(fps + duration):
        found.append("times that are no numbers")
    absurd = not SANE_FPS[0] <= fps <= SANE_FPS[1] or not 0 < duration <= SANE_DURATION
    if absurd and not about_the_file(row):
        found.append(f"{fps:g} frames a second, {duration:g} s, and no warning")
    return found


def about_the_file(row: dict[str, Any]) -> list[str]:
    """A row's warnings but for the one that all of these clips get: they are short."""
    return [warning for warning in row["warnings"] if not warning.startswith("too short")]


def processes_of(session: int) -> list[str]:
    """Command lines of the processes that a run has left behind, by the variable it was started with."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            if f"VIDCLS_MUTATED_RUN={session}\0".encode() in environment:
                found.append(
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
                )
        except OSError:
            continue
    return found


def main() -> int:
    """Writes, scores and judges; the number of faults, at most 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=15_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="folder for the files and the rows, which are removed otherwise"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        folder, scratch, rows_file = root / "files", root / "tmp", root / "rows.jsonl"
        for needed in (folder, scratch):
            needed.mkdir(parents=True, exist_ok=True)
        write_files(folder, arguments.count, arguments.seed)
        started = time.monotonic()
        done = score(folder, rows_file, scratch)
        seconds = time.monotonic() - started
        found = judge(done, folder, rows_file, scratch)
    for fault in found[:50]:
        print(fault)
    print(f"{len(found)} faults in {arguments.count:,} files, {seconds:.0f} s", flush=True)
    return bool(found)


def score(folder: Path, rows_file: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command with the bundled model, which is small."""
    command = [
        sys.executable,
        "-m",
        "vidcls",
        "score",
        str(folder),
        "-o",
        str(rows_file),
        "--overwrite",
        "-q",
    ]
    command += ["--views", "1", "--decode-timeout", "20"]
    environment = {**os.environ, "TMPDIR": str(scratch), "VIDCLS_MUTATED_RUN": str(os.getpid())}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def judge(done: subprocess.CompletedProcess[str], folder: Path, rows_file: Path, scratch: Path) -> list[str]:
    """One line for each thing that is not as it must be; prints what the rows say in numbers."""
    found = []
    if done.returncode not in (0, 1):
        found.append(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    if "Traceback" in done.stderr:
        found.append(f"a traceback: {done.stderr[-2000:]}")
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.exists() else []
    counts = Counter(row["path"] for row in rows)
    wanted = {str(path) for path in folder.iterdir()}
    found += [f"{path}: no row" for path in sorted(wanted - set(counts))]
    found += [
        f"{path}: {counts[path]} rows" for path in sorted(counts) if counts[path] > 1 or path not in wanted
    ]
    found += [f"{row['path']}: {fault}" for row in rows for fault in faults_of(row)]
    found += [f"{row['path']}: took {row['seconds']:.0f} s" for row in rows if (row["seconds"] or 0) > LIMIT]
    found += [f"left behind: {command}" for command in processes_of(os.getpid())]
    found += [f"left behind: {path}" for path in scratch.rglob("*") if path.is_file()]
    kinds = Counter(row["error_kind"] or "scored" for row in rows)
    warned = sum(bool(about_the_file(row)) for row in rows)
    print(", ".join(f"{number} {kind}" for kind, number in kinds.most_common()), f"; {warned} with warnings")
    return found


if __name__ == "__main__":
    sys.exit(main())
