"""300 clips, a tenth of them broken in ten ways, killed -9 five times at random moments: what comes out.

    python benchmarks/score_faults.py [--clips 300] [--kills 5] [--form jsonl|parquet]

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--form", choices=["jsonl", "parquet"], default="jsonl")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = options.clips // 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = faults.make_checkpoint(folder / "tiny.safetensors")
        goods, bads = faults.make_clips(folder / "clips", options.clips - bad, bad)
        (folder / "list.txt").write_text("".join(f"{path}\n" for path in bads))
        out = folder / f"scores.{options.form}"
        grown = out if options.form == "jsonl" else folder / f"{out.name}.rows"
        arguments = ["score", str(folder / "clips"), str(folder / "list.txt"), "-o", str(out)]
        arguments += ["--weights", str(checkpoint), "--decode-timeout", "5"]
        chance = random.Random(options.seed)
        slow = {
            "VIDCLS_TEST_SLOW": "0.03"
        }  # seconds for each batch, so that there is a middle to be killed in
        for number in range(1, options.kills + 1):
            after = chance.uniform(0, 2.5)
            killed = faults.run_and_kill(arguments, grown, after, **slow)
            lines = grown.read_bytes().count(b"\n")
            print(
                f"kill {number}: {'killed' if killed else 'was faster'}, {lines} rows on the disk", flush=True
            )
        begin = time.perf_counter()
        done = faults.run(*arguments, **slow)
        print(f"last run: exit code {done.returncode}, {time.perf_counter() - begin:.1f} s")
        print(done.stderr.strip())
        rows = read_rows(out)
        faults.check_rows(rows, goods, bads, faults.predict(goods, checkpoint))
        kinds = Counter(row["error_kind"] for row in rows)
        print(f"{len(rows)} rows of {options.clips} clips, each once; by kind: {dict(kinds)}")
        if options.clips != len(rows) or done.returncode != 1:
            sys.exit("rows or exit code are wrong")


if __name__ == "__main__":
    main()
