"""What `--views auto` gains and costs: accuracy, views, and processor time of `vidcls score`.

python benchmarks/views_auto.py --held FOLDER --calibrate FOLDER [-o benchmarks/results/views_auto.json]

Both folders have a labels.csv, as `vidcls synthesize camera-motion FOLDER --seed N` writes it; the seeds must differ
from each other and from that of training. The threshold comes from the second folder; the figures are those of the
first, all views and `auto` in turn, in processor seconds of all processes together.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vidcls.bench.machine import describe


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held", type=Path, required=True, help="labeled clips to measure on")
    parser.add_argument("--calibrate", type=Path, help="other labeled clips")
    parser.add_argument("--calibration", type=Path, help="take this file instead of calibrating")
    parser.add_argument("--model", default="camera-motion")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/views_auto.json"))
    args = parser.parse_args()
    model = ["--model", args.model]
    truth = labels(args.held)
    record: dict[str, Any] = {"machine": describe(), "clips": len(truth)}
    with tempfile.TemporaryDirectory(prefix="vidcls-views-") as folder:
        file = args.calibration or Path(folder) / "calibration.json"
        if args.calibration is None:
            data = ["--data", args.calibrate, "--views", args.views]
            vidcls("calibrate", *data, *model, "-o", file, "--json", "-q")
        record["calibration"] = json.loads(file.read_text(encoding="utf-8"))
        ways = {
            "all": ["--views", args.views],
            "auto": ["--views", f"auto:{args.views}", "--calibration", file],
        }
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for number in range(args.repetitions):
            for name, views in reversed(ways.items()) if number % 2 else ways.items():
                output = Path(folder) / "rows.jsonl"
                command = ["score", args.held, *model, *views, "-o", output, "--overwrite", "--log-json"]
                seconds, stats = vidcls(*command)
                found[name] = rows(output)
                record.setdefault(name, {"cpu_seconds": []})
                record[name]["cpu_seconds"].append(round(seconds, 2))
                record[name]["views"] = stats["views"] / stats["clips"]
    for name, by_path in found.items():
        right = [label(by_path[path]) == truth[path] for path in truth]
        record[name]["top1"] = sum(right) / len(right)
    same = [label(found["all"][path]) == label(found["auto"][path]) for path in truth]
    record["same_answer"] = sum(same) / len(same)
    args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: record[name] for name in ("all", "auto", "same_answer")}, indent=1))
    return 0


def vidcls(*arguments: object) -> tuple[float, dict[str, Any]]:
    """Run the command → processor seconds of it and its children, and its last line of JSON on stderr."""
    before = os.times()
    command = [sys.executable, "-m", "vidcls", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    last = done.stderr.splitlines()[-1:]
    return spent, json.loads(last[0]) if last and last[0].startswith("{") else {}


def labels(folder: Path) -> dict[str, str]:
    """The true label of each clip."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return {str(folder / row["path"]): row["label"] for row in csv.DictReader(file)}


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows by clip."""
    return {row["path"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def label(row: dict[str, Any]) -> str:
    """The best label of a row."""
    return str(row["predictions"][0]["label"])


if __name__ == "__main__":
    sys.exit(main())
