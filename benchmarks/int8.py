"""What int8 costs in accuracy and gains in speed, on the bundled model and on one that is trained here for the purpose.

    vidcls synthesize camera-motion calibration --clips 24 --seed 11
    vidcls synthesize camera-motion test --clips 400 --seed 12
    python benchmarks/int8.py --calibrate calibration --test test

Calibration and quantization are those of ``vidcls export --precision int8``; the clips of --test were never seen. Each
folder of --test has a labels.csv. The second model is TimeSformer (divided) of `motion_ablation`, trained for --steps
on moving blobs and tested on 1024 others. Intervals are 95 % and paired (Agresti and Min 2005): both answers to one
clip make a pair. Speed is in processor seconds of forward passes that take turns in one run, on one thread; the best of
--rounds counts. Writes results/int8.json beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import motion_ablation
import numpy as np
import torch
from numpy.typing import NDArray

from vidcls.engines import Engine, make_engine
from vidcls.engines.export import openvino_parts
from vidcls.engines.openvino import OpenVINOEngine
from vidcls.engines.quantize import quantize
from vidcls.errors import DeviceError
from vidcls.inference.export import calibration_inputs
from vidcls.inference.load import load
from vidcls.zoo.find import find_model

Logits = NDArray[np.float32]
RESULTS = Path(__file__).parent / "results" / "int8.json"


@dataclass(frozen=True)
class Clips:
    """Labeled clips: the views (v, c, t, h, w) of each, and its class."""

    views: list[NDArray[np.float32]]
    truth: NDArray[np.int64]


def read_folder(folder: Path, labels: tuple[str, ...]) -> Clips:
    """The clips of a folder with a labels.csv, as the bundled model sees them."""
    with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with load(engine="eager") as classifier:
        views = [np.asarray(classifier.read(str(folder / row["path"])).views) for row in rows]
    return Clips(views, np.array([labels.index(row["label"]) for row in rows]))


def engines(
    model: torch.nn.Module, sizes: tuple[int, int, int], seen: list[NDArray[np.float32]]
) -> dict[str, Engine]:
    """The model in each precision that this processor has; int8 is calibrated on the views (v, c, t, h, w) of clips."""
    frames, height, width = sizes
    parts, exact = openvino_parts(model, frames, (height, width)), make_engine(model, "cpu", "fp32", "eager")
    found: dict[str, Engine] = {
        "fp32": exact,
        "fp32 openvino": OpenVINOEngine(parts, "fp32", exact.unit_frames),
    }
    try:
        found["bf16"] = OpenVINOEngine(parts, "bf16", exact.unit_frames)
    except DeviceError as error:
        print(error, file=sys.stderr)
    smaller = quantize(parts, calibration_inputs(seen, exact.unit_frames))
    found["int8"] = OpenVINOEngine(smaller, "int8", exact.unit_frames)
    return found


def logits(engine: Engine, clips: Clips) -> Logits:
    """Mean over the views of each clip, (clips, k)."""
    return np.stack([engine(views).mean(axis=0) for views in clips.views])


def compare(exact: Logits, other: Logits, truth: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy of both, and the difference in points with its paired interval."""
    before, after = exact.argmax(1) == truth, other.argmax(1) == truth
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    count, b, c = len(truth) + 2, lost + 0.5, won + 0.5
    middle, spread = (c - b) / count, 1.96 * math.sqrt(b + c - (c - b) ** 2 / count) / count
    return {
        "top1_fp32": round(100 * float(before.mean()), 2),
        "top1": round(100 * float(after.mean()), 2),
        "points": round(100 * (won - lost) / len(truth), 2),
        "interval": [round(100 * (middle - spread), 2), round(100 * (middle + spread), 2)],
        "lost": lost,
        "won": won,
        "same_top1": round(100 * float((exact.argmax(1) == other.argmax(1)).mean()), 2),
        "logit_error_mean": float(f"{np.abs(exact - other).mean():.3g}"),
        "clips": len(truth),
    }


def seconds(found: dict[str, Engine], views: NDArray[np.float32], rounds: int) -> dict[str, float]:
    """Processor seconds of a forward pass in each precision, the best of some rounds in turns."""
    best = dict.fromkeys(found, math.inf)
    for _ in range(rounds + 1):  # the first compiles
        for name, engine in found.items():
            begun = time.process_time()
            engine(views)
            best[name] = min(best[name], time.process_time() - begun)
    return best


def judge(found: dict[str, Engine], sets: dict[str, Clips], rounds: int) -> dict[str, Any]:
    """Accuracy on each set and speed of one model in each precision."""
    took = seconds(found, np.concatenate(next(iter(sets.values())).views[:8]), rounds)
    report: dict[str, Any] = {"speed_ratio": {n: round(took["fp32"] / t, 2) for n, t in took.items()}}
    for name, clips in sets.items():
        exact = logits(found["fp32"], clips)
        report[name] = {
            precision: compare(exact, logits(engine, clips), clips.truth)
            for precision, engine in found.items()
            if precision in ("bf16", "int8")
        }
        print(json.dumps({name: report[name]}, indent=1), flush=True)
    return report


def bundled(calibrate: Path, tests: Iterable[Path], rounds: int) -> dict[str, Any]:
    """The bundled model, calibrated on one folder and judged on others."""
    found = find_model()
    labels = found.facts.labels or ()
    seen = read_folder(calibrate, labels).views
    view = found.facts.spec.input
    sizes = (view.num_frames, *view.image_size)
    return judge(
        engines(found.module(), sizes, seen),
        {str(folder.name): read_folder(folder, labels) for folder in tests},
        rounds,
    )


def trained(steps: int, rounds: int) -> dict[str, Any]:
    """A small TimeSformer trained on moving blobs."""
    design = next(d for d in motion_ablation.DESIGNS if d.architecture == "timesformer-divided")
    model, _ = motion_ablation.fit(design, motion_ablation.Setting(steps=steps))
    calibration, _ = motion_ablation.make_batch(motion_ablation.TEST_SEED + 1, 0, 24)
    views, truth = motion_ablation.make_batch(motion_ablation.TEST_SEED, 0, motion_ablation.TEST_CLIPS)
    sizes = (motion_ablation.FRAMES, motion_ablation.SIDE, motion_ablation.SIDE)
    return judge(
        engines(model.eval(), sizes, list(calibration[:, None].numpy())),
        {"moving blobs": Clips(list(views[:, None].numpy()), truth.numpy())},
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calibrate", type=Path, required=True, help="folder of clips to calibrate on")
    parser.add_argument("--test", type=Path, action="append", required=True, help="folder with labels.csv")
    parser.add_argument("--steps", type=int, default=600, help="training steps of the second model; 0: none")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {"camera-motion": bundled(arguments.calibrate, arguments.test, arguments.rounds)}
    if arguments.steps:
        results["timesformer-divided, trained here"] = trained(arguments.steps, arguments.rounds)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: result["speed_ratio"] for name, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
