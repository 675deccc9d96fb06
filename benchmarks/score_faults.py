"""300 clips, a tenth of them broken in ten ways, killed -9 five times at random moments: what comes out.

    python benchmarks/score_faults.py [--clips 300] [--kills 5] [--form jsonl|parquet] [--runner local|ray]

On Ray, a real one on this machine, it is the actors that are killed, in the middle of one run.

Ends with an error if a clip has no row or two, if a good one differs from `vidcls predict`, or if a bad one has no
error. Run from the root of the repository: the faults are those of tests/score.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.score import faults


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def run_and_resume(folder: Path, out: Path, checkpoint: Path, kills: list[float]) -> int:
    """Kill the command line so many seconds after it began to write, then let it end: its exit code."""
    grown = out if out.suffix == ".jsonl" else folder / f"{out.name}.rows"
    arguments = ["score", str(folder / "clips"), str(folder / "list.txt"), "-o", str(out)]
    arguments += ["--weights", str(checkpoint), "--decode-timeout", "5"]
    # Seconds for each batch, so that there is a middle to be killed in.
    slow = {"VIDCLS_TEST_SLOW": "0.03"}
    for number, after in enumerate(kills, start=1):
        killed = faults.run_and_kill(arguments, grown, after, **slow)
        lines = grown.read_bytes().count(b"\n")
        print(f"kill {number}: {'killed' if killed else 'was faster'}, {lines} rows on the disk", flush=True)
    done = faults.run(*arguments, **slow)
    print(done.stderr.strip())
    return done.returncode


def run_on_ray(folder: Path, out: Path, checkpoint: Path, kills: list[int]) -> int:
    """Score on a local Ray and kill the actors after so many results: what the command line's exit code would be."""
    from tests.score import faulty_main, ray_faults
    from vidcls.score import Job, score
    from vidcls.score import resume_log as journal
    from vidcls.score.listing import Inputs
    from vidcls.score.ray import Cluster
    from vidcls.score.setup import Setup

    ray_faults.start_ray()
    journal.Journal.claim = faulty_main.claim_and_vanish  # type: ignore[method-assign]
    runners: list[ray_faults.DeadlyRunner] = []

    def make_scorer(setup: Setup) -> ray_faults.DeadlyRunner:
        runners.append(ray_faults.DeadlyRunner(setup, Cluster(actors=1, block=8), kills))
        return runners[0]

    load = {"weights": str(checkpoint), "device": "cpu", "engine": "eager", "decode_timeout": 5.0}
    inputs = Inputs((str(folder / "clips"), str(folder / "list.txt")))
    summary = score(Job(inputs, str(out), Setup(load, workers=1), make_scorer=make_scorer), {"quiet": True})
    print(f"{len(runners[0].killed)} actors were killed; {runners[0].stats()}")
    return 1 if summary.counts.failed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--form", choices=["jsonl", "parquet"], default="jsonl")
    parser.add_argument("--runner", choices=["local", "ray"], default="local")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = options.clips // 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = faults.make_checkpoint(folder / "tiny.safetensors")
        goods, bads = faults.make_clips(folder / "clips", options.clips - bad, bad)
        (folder / "list.txt").write_text("".join(f"{path}\n" for path in bads))
        out = folder / f"scores.{options.form}"
        chance = random.Random(options.seed)
        begin = time.perf_counter()
        if options.runner == "ray":
            at = [chance.randrange(options.clips) for _ in range(options.kills)]
            code = run_on_ray(folder, out, checkpoint, at)
        else:
            code = run_and_resume(
                folder, out, checkpoint, [chance.uniform(0, 2.5) for _ in range(options.kills)]
            )
        print(f"exit code {code} after {time.perf_counter() - begin:.1f} s in all")
        rows = read_rows(out)
        faults.check_rows(rows, goods, bads, faults.predict(goods, checkpoint))
        kinds = Counter(row["error_kind"] for row in rows)
        print(f"{len(rows)} rows of {options.clips} clips, each once; by kind: {dict(kinds)}")
        if options.clips != len(rows) or code != 1:
            sys.exit("rows or exit code are wrong")


if __name__ == "__main__":
    main()
