"""Repetitions until the median is known well enough. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MIN_REPETITIONS = 3
MAX_REPETITIONS = 1000
SLOW_REPETITIONS = 2
SLOW = 1.0  # seconds from which a call is slow, and differs by less from the next one


class Timing(NamedTuple):
    """Seconds of one call.

    Attributes:
        median: Half of the calls took no longer.
        p90: Nine tenths of the calls took no longer.
        best: The fastest call.
        spread: Half the width in which the middle half of the calls lies, as a share of the median.
        repetitions: Calls that were timed.
        processor: Median of this process's processor seconds, of all threads: on a busy machine it tells more than
            the time that passed.
    """

    median: float
    p90: float
    best: float
    spread: float
    repetitions: int
    processor: float | None = None


def summarize(times: list[float], processor: list[float] | None = None) -> Timing:
    """Return the figures of some calls' seconds, and of their processor seconds where these were taken."""
    low, median, high, p90 = np.percentile(times, [25, 50, 75, 90])
    spread = float((high - low) / 2 / median)
    busy = None if processor is None else float(np.median(processor))
    return Timing(float(median), float(p90), min(times), spread, len(times), busy)


def measure(
    run: Callable[[], object],
    *,
    wait: Callable[[], object] = lambda: None,
    spread: float = 0.05,
    seconds: float = 20.0,
    warm_up: int = 1,
    least: int | None = None,
) -> Timing:
    """Call ``run`` until the spread of its times is small, or the time is up.

    Args:
        run: What is measured.
        wait: Returns when the device has done all that ``run`` gave it.
        spread: Enough when `Timing.spread` over the root of the number of calls is no larger.
        seconds: No call is begun after this long, but for the first ones.
        warm_up: Calls before the first that counts.
        least: Calls that count, at least; None: `MIN_REPETITIONS`, and `SLOW_REPETITIONS` of slow calls.
    """
    for _ in range(warm_up):
        run()
    wait()
    times: list[float] = []
    processor: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MAX_REPETITIONS:
        start, busy = time.perf_counter(), time.process_time()
        run()
        wait()
        now = time.perf_counter()
        times.append(now - start)
        processor.append(time.process_time() - busy)
        if len(times) < (_enough(times) if least is None else least):
            continue
        if now >= end or summarize(times).spread / len(times) ** 0.5 <= spread / MIN_REPETITIONS**0.5:
            break
    return summarize(times, processor)


def _enough(times: list[float]) -> int:
    return SLOW_REPETITIONS if min(times) >= SLOW else MIN_REPETITIONS
