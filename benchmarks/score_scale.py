"""How listing, journal, resume and writing of `vidcls score` behave with a million paths: time and memory.

The model is a stub that answers at once, and nothing is decoded: what is left is the cost of the bookkeeping. Each
phase runs in a process of its own, whose greatest memory is what the system says it was. Times are of the processor
(user and system) and of the wall clock, as the machine may be busy with something else.

    python benchmarks/score_scale.py --paths 200000 1000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PHASES = ("list", "score half, then die", "resume to the end", "nothing to do", "to parquet")


class Stub:
    """Answers at once, as one of 400 classes; dies after so many clips."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.dies_after = dies_after

    def settings(self) -> dict[str, Any]:
        return {"model": "stub", "top_k": 5, "all_scores": False}

    def run(self, items: Iterable[Any]) -> Iterator[Any]:
        from vidcls.score.rows import finish

        head = {"model": "stub", "weights": "none", "views": 4, "crops": 1, "frames": 32, "stride": 2}
        best = [{"rank": r, "index": r, "label": f"class {r}", "score": 1 / r} for r in range(1, 6)]
        tail = {
            "fps": 25.0,
            "duration": 10.0,
            "decoder": "stub",
            "predictions": best,
            "warnings": [],
            "error": None,
        }
        for number, item in enumerate(items):
            if number == self.dies_after:
                import os

                os._exit(9)  # as kill -9: nothing is closed, nothing is flushed
            yield finish(item, {"path": item.path, **head, **tail}, seconds=0.1)

    def leftovers(self) -> list[Any]:
        return []

    def notes(self) -> tuple[str, ...]:
        return ()

    def stats(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def measure(phase: str, folder: Path, paths: int) -> None:
    """Run one phase in this process and print what it took."""
    import resource

    from vidcls.score import Job, score
    from vidcls.score.listing import Inputs

    inputs = Inputs((str(folder / "manifest.csv"),))
    dies = paths // 2 if phase == PHASES[1] else None
    output = folder / ("scores.parquet" if phase == PHASES[4] else "scores.jsonl")
    begin = time.perf_counter()
    if phase == PHASES[0]:
        rows = sum(1 for _ in inputs)
    else:
        summary = score(Job(inputs, str(output), make_scorer=lambda _: Stub(dies)), {"quiet": True})
        rows = summary.rows
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "paths": paths,
        "phase": phase,
        "rows": rows,
        "wall_seconds": round(time.perf_counter() - begin, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)),
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--paths", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary one by default")
    options = parser.parse_args()
    if options.phase:
        measure(options.phase, options.folder, options.paths[0])
        return
    for paths in options.paths:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            with open(f"{folder}/manifest.csv", "w") as manifest:
                manifest.write("path,label\n")
                manifest.writelines(
                    f"/videos/{i // 10000:04}/{i:08}-a-clip-of-some-source.mp4,{i % 400}\n"
                    for i in range(paths)
                )
            for phase in PHASES:
                command = [
                    sys.executable,
                    __file__,
                    "--paths",
                    str(paths),
                    "--phase",
                    phase,
                    "--folder",
                    folder,
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                if phase != PHASES[1] and done.returncode:
                    sys.exit(done.stderr)
                print(
                    done.stdout.strip() or json.dumps({"paths": paths, "phase": phase, "died": True}),
                    flush=True,
                )
            names = (
                "manifest.csv",
                "scores.jsonl",
                "scores.jsonl.journal",
                "scores.parquet",
                "scores.parquet.rows",
            )
            sizes = {name: round((Path(folder) / name).stat().st_size / 2**20, 1) for name in names}
            print(json.dumps({"paths": paths, "MiB": sizes}), flush=True)


if __name__ == "__main__":
    main()
