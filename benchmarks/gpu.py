"""Forward passes on a GPU: vidcls's engines and transformers' own models, in one process, on the same weights.

    python benchmarks/gpu.py -o benchmarks/results/gpu.json

Each model runs in bf16 on views that are on the device already; `call` is the whole engine call, with uint8 pixels sent
and logits brought back. Floating-point operations are those that the programs really do, counted by PyTorch (an
attention kernel counts as its two products), and the share is that of the best bf16 matrix product measured on the
same card. Programs take turns, round by round.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidcls.bench.machine import describe, peak_matmul
from vidcls.bench.reference import COMPARABLE, save_reference
from vidcls.bench.worker import pixels_of
from vidcls.config import load_registry
from vidcls.engines import make_engine
from vidcls.errors import VidclsError
from vidcls.inference.load import load
from vidcls.views.transform import normalize, pixel_scale_shift

MODELS = ("vivit-st", "vivit-fe", "timesformer-divided", "videomae-b", "vtn")
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--batch", type=int, action="append", help="views that go through together; repeat")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one program in one round")
    parser.add_argument(
        "--compile",
        type=int,
        metavar="BATCH",
        help="measure torch.compile too, in this batch: it takes minutes",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/gpu.json"))
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: Row = {"machine": describe(), "device": device, "rows": []}
    if device == "cuda":
        record["device"] = torch.cuda.get_device_name()
    record["peak_gflops_per_second"] = peak = peak_matmul(device, "bf16")
    print(f"{record['device']}: bf16 matrix product {(peak or 0) / 1e3:.0f} TFLOP/s", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        for row in measure(name, device, args):
            row["share_of_peak"] = row["gflops_per_second"] / peak if peak else None
            record["rows"].append(row)
            print(line(row), flush=True)
        args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def line(row: Row) -> str:
    """One row for people."""
    share = "-" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
    return (
        f"{row['model']:20} {row['program']:14} batch {row['batch']:3}: {row['seconds'] * 1e3:8.2f} ms, "
        f"{row['views_per_second']:8.1f} views/s, {row['gflops_per_second'] / 1e3:6.1f} TFLOP/s, {share} of peak, "
        f"{row['times_transformers'] or 0:.2f} x transformers, error {row['error']:.0e}"
    )


def measure(name: str, device: str, args: argparse.Namespace) -> list[Row]:
    """Measure one model in every batch."""
    with tempfile.TemporaryDirectory(prefix="vidcls-gpu-") as folder:
        known = load_registry()[name]
        weights: Row = {"random_weights": True}
        if comparable := known.architecture in COMPARABLE:
            save_reference(known.architecture, known.config, folder)
            weights = {"weights": folder}
        plain = {"engine": "eager", "device": device, "precision": "fp32"}
        with load(name, **weights, **plain) as classifier:
            spec = classifier.spec.input
            indices = np.arange(spec.num_frames)[None] if classifier.uses_frame_indices else None
            module = classifier.engine.module  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32 = False
        exact = _logits(make_engine(module, device, "fp32"), spec, indices)
        engines = {kind: make_engine(module, device, "bf16", kind) for kind in ("eager", "compile")}
        theirs = None
        if comparable:
            theirs = _transformers_in_bf16(folder, device)
        rows = []
        for batch in args.batch or (1, 8, 32):
            wanted = {k: engine for k, engine in engines.items() if k == "eager" or batch == args.compile}
            rows += _batch(name, batch, wanted, theirs, spec, indices, exact, device, args)
    del module, engines, theirs
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return rows


def _transformers_in_bf16(folder: str, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    import transformers

    model = transformers.AutoModelForVideoClassification.from_pretrained(folder)
    model = model.to(device=device, dtype=torch.bfloat16).eval()
    return lambda views: model(views.transpose(1, 2)).logits


def _logits(engine: Any, spec: Any, indices: Any) -> np.ndarray:
    logits: np.ndarray = engine(pixels_of(spec, 1), indices, pixel_scale_shift(spec))[0]
    return logits


def _batch(
    name: str,
    batch: int,
    engines: Row,
    theirs: Callable[[torch.Tensor], torch.Tensor] | None,
    spec: Any,
    indices: Any,
    exact: np.ndarray,
    device: str,
    args: argparse.Namespace,
) -> list[Row]:
    pixels = pixels_of(spec, batch)
    pixels[0] = pixels_of(spec, 1)[0]
    views = torch.from_numpy(normalize(pixels, spec)).to(device=device, dtype=torch.bfloat16)
    positions = (
        {} if indices is None else {"frame_indices": torch.from_numpy(indices).to(device).repeat(batch, 1)}
    )
    many = None if indices is None else indices.repeat(batch, 0)
    runs: dict[str, Callable[[], Any]] = {}
    for kind, engine in engines.items():
        runs[kind] = lambda engine=engine: engine._forward(views, **positions)
        runs[f"{kind} call"] = lambda engine=engine: engine(pixels, many, pixel_scale_shift(spec))
    if theirs is not None:
        runs["transformers"] = lambda: theirs(views)
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    flops, logits = {}, {}
    with torch.inference_mode():
        for kind, run in runs.items():
            if kind in ("eager", "transformers"):
                with FlopCounterMode(display=False) as counter:
                    run()
                flops[kind] = counter.get_total_flops()
            for _ in range(3):  # compiles, captures graphs, fills caches
                result = run()
            logits[kind] = np.asarray(result[0].float().cpu() if torch.is_tensor(result) else result[0])
        for _ in range(args.rounds):
            for kind, run in runs.items():
                times[kind] += _times(run, device, args.seconds)
    base = statistics.median(times["transformers"]) if theirs is not None else None
    rows = []
    for kind in runs:
        seconds = statistics.median(times[kind])
        done = flops["transformers" if kind == "transformers" else "eager"]
        rows.append(
            {
                "model": name,
                "program": kind,
                "precision": "bf16",
                "batch": batch,
                "seconds": seconds,
                "repetitions": len(times[kind]),
                "views_per_second": batch / seconds,
                "gflops": done / 1e9,
                "gflops_per_second": done / 1e9 / seconds,
                "times_transformers": base and base / seconds,
                "error": float(np.abs(logits[kind] - exact).max()),
            }
        )
    return rows


def _times(run: Callable[[], Any], device: str, seconds: float) -> list[float]:
    """Seconds of each of a row of calls, by the device's own clock."""
    import time

    end, times = time.perf_counter() + seconds, []
    while time.perf_counter() < end or len(times) < 3:
        if device == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        else:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VidclsError as error:
        sys.exit(f"{error}")
