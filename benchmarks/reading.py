"""What it costs to read a clip: processor seconds of vidcls beside those of a plain loop, and of decoding alone.

For each clip and resize rule, all frames that the views of a model want are read

- by vidcls, as `vidcls score` does (one thread, a warm process): opened, indexed, decoded, resized;
- by a plain loop over PyAV in one thread, in this process, which knows beforehand which frames are wanted: decode,
  `frame.reformat` of those to the model's size, stop after the last one;
- the same with one reformatter kept, where PyAV gives each frame a new one otherwise;
- by the same loop without conversion: decoding alone.

They take turns, round by round; the ratio is of the medians, in processor seconds (user and system, of this process and
of its decoder).

    python benchmarks/reading.py [--rule swscale] [--decoder auto] [--rounds 5] [--make-1080p] CLIP ...
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
from av.video.reformatter import VideoReformatter
from table import markdown

from vidcls.config import InputSpec
from vidcls.inference.load import load
from vidcls.video.reader import VideoReader
from vidcls.views.transform import FrameTransform, frame_transform, plan_clips

REPEATS = 5  # in a round: the system counts processor time in ticks of 10 ms


class Reading:
    """One clip, and the ways to read it."""

    def __init__(self, path: str, spec: InputSpec, decoder: str, threads: int | None) -> None:
        self.path = path
        self._spec = spec
        self._transform: FrameTransform = frame_transform(spec)
        self._reader = VideoReader(decoder, threads=threads)
        self._info = self._reader.open(path)
        self.wanted = self._plan()
        self._reader.read(self.wanted, self._transform)
        with av.open(path) as container:
            self._stream = container.streams.best("video").index

    def _plan(self) -> np.ndarray:
        info = self._info
        return plan_clips(
            self._spec,
            num_frames=info.num_frames,
            fps=info.fps,
            timestamps=info.timestamps,
            target_fps="auto",
        ).unique

    def vidcls(self) -> None:
        self._info = self._reader.open(self.path)
        self._reader.read(self._plan(), self._transform)

    def plain(self, convert: Callable[[Any, tuple[int, int]], object] | None) -> None:
        size = self._size()
        wanted = set(self.wanted.tolist())
        with av.open(self.path) as container:
            stream = container.streams[self._stream]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                if convert is not None and number in wanted:
                    convert(frame, size)
                if number >= self.wanted[-1]:
                    return

    def _size(self) -> tuple[int, int]:
        """The model's size (h, w) for the whole picture."""
        short, (height, width) = int(self._spec.resize), (self._info.height, self._info.width)  # type: ignore[arg-type]
        return (short, short * width // height) if height < width else (short * height // width, short)

    def processor_seconds(self) -> float:
        """Of this process, and of the decoder below it."""
        worker = self._reader._worker
        assert worker is not None
        times = psutil.Process(worker._process.pid).cpu_times()
        return time.process_time() + times.user + times.system

    def close(self) -> None:
        self._reader.close()


def each_new(frame: Any, size: tuple[int, int]) -> object:
    return frame.reformat(width=size[1], height=size[0], format="rgb24").to_ndarray()


def one_kept() -> Callable[[Any, tuple[int, int]], object]:
    kept = VideoReformatter()

    def convert(frame: Any, size: tuple[int, int]) -> object:
        return kept.reformat(frame, width=size[1], height=size[0], format="rgb24").to_ndarray()

    return convert


def measure(path: str, spec: InputSpec, decoder: str, threads: int | None, rounds: int) -> dict[str, Any]:
    """Median processor seconds of each way, and the ratios."""
    reading = Reading(path, spec, decoder, threads)
    ways: dict[str, Callable[[], object]] = {
        "vidcls": reading.vidcls,
        "plain": lambda: reading.plain(each_new),
        "plain, one reformatter": lambda: reading.plain(one_kept()),
        "decode": lambda: reading.plain(None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = reading.processor_seconds()
            for _ in range(REPEATS):
                way()
            seconds[name].append((reading.processor_seconds() - begin) / REPEATS)
    reading.close()
    median = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "clip": Path(path).name,
        "frames": len(reading.wanted),
        "seconds": {name: round(value, 4) for name, value in median.items()},
        "times_plain": round(median["vidcls"] / median["plain"], 2),
        "times_one_reformatter": round(median["vidcls"] / median["plain, one reformatter"], 2),
    }


def make_1080p(folder: str) -> str:
    """Ten seconds of moving noise and gradients, H.264 with B-frames, as a camera's file is."""
    path = str(Path(folder, "1080p.mp4"))
    noise = np.random.default_rng(0).integers(0, 80, (1200, 2080), np.uint8)
    slope = np.linspace(0, 150, 2080)[None, :].astype(np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(250):
            y, x = number % 100, number * 3 % 150
            gray = (noise + slope)[y : y + 1080, x : x + 1920]
            picture = np.stack([gray, np.roll(gray, number, 0), 255 - gray], -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", metavar="CLIP", nargs="*")
    parser.add_argument("--model", help="whose views are read; the bundled one by default")
    parser.add_argument("--rule", help="its resize rule, if another one than its own")
    parser.add_argument("--decoder", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="0: as for a single clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--make-1080p", action="store_true", help="measure a clip of that size too, made here"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with load(options.model, random_weights=options.model is not None) as model:
        spec = model.spec.input
    if options.rule:
        spec = spec.model_copy(update={"resize_rule": options.rule})
    with tempfile.TemporaryDirectory() as folder:
        clips = [*options.clips, *([make_1080p(folder)] if options.make_1080p else [])]
        found = [
            measure(clip, spec, options.decoder, options.threads or None, options.rounds) for clip in clips
        ]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    headings = ["clip", "frames", *found[0]["seconds"], "vidcls : plain", "vidcls : one reformatter"]
    rows = [
        [row["clip"], str(row["frames"]), *(f"{s:.4f}" for s in row["seconds"].values()),
         f"{row['times_plain']:.2f}", f"{row['times_one_reformatter']:.2f}"]
        for row in found
    ]  # fmt: skip
    print(markdown([headings, *rows]))


if __name__ == "__main__":
    main()
