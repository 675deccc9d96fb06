"""Own classes from real footage, offline: ``python benchmarks/own_classes.py ../shared/videos``.

Eight classes are cut from real footage: four that the camera makes (pans and zooms of a moving crop) and four that the
picture makes (black and white, pixelated, grain, snow). Training clips come from three scenes and test clips from two
others, so that a classifier that knows the scene knows nothing. Compared are linear probes of two published models, an
attentive probe and LoRA of one of them, and a small ViViT trained from random weights on the same clips: accuracy on
the test with its 95 % interval, and time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
SCENES = {
    "train": ("arm_wrestling.mp4", "mpeg4.avi", "rotated_0.mov"),
    "test": ("flipping_pancake.mkv", "two_video_streams.mp4"),
}
SIDE, FRAMES, FPS = 112, 64, 25


def black_and_white(picture: Picture, rng: np.random.Generator) -> Picture:
    """Without color."""
    return cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]


def pixelated(picture: Picture, rng: np.random.Generator) -> Picture:
    """Squares of eight pixels."""
    small = cv2.resize(picture, (SIDE // 8, SIDE // 8), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)  # type: ignore[return-value]


def grain(picture: Picture, rng: np.random.Generator) -> Picture:
    """Noise."""
    return np.clip(picture + rng.normal(0, 28, picture.shape), 0, 255).astype(np.uint8)


def snow(picture: Picture, rng: np.random.Generator) -> Picture:
    """White flakes."""
    picture = picture.copy()
    for x, y, size in zip(*rng.integers(0, SIDE, (2, 60)), rng.integers(1, 3, 60), strict=True):
        cv2.circle(picture, (int(x), int(y)), int(size), (245, 245, 250), -1)
    return picture


def plain(picture: Picture, rng: np.random.Generator) -> Picture:
    """As it is."""
    return picture


# What the crop does from the first to the last frame: where its center goes (x, of the room there is), and its size.
CLASSES: dict[str, tuple[tuple[float, float], tuple[float, float], Callable[..., Picture]]] = {
    "pan left": ((0.9, 0.1), (0.55, 0.55), plain),
    "pan right": ((0.1, 0.9), (0.55, 0.55), plain),
    "zoom in": ((0.5, 0.5), (0.9, 0.4), plain),
    "zoom out": ((0.5, 0.5), (0.4, 0.9), plain),
    "black and white": ((0.5, 0.5), (0.6, 0.6), black_and_white),
    "pixelated": ((0.5, 0.5), (0.6, 0.6), pixelated),
    "grain": ((0.5, 0.5), (0.6, 0.6), grain),
    "snow": ((0.5, 0.5), (0.6, 0.6), snow),
}


def scene(path: Path) -> list[Picture]:
    """The frames of a scene (h, w, 3), 240 pixels high."""
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24", width=240 * frame.width // frame.height, height=240)
            for frame in container.decode(container.streams.video[0])
        ]


def make_clip(path: Path, frames: list[Picture], label: str, rng: np.random.Generator) -> None:
    """Cut one clip out of a scene: from a random moment on, around a random place."""
    (x0, x1), (z0, z1), effect = CLASSES[label]
    first, speed = int(rng.integers(len(frames))), rng.uniform(0.7, 1.0)
    height, shift = rng.uniform(0.3, 0.7), rng.uniform(-0.1, 0.1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            at = 0.5 + speed * (number / (FRAMES - 1) - 0.5)
            size = z0 * (z1 / z0) ** at * min(frames[0].shape[:2])
            # Footage that is shorter than the clip goes back and forth.
            place = (first + number) % max(1, 2 * len(frames) - 2)
            picture = frames[min(place, 2 * len(frames) - 2 - place) if len(frames) > 1 else 0]
            room = np.array(picture.shape[1::-1]) - size
            left, top = room * np.clip((x0 + (x1 - x0) * at + shift, height), 0, 1)
            matrix = np.array([[size / SIDE, 0, left], [0, size / SIDE, top]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            crop = effect(cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=flags), rng)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(crop), "rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def make_lists(footage: Path, folder: Path, clips: int) -> dict[str, Path]:
    """Make ``clips`` of each class and scene, and a list for each part; a clip's group is its scene."""
    assert not set(SCENES["train"]) & set(SCENES["test"]), "a scene is on both sides"
    lists = {}
    for part, names in SCENES.items():
        rows = []
        for name in names:
            frames = scene(footage / name)
            rng = np.random.default_rng([len(name), *name.encode()])
            for label in CLASSES:
                for number in range(clips):
                    path = folder / part / f"{label.replace(' ', '-')}-{Path(name).stem}-clip{number}.mp4"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    make_clip(path, frames, label, rng)
                    rows.append((str(path), label, name))
        lists[part] = folder / f"{part}.csv"
        with lists[part].open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "group"), *rows])
    return lists


def run(*words: str, cache: Path) -> tuple[float, float]:
    """Run ``vidcls`` and return the seconds it took, and those of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "VIDCLS_CACHE": str(cache)}
    subprocess.run([sys.executable, "-m", "vidcls", *words], check=True, env=environment, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def tested(weights: Path, test: Path, folder: Path, cache: Path) -> dict[str, object]:
    """Accuracy on the test, with its interval, and each class's recall."""
    from vidcls.training.probe.figures import wilson

    run("evaluate", "--weights", str(weights), "--data", str(test), "-o", str(folder), "-q", cache=cache)
    report = json.loads((folder / "report.json").read_text())
    hits = round(report["top1"] * report["clips"])
    low, high = wilson(hits, report["clips"])
    recalls = {row["label"]: round(row["recall"], 3) for row in report["classes"]}
    return {
        "top1": report["top1"],
        "interval": [round(low, 3), round(high, 3)],
        "test_clips": report["clips"],
        "recalls": recalls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("footage", type=Path)
    parser.add_argument("--clips", type=int, default=6, help="of each class and scene")
    parser.add_argument("--epochs", type=int, default=30, help="of LoRA, and from random weights")
    parser.add_argument("--output", type=Path, help="write the figures as JSON here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lists = make_lists(given.footage, folder, given.clips)
        common = ("train", str(lists["train"]))
        trained = ("--epochs", str(given.epochs), "--lr", "0.002")
        probed = (*common, "--probe", "-m")
        commands = {
            "--probe -m camera-motion": (*probed, "camera-motion"),
            "--probe --probe-kind attentive -m camera-motion": (
                *probed, "camera-motion", "--probe-kind", "attentive",
            ),
            "--lora 8 -m camera-motion": (*common, "-m", "camera-motion", "--lora", "8", *trained),
            "--probe -m efficientnet-lite0": (*probed, "efficientnet-lite0"),
            "-m vivit-fe-tiny --init-from none": (*common, "-m", "vivit-fe-tiny", "--init-from", "none", *trained),
        }  # fmt: skip
        results = {}
        for name, words in commands.items():
            out = folder / name.strip("-").replace(" ", "-")
            seconds, used = run(*words, "-o", str(out), cache=folder / "cache")
            figures = tested(out / "best.safetensors", lists["test"], out / "test", folder / "cache")
            results[name] = {"seconds": round(seconds, 1), "processor_seconds": round(used, 1), **figures}
            print(json.dumps({name: results[name]}), flush=True)
        if given.output:
            training = sum(1 for _ in lists["train"].open()) - 1
            record = {"cores": os.cpu_count(), "training_clips": training, "results": results}
            given.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
