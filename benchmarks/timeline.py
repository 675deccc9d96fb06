"""An hour of film through `vidcls timeline`: how fast, in how much memory, and how much of the time is labeled right.

python benchmarks/timeline.py [--seconds 3600] [--folder FOLDER] [-o benchmarks/results/timeline.json]

The film (340x256, 25 frames a second, H.264, a key frame every 250) shows the bundled model's ten camera motions one
after the other, each for 5 to 9 seconds before a picture of its own, at known times. Ten minutes are rendered; a longer
film repeats them. The command runs as a person would run it, in fresh processes: once to a file, once to a pipe for the
time of the first segment; memory is that of the command and its decoding process together, sampled.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.timeline.films import Section, make_film, random_sections, true_labels
from vidcls.bench.machine import describe

RENDERED = 600.0  # seconds
SIZE = (256, 340)
FPS = 25


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--folder", type=Path, help="where the film is kept; by default it is not")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vidcls-timeline-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        film, sections = film_of(folder, args.seconds, args.seed)
        record = {"machine": describe(), "seconds_of_film": args.seconds, **measure(film, Path(temporary))}
        record |= accuracy(json.loads((Path(temporary) / "out.json").read_text())[0], sections)
    if args.output is not None:
        args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))
    return 0


def film_of(folder: Path, seconds: float, seed: int) -> tuple[Path, list[Section]]:
    """Make the film, or take the one that is there."""
    length = min(seconds, RENDERED)
    part = random_sections(seed, length)
    rendered = folder / f"film-{length:g}-{seed}.mp4"
    if not rendered.exists():
        make_film(folder / "part.mp4", part, size=SIZE, fps=FPS, seed=seed, preset="veryfast")
        (folder / "part.mp4").rename(rendered)
    times = max(1, round(seconds / length))
    film = folder / f"film-{length * times:g}-{seed}.mp4"
    if not film.exists():
        repeat(rendered, film, times)
    return film, part * times


def repeat(source: Path, target: Path, times: int) -> None:
    """Put a film several times one after the other, without encoding it again."""
    with av.open(str(target), "w") as out, av.open(str(source)) as first:
        stream = out.add_stream_from_template(first.streams.video[0])
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
                shift += video.duration


def measure(film: Path, folder: Path) -> dict[str, Any]:
    """Run the command on a film."""
    command = [sys.executable, "-m", "vidcls", "timeline", str(film)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, "-o", str(folder / "out.json"), "--verbose"], stderr=subprocess.PIPE, text=True
    )
    memory: list[float] = []
    watch = threading.Thread(target=_watch, args=(process, memory))
    watch.start()
    said = process.communicate()[1]
    watch.join()
    seconds = time.monotonic() - start
    if process.returncode:
        sys.exit(f"the command failed: {said}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with av.open(str(film)) as container:
        length = container.duration / 1e6
    shared = re.search(r"([\d,]+) of ([\d,]+) frames or tubelets", said)
    assert shared is not None
    encoded, units = (int(number.replace(",", "")) for number in shared.groups())
    third = max(1, len(memory) // 3)
    return {
        "seconds": round(seconds, 2),
        "times_real_time": round(length / seconds, 1),
        "processor_seconds": round(processor, 2),
        "times_real_time_per_core": round(length / processor, 1),
        "first_segment_seconds": round(first_line(command), 2),
        "memory_mib": {
            "first_third": round(max(memory[:third])),
            "last_third": round(max(memory[-third:])),
            "peak": round(max(memory)),
        },
        "tubelets": units,
        "encoded": encoded,
        "saved_by_sharing": round(1 - encoded / units, 3),
    }


def _watch(process: subprocess.Popen[str], memory: list[float]) -> None:
    """Sum the memory of a process and its children, MiB, ten times a second."""
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0.0
        for one in [parent, *_children(parent)]:
            try:
                total += one.memory_info().rss / 2**20
            except psutil.Error:
                continue
        memory.append(total)
        time.sleep(0.1)


def _children(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return parent.children(recursive=True)
    except psutil.Error:
        return []


def first_line(command: list[str]) -> float:
    """Return the seconds until the first segment is printed; the command is ended then."""
    start = time.monotonic()
    process = subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the film's name comes with the first segment
    process.stdout.readline()
    seconds = time.monotonic() - start
    process.terminate()
    process.stdout.close()
    process.wait()
    return seconds


def accuracy(timeline: dict[str, Any], sections: list[Section]) -> dict[str, Any]:
    """Compare a timeline with what the camera did."""
    moments = np.arange(0.05, timeline["duration"], 0.1)
    starts = np.array([segment["start"] for segment in timeline["segments"]])
    ends = np.array([segment["end"] for segment in timeline["segments"]])
    labels = [segment["label"] for segment in timeline["segments"]]
    places = np.searchsorted(starts, moments, side="right") - 1
    shown = [
        labels[place] if place >= 0 and moment < ends[place] else None
        for place, moment in zip(places, moments, strict=True)
    ]
    right = np.mean([a == b for a, b in zip(shown, true_labels(sections, moments), strict=True)])
    true = np.cumsum([seconds for _, seconds in sections])[:-1]
    edges = np.sort(np.concatenate([starts, ends]))
    distance = np.abs(edges[:, None] - true[None]).min(0)
    return {
        "labeled_right": round(float(right), 4),
        "step": timeline["step"],
        "boundaries": len(true),
        "boundaries_within_one_step": round(float((distance <= timeline["step"]).mean()), 4),
        "boundary_error_median": round(float(np.median(distance)), 3),
    }


if __name__ == "__main__":
    raise SystemExit(main())
