"""Forward passes in turn, in one process: what else runs on the machine then hits all programs alike.

python benchmarks/forward.py vivit-st [-n 3] [-o benchmarks/results/forward-vivit-st.json]

`vidcls bench` measures each engine in a process of its own, one after the other, and gives peak memory as well; on a
machine that is busy with other things its ratios wander, these do so less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidcls.bench.machine import describe, peak_matmul
from vidcls.bench.reference import COMPARABLE, load_reference, save_reference
from vidcls.bench.timing import summarize
from vidcls.bench.worker import clip_of, pixels_of
from vidcls.engines import Engine, make_engine, unit_frames
from vidcls.engines.export import openvino_parts
from vidcls.engines.openvino import OpenVINOEngine
from vidcls.engines.torch import cpu_has_bf16
from vidcls.inference.load import load
from vidcls.inference.shared_units import score_clip
from vidcls.models.count import count_architecture
from vidcls.views.transform import normalize, pixel_scale_shift


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=3, help="rounds")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--frames", type=int, help="of a view, for models that take any number")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    output = args.output or Path(f"benchmarks/results/forward-{args.model}.json")
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="vidcls-forward-") as folder:
        rows = measure(args.model, args.n, args.int8, args.frames, folder)
    peaks = {precision: peak_matmul("cpu", precision) for precision in {row["precision"] for row in rows}}
    for row in rows:
        peak = peaks[row["precision"]]
        row |= {"peak_gflops_per_second": peak, "share_of_peak": peak and row["gflops_per_second"] / peak}
    record = {"machine": machine, "rows": rows}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for row in record["rows"]:
        print(row["engine"], row["precision"], row["seconds"], row["error"])
    return 0


def measure(name: str, rounds: int, int8: bool, frames: int | None, folder: str) -> list[dict[str, Any]]:
    """Run every program once in each round."""
    plain: dict[str, Any] = {"engine": "eager", "device": "cpu", "precision": "fp32", "num_frames": frames}
    classifier = load(name, random_weights=True, **plain)
    comparable = classifier.spec.architecture in COMPARABLE
    if comparable:
        save_reference(classifier.spec.architecture, classifier.spec.config, folder)
        classifier = load(name, weights=folder, **plain)
    spec, scale_shift = classifier.spec.input, pixel_scale_shift(classifier.spec.input)
    eager: Any = getattr(classifier.engine, "engine", classifier.engine)
    module = eager.module
    # On the meta device: the counter does not know the kernel that attention has on a CPU.
    counted = count_architecture(
        classifier.spec.architecture, dict(classifier.spec.config), spec.num_frames, spec.image_size
    )
    programs = engines(classifier, module, int8)
    pixels = pixels_of(spec, 1)
    indices = np.arange(spec.num_frames)[None] if classifier.uses_frame_indices else None
    runs: dict[tuple[str, str], Callable[[], Any]] = {
        kind: (lambda engine=engine: engine(pixels, indices, scale_shift)[0])
        for kind, engine in programs.items()
    }
    if comparable:
        forward, views = load_reference(folder, "cpu"), torch.from_numpy(normalize(pixels, spec))
        runs["transformers", "fp32"] = lambda: forward(views)[0].numpy()
    times: dict[tuple[str, str], list[float]] = {kind: [] for kind in runs}
    busy: dict[tuple[str, str], list[float]] = {kind: [] for kind in runs}
    logits = {}
    for number in range(rounds + 1):
        for kind, run in runs.items():
            start, processor = time.perf_counter(), time.process_time()
            with torch.inference_mode():
                logits[kind] = run()
            if number:  # the first round is warm-up
                times[kind].append(time.perf_counter() - start)
                busy[kind].append(time.process_time() - processor)
        print(f"round {number}", file=sys.stderr, flush=True)
    shared = None
    if eager.unit_frames:
        clip = clip_of(spec)
        shared = score_clip(eager, clip, clip.view_indices if classifier.uses_frame_indices else None)[1]
    classifier.close()
    return [
        {
            "model": name,
            "engine": kind[0],
            "precision": kind[1],
            "seconds": summarize(times[kind], busy[kind])._asdict(),
            "gflops_per_second": 2 * counted.macs / 1e9 / float(np.median(times[kind])),
            "gmacs": counted.macs / 1e9,
            "frames": spec.num_frames,
            "params": counted.params,
            "units": shared,
            "error": float(np.abs(logits[kind] - logits["eager", "fp32"]).max()),
            "failed": None,
        }
        for kind in runs
    ]


def engines(classifier: Any, module: torch.nn.Module, int8: bool) -> dict[tuple[str, str], Engine]:
    """Make all engines of a model."""
    import copy

    from vidcls.bench.worker import _ready

    spec, unit = classifier.spec.input, unit_frames(module)
    parts = openvino_parts(module, spec.num_frames, spec.image_size)
    made: dict[tuple[str, str], Engine] = {
        ("eager", "fp32"): make_engine(module, "cpu", "fp32", "eager"),
        ("openvino", "fp32"): OpenVINOEngine(parts, "fp32", unit),
    }
    if cpu_has_bf16():
        made["eager", "bf16"] = make_engine(copy.deepcopy(module), "cpu", "bf16", "eager")
        made["openvino", "bf16"] = OpenVINOEngine(parts, "bf16", unit)
    if int8:
        wanted = {"model": classifier.spec.name, "weights": None, "random_weights": True}
        if classifier.weights != "random":
            wanted |= {"weights": classifier.weights, "random_weights": False}
        ready, _ = _ready({**wanted, "engine": "openvino", "precision": "int8", "device": "cpu"})
        made["openvino", "int8"] = ready.engine
    return made


if __name__ == "__main__":
    sys.exit(main())
