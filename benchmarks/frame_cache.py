"""Epoch time with and without the cache of frames: ``python benchmarks/frame_cache.py ../shared/videos``.

A folder of clips is made of real footage, and a small model is trained on it for three epochs, once without the cache
and once with it. Said are each epoch's clips a second, the share of time that the model waited, and processor seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCES = ("arm_wrestling.mp4", "flipping_pancake.mkv", "mpeg4.avi", "two_video_streams.mp4")


def run(folder: Path, out: Path, cache: float, given: argparse.Namespace) -> dict[str, object]:
    """Train, and return the epochs' figures and the run's seconds."""
    command = [sys.executable, "-m", "vidcls", "train", str(folder), "-m", given.model, "--init-from", "none"]
    command += ["--val", "none", "--epochs", str(given.epochs), "--batch-size", "8", "-o", str(out), "-q"]
    environment = {**os.environ, "VIDCLS_CACHE": str(folder.parent / "cache")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "--cache-frames", str(cache)], check=True, env=environment, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [
        {key: round(row[key], 3) for key in ("epoch", "clips_per_s", "data_wait")}
        for row in rows
        if "epoch" in row
    ]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = time.perf_counter() - started
    return {"epochs": epochs, "seconds": round(seconds, 1), "processor_seconds": round(used, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", type=Path)
    parser.add_argument("--model", default="vivit-fe-tiny")
    parser.add_argument("--clips", type=int, default=8, help="copies of each of the four sources")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the figures as JSON here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "clips"
        for name in SOURCES:
            (folder / Path(name).stem).mkdir(parents=True)
            for number in range(given.clips):
                shutil.copy(given.footage / name, folder / Path(name).stem / f"{number}{Path(name).suffix}")
        runs = {}
        for cache in (0, 10):
            runs[str(cache)] = run(folder, Path(temporary) / str(cache), cache, given)
            print(json.dumps({f"cache of {cache} GB": runs[str(cache)]}), flush=True)
        size = sum(path.stat().st_size for path in (Path(temporary) / "cache").rglob("*.npy"))
        print(json.dumps({"cache_megabytes": round(size / 1e6)}))
    if given.output:
        record = {"cores": os.cpu_count(), "cache_megabytes": round(size / 1e6), "runs": runs}
        given.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
