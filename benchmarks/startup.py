"""Where a cold `vidcls predict` spends its time: seconds of importing, by package, and the rest.

python benchmarks/startup.py --clip CLIP [--weights CHECKPOINT | --model NAME] [-o benchmarks/results/startup.json]

Runs the command as a person would, in fresh processes: as it is, with eager PyTorch, and with a converted engine from
the cache.
Imports are Python's own count (`-X importtime`); decoding runs beside them in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from vidcls.bench.machine import describe
from vidcls.bench.predict import summary, timed

LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--model")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/startup.json"))
    args = parser.parse_args()
    options = ["predict", args.clip, "-f", "jsonl", "-q"]
    options += ["--weights", args.weights] if args.weights else []
    options += ["--model", args.model] if args.model else []
    record: dict[str, Any] = {"machine": describe(), "runs": {}}
    with tempfile.TemporaryDirectory(prefix="vidcls-startup-") as folder:
        env = {**os.environ, "VIDCLS_CACHE": folder}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed vidcls has its bytecode
        for engine in ("auto", "eager", "openvino"):
            record["runs"][engine] = profile([*options, "--engine", engine], env, args.repetitions)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["runs"], indent=2))
    return 0


def profile(options: list[str], env: dict[str, str], repetitions: int) -> dict[str, Any]:
    """Time a command's first run, the runs after it, and the imports of one of these."""
    command = [sys.executable, "-m", "vidcls", *options]
    first = timed(command, env)["seconds"]
    runs = [timed(command, env) for _ in range(repetitions)]
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", *command[1:]],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    packages: Counter[str] = Counter()
    for self_time, module in LINE.findall(traced.stderr):
        packages[module.partition(".")[0]] += int(self_time)
    largest = {name: micro / 1e6 for name, micro in packages.most_common(8)}
    return {
        "first_seconds": first,
        **summary("again", runs),
        "imports_seconds": sum(packages.values()) / 1e6,
        "largest_imports": largest,
    }


if __name__ == "__main__":
    sys.exit(main())
