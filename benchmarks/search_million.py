"""Exact search among a million vectors: processor time, and memory that does not grow with the collection.

    python benchmarks/search_million.py [--vectors 1000000] [--dimension 768] [--threads 2]

Writes random vectors to a Parquet file as `vidcls embed` does (3 GB for the default), with ten near the query hidden
among them at known places. Then it searches the file in a process of its own, checks that exactly these ten are found,
in their order, and prints what that took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.output.embedding import EmbeddingLayout, EmbeddingParquet, clip_row

NEAR = 10
SEARCH = """
import json, resource, sys, time
import numpy as np
from vidcls.search.cosine import nearest
from vidcls.search.vectors import open_vectors
files = open_vectors([sys.argv[1]])
query = np.load(sys.argv[2])
before, begun = time.process_time(), time.perf_counter()
hits = nearest(query, files, 10)
print(json.dumps({
    "paths": [hit.place.path for hit in hits],
    "processor_seconds": time.process_time() - before,
    "seconds": time.perf_counter() - begun,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""


def rows(
    count: int, query: np.ndarray, places: np.ndarray, cosines: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of all clips; those at ``places`` are near the query, and how near is noted in ``cosines``."""
    rng = np.random.default_rng(1)
    parts = {"view": [None], "begin": [0.0], "end": [10.0]}
    order = {int(place): rank for rank, place in enumerate(places)}
    for number in range(count):
        vector = rng.standard_normal(len(query), dtype=np.float32)
        path = f"clips/{number:07}.mp4"
        if number in order:
            vector = query + (0.1 + 0.1 * order[number]) * vector
            cosines[path] = float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
        yield clip_row(path, vector[None], parts)


def main() -> None:
    """Write, search, check, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="for the file; a temporary one by default")
    options = parser.parse_args()
    query = np.random.default_rng(0).standard_normal(options.dimension, dtype=np.float32)
    places = np.random.default_rng(2).permutation(options.vectors)[:NEAR]
    settings = {
        "kind": "embeddings",
        "model": "none",
        "layer": "head",
        "dimension": options.dimension,
        "columns": {},
    }
    cosines: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file, asked = Path(folder, "clips.parquet"), Path(folder, "query.npy")
        begun = time.perf_counter()
        with file.open("wb") as out:
            layout = EmbeddingLayout.of(settings)
            for data in EmbeddingParquet(layout).stream(rows(options.vectors, query, places, cosines)):
                out.write(data)
        np.save(asked, query)
        print(
            f"wrote {file.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - begun:.0f} s",
            file=sys.stderr,
        )
        threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        done = subprocess.run(
            [sys.executable, "-c", SEARCH, str(file), str(asked)],
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    expected = sorted(cosines, key=lambda path: -cosines[path])
    if found.pop("paths") != expected:
        sys.exit("the ten nearest were not found")
    print(json.dumps({"vectors": options.vectors, "dimension": options.dimension, **found}))


if __name__ == "__main__":
    main()
