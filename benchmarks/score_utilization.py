"""How busy `vidcls score` keeps the model: its clips/s beside those of the forward pass alone and of decoding alone.

Beside them the processor seconds that a clip costs: by `vidcls score`, all processes included; by the forward pass; and
by a plain loop over PyAV (`benchmarks/reading.py`, one reformatter kept). The ratio says how near `score` comes to what
plain reading and the forward pass need; on a machine that does other things too, take it with OMP_NUM_THREADS=1, as
threads that wait for each other burn time.

All take turns, round by round, so that whatever else the machine does hits them alike; ratios are of the medians.
Memory is that of this process and its decoders, early and at the end.

    python benchmarks/score_utilization.py --model vivit-fe-tiny --random-weights --clips 200 clips/*.mp4
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import psutil
from reading import Reading, one_kept

from vidcls.score.batching import prepare
from vidcls.score.listing import Inputs
from vidcls.score.pipeline import Pipeline
from vidcls.score.setup import Setup
from vidcls.video.sources import Source


def repeated(items: Sequence[Source], count: int) -> Iterator[Source]:
    return islice(cycle(items), count)


def time_pipeline(
    setup: Setup, items: Sequence[Source], count: int, memory: list[int]
) -> tuple[float, dict[str, Any]]:
    """Score clips from the first result to the last; clips/s."""
    pipeline = setup.pipeline()
    begin = processor_seconds()
    rate = timed(pipeline, items, count, memory)
    stats = pipeline.stats() | {"processor": (processor_seconds() - begin) / count}
    return rate, stats


def processor_seconds() -> float:
    """Of this process and of those below it that have ended."""
    own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime


def plain_reading(pipeline: Pipeline, items: Sequence[Source], count: int) -> float:
    """Processor seconds of a clip."""
    spec = pipeline._classifier.spec.input
    readings = [Reading(item.path, spec, "auto", 1) for item in items]
    begin = time.process_time()
    for reading in islice(cycle(readings), count):
        reading.plain(one_kept())
    took = time.process_time() - begin
    for reading in readings:
        reading.close()
    return took / count


def timed(pipeline: Pipeline, items: Sequence[Source], count: int, memory: list[int]) -> float:
    done = 0
    begin = time.perf_counter()
    for result in pipeline.run(repeated(items, count)):
        if result is None:
            continue
        done += 1
        if done == 1:
            begin = time.perf_counter()  # decoders have started, libraries are loaded
        if done % max(1, count // 20) == 0:
            memory.append(resident())
    took = time.perf_counter() - begin
    pipeline.close()
    return (done - 1) / took


def decoding(setup: Setup, items: Sequence[Source], count: int) -> float:
    """The same with a model that answers at once."""
    pipeline = setup.pipeline()
    classes = len(pipeline._classifier.labels)

    def nothing(engine: Any, works: Any) -> list[Any]:
        return [np.zeros((work.views, classes), np.float32) for work in works]

    pipeline._batcher.run = nothing  # type: ignore[method-assign]
    return timed(pipeline, items, count, [])


def forward(setup: Setup, items: Sequence[Source], count: int) -> tuple[float, float, float]:
    """The same with clips that are all decoded beforehand, its processor seconds, and those of plain reading."""
    pipeline = setup.pipeline()
    model = pipeline._classifier
    ready = [
        prepare(
            item,
            model.read(item.path),
            model.engine.unit_frames,
            model.uses_frame_indices,
            time.perf_counter(),
        )
        for item in items
    ]
    size = max(1, pipeline._batcher.size // ready[0].views)
    pipeline._batcher.run(model.engine, ready[:size])
    begin, busy = time.perf_counter(), time.process_time()
    done = 0
    works = cycle(ready)
    while done < count:
        done += len(pipeline._batcher.run(model.engine, list(islice(works, size))))
    took, busy = time.perf_counter() - begin, time.process_time() - busy
    plain = plain_reading(pipeline, items, min(count, 20))
    pipeline.close()
    return done / took, busy / done, plain


def resident() -> int:
    """Bytes of this process and all below it."""
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips_", metavar="CLIP", nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--weights")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--views", type=int, dest="num_views")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--clips", type=int, default=100, help="clips in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, help="only score so many clips, and show the memory on the way")
    options = parser.parse_args()
    names = ("model", "weights", "random_weights", "engine", "num_views")
    setup = Setup(
        {name: getattr(options, name) for name in names} | {"clips": 10_000}, workers=options.workers
    )
    items = list(Inputs(tuple(options.clips_)))
    if options.memory:
        seen: list[int] = []
        rate, stats = time_pipeline(setup, items, options.memory, seen)
        mib = [size >> 20 for size in seen]
        print(
            json.dumps(
                {"clips": options.memory, "clips_per_second": round(rate, 2), "memory_mib": mib, **stats}
            )
        )
        return
    found: dict[str, list[float]] = {"pipeline": [], "forward": [], "decoding": []}
    memory: list[int] = []
    waits = []
    processor: dict[str, list[float]] = {"score": [], "forward": [], "plain_reading": []}
    for _ in range(options.rounds):
        rate, busy, plain = forward(setup, items, options.clips)
        found["forward"].append(rate)
        processor["forward"].append(busy)
        processor["plain_reading"].append(plain)
        rate, stats = time_pipeline(setup, items, options.clips, memory)
        found["pipeline"].append(rate)
        waits.append(stats["wait_share"])
        processor["score"].append(stats["processor"])
        found["decoding"].append(decoding(setup, items, options.clips))
    rates = {name: statistics.median(values) for name, values in found.items()}
    slower = min(rates["forward"], rates["decoding"])
    a_clip = {name: statistics.median(values) for name, values in processor.items()}
    report = {
        "processor_seconds_a_clip": {name: round(value, 4) for name, value in a_clip.items()},
        "of_plain_reading_and_forward": round(
            (a_clip["plain_reading"] + a_clip["forward"]) / a_clip["score"], 3
        ),
        "clips_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "of_the_slower_part": round(rates["pipeline"] / slower, 3),
        # Where both share the same cores, no arrangement can do better than this.
        "of_shared_cores": round(rates["pipeline"] * (1 / rates["forward"] + 1 / rates["decoding"]), 3),
        "wait_share": statistics.median(waits),
        "memory_mib": {"early": memory[0] >> 20, "end": memory[-1] >> 20, "peak": max(memory) >> 20},
        "clips": options.clips * options.rounds,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
