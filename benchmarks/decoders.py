"""Which decoder reads a clip fastest: decord, PyAV and torchcodec, over codecs, containers and sizes.

Clips of twelve seconds are made with the ffmpeg command. Of each, every second frame is read as full-size RGB: by
decord and PyAV as vidcls runs them (the index is there already), and by torchcodec, from the same numbers. Once with
one thread, as `vidcls score` reads clips side by side, in processor seconds; and once with as many as each takes, in
seconds. The last column is what vidcls knows against decord for such a file.

    python benchmarks/decoders.py [--only h264] [--rounds 3] [--json FILE] [CLIP ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from table import markdown

from vidcls.video.decoders import decoder_class
from vidcls.video.index import Index, build_index

SOURCES = {
    "340x256": "mandelbrot=size=340x256:rate=25,format=yuv420p",
    "1080p": "mandelbrot=size=480x270:rate=25,scale=1920:1080,format=yuv420p",
}
CLIPS = {
    "h264.mp4": "-c:v libx264 -pix_fmt yuv420p",
    "h264-no-b.mp4": "-c:v libx264 -pix_fmt yuv420p -bf 0",
    "h264-intra.mp4": "-c:v libx264 -pix_fmt yuv420p -g 1",
    "h264.mkv": "-c:v libx264 -pix_fmt yuv420p",
    "h264.flv": "-c:v libx264 -pix_fmt yuv420p -bf 0",
    "hevc-closed.mp4": "-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:open-gop=0",
    "mpeg4.mp4": "-c:v mpeg4 -q:v 3",
    "mpeg4.avi": "-c:v mpeg4 -q:v 3",
    "mpeg2.mkv": "-c:v mpeg2video -q:v 3",
    "vp8.mkv": "-c:v libvpx -deadline realtime -b:v 2M",
    "vp9.mp4": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 2M",
    "av1.mp4": "-c:v libsvtav1 -preset 12 -crf 40",
    "mjpeg.avi": "-c:v mjpeg -pix_fmt yuvj420p -q:v 3",
    "prores.mov": "-c:v prores_ks",
}  # fmt: skip
SECONDS = 12
OTHERS = ("decord ÷", "torchcodec ÷")


def make(folder: Path, only: str) -> list[str]:
    """The clips whose names contain ``only``."""
    made = []
    for size, source in SOURCES.items():
        for name, codec in CLIPS.items():
            path = folder / f"{size}-{name}"
            if only in path.name:
                command = [
                    "ffmpeg",
                    "-v",
                    "error",
                    "-f",
                    "lavfi",
                    "-i",
                    source,
                    "-t",
                    str(SECONDS),
                    *codec.split(),
                ]
                if subprocess.run([*command, str(path)], check=False).returncode == 0:
                    made.append(str(path))
    return made


def by_vidcls(name: str) -> Callable[[Index, list[int], int | None], None]:
    def read(index: Index, wanted: list[int], threads: int | None) -> None:
        for _ in decoder_class(name)(index, threads).read(wanted):
            pass

    return read


def by_torchcodec(index: Index, wanted: list[int], threads: int | None) -> None:
    from torchcodec.decoders import VideoDecoder  # loads torch: the first round is dearer

    decoder = VideoDecoder(index.path, num_ffmpeg_threads=threads or 0, dimension_order="NHWC")
    for first in range(0, len(wanted), 16):  # in pieces, as memory is bounded in the other ways too
        decoder.get_frames_at(wanted[first : first + 16])


WAYS = {"decord": by_vidcls("decord"), "pyav": by_vidcls("pyav"), "torchcodec": by_torchcodec}


def measure(path: str, rounds: int) -> dict[str, Any]:
    """Medians of the rounds by way: processor seconds with one thread, seconds with all."""
    index = build_index(path)
    wanted = list(range(0, index.num_frames, 2))
    processor: dict[str, list[float]] = {name: [] for name in WAYS}
    passed: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            try:
                begin = time.process_time()
                way(index, wanted, 1)
                processor[name].append(time.process_time() - begin)
                start = time.perf_counter()
                way(index, wanted, None)
                passed[name].append(time.perf_counter() - start)
            except Exception as error:  # each library has errors of its own
                print(f"{Path(path).name}: {name}: {str(error).splitlines()[0][:100]}", flush=True)
    return {
        "clip": Path(path).name,
        "not_exact": decoder_class("decord").misfit(index),
        "processor": {name: statistics.median(found) if found else None for name, found in processor.items()},
        "seconds": {name: statistics.median(found) if found else None for name, found in passed.items()},
    }


def line(row: dict[str, Any]) -> list[str]:
    """One row of the table: each way's figures as multiples of PyAV's."""
    cells = [row["clip"]]
    for kind in ("processor", "seconds"):
        base = row[kind]["pyav"]
        cells.append(f"{base:.3f}" if base else "-")
        cells += [
            f"{row[kind][name] / base:.2f}" if row[kind][name] else "-" for name in ("decord", "torchcodec")
        ]
    return [*cells, row["not_exact"] or "exact"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", metavar="CLIP", nargs="*")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = options.clips or make(Path(folder), options.only)
        rows = [measure(clip, options.rounds) for clip in clips]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    headings = ["clip", *("PyAV, processor s", *OTHERS), *("PyAV, s", *OTHERS), "decord is"]
    print(markdown([headings, *map(line, rows)]))


if __name__ == "__main__":
    main()
