"""What merging tokens gains and costs: processor time of a forward pass, and accuracy of models trained here.

python benchmarks/merging.py [--clips 100] [--weights FILE ...] [-o benchmarks/results/merging.json]

Accuracy is that of the bundled model, or of other classifiers of camera motion (`benchmarks/motion_ablation.py` trains
some), on clips synthesized here from a seed that no training used. Time is that of a model of VideoMAE-B's size with
random weights, which do not change it, in processor seconds of one view on one thread: exact and merged in turn, the
smallest of each.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import vidcls
from vidcls.bench.machine import describe
from vidcls.config import load_registry
from vidcls.models import build
from vidcls.models.merging import merge_tokens

SEED = 4711  # of the clips; training uses others


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--weights", nargs="*", default=[], help="more classifiers of camera motion")
    parser.add_argument("--shares", default="0,0.25,0.5,0.75")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--model", default="videomae-b", help="entry whose size is timed")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/merging.json"))
    args = parser.parse_args()
    shares = [float(share) for share in args.shares.split(",")]
    record: dict[str, Any] = {"machine": describe(), "speed": speed(args.model, shares, args.repetitions)}
    with tempfile.TemporaryDirectory(prefix="vidcls-merging-") as folder:
        clips = synthesized(Path(folder) / "clips", args.clips)
        record["accuracy"] = [accuracy(w, clips, shares) for w in ("camera-motion", *args.weights)]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: record[key] for key in ("speed", "accuracy")}, indent=2))
    return 0


def synthesized(folder: Path, count: int) -> list[tuple[str, str]]:
    """Make labeled clips of camera motion: paths and labels."""
    command = [sys.executable, "-m", "vidcls", "synthesize", "camera-motion", str(folder), "-q"]
    subprocess.run([*command, "--clips", str(count), "--seed", str(SEED)], check=True, stdout=sys.stderr)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
        return [(str(folder / row["path"]), row["label"]) for row in csv.DictReader(lines)]


def accuracy(model: str, clips: list[tuple[str, str]], shares: list[float]) -> dict[str, Any]:
    """Top-1 of each share, and how often the answer is the exact model's."""
    rows: list[dict[str, Any]] = []
    exact: list[str] = []
    for share in shares:
        with vidcls.load(model, merge_tokens=share, engine="eager") as classifier:
            labels = [
                p.row["predictions"][0]["label"]
                for p in classifier.predict_many([clip for clip, _ in clips], top_k=1)
            ]
        exact = exact or labels
        right = sum(ours == true for ours, (_, true) in zip(labels, clips, strict=True))
        same = sum(ours == theirs for ours, theirs in zip(labels, exact, strict=True))
        rows.append(
            {"share": share, "top1": 100 * right / len(clips), "same_as_exact": 100 * same / len(clips)}
        )
        print(f"{model}: {rows[-1]}", file=sys.stderr, flush=True)
    return {"model": model, "clips": len(clips), "rows": rows}


@torch.inference_mode()
def speed(name: str, shares: list[float], repetitions: int) -> dict[str, Any]:
    """Processor seconds of one view, exact and with each share merged away, and how much the logits change."""
    torch.set_num_threads(1)
    spec = load_registry()[name]
    torch.manual_seed(0)
    exact = build(spec.architecture, **spec.config).eval()
    models = {share: merge_tokens(copy.deepcopy(exact), share) for share in shares}
    view = torch.randn(1, 3, spec.input.num_frames, *spec.input.image_size)
    took: dict[float, list[float]] = {share: [] for share in shares}
    logits = {share: model(view) for share, model in models.items()}
    for _ in range(repetitions):
        for share, model in models.items():
            start = time.process_time()
            model(view)
            took[share].append(time.process_time() - start)
    base = min(took[shares[0]])
    return {
        "model": name,
        "rows": [
            {
                "share": share,
                "cpu_seconds": min(took[share]),
                "times_as_fast": base / min(took[share]),
                "largest_change_of_a_logit": float((logits[share] - logits[shares[0]]).abs().max()),
                "largest_logit": float(logits[shares[0]].abs().max()),
            }
            for share in shares
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
