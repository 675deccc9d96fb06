"""The command from start to end, from the shell's point of view: ``vidcls predict CLIP``, cold and warm."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from vidcls.bench.timing import summarize
from vidcls.errors import UsageError

HEADINGS = ("run", "median s", "p90 s", "±", "peak memory", "processor s")
REPETITIONS = 5
STEPS = 1 + 2 * REPETITIONS


def time_command(
    clip: str,
    arguments: Sequence[str],
    notify: Callable[[str], object] = lambda text: None,
    *,
    repetitions: int = REPETITIONS,
) -> list[dict[str, Any]]:
    """Time the command in fresh processes.

    ``empty cache`` is the first run with a cache of vidcls's own that holds downloads only, so that nothing is known of
    the checkpoint; ``warm cache`` are the runs after it; ``your cache`` those with the user's own cache, where an
    exported engine may lie.

    Args:
        clip: The clip.
        arguments: Options of ``vidcls predict``.
        notify: Told what is run, before each run.
        repetitions: Runs with a warm cache, and with yours.
    """
    command = [sys.executable, "-m", "vidcls", "predict", clip, "-f", "jsonl", *arguments]

    def time_runs(name: str, env: dict[str, str], count: int) -> dict[str, Any]:
        runs = []
        for number in range(count):
            notify(f"{name}, run {number + 1} of {count}")
            runs.append(timed(command, env))
        return summary(name, runs)

    with tempfile.TemporaryDirectory(prefix="vidcls-bench-") as folder:
        own = {**os.environ, "VIDCLS_CACHE": folder}
        if os.environ.get("VIDCLS_CACHE") is None:
            _link_downloads(folder)
        fresh = [time_runs("empty cache", own, 1), time_runs("warm cache", own, repetitions)]
    return [*fresh, time_runs("your cache", dict(os.environ), repetitions)]


def _link_downloads(folder: str) -> None:
    """Let the empty cache have the weights that were fetched: the network is not what is measured."""
    from vidcls.paths import cache_dir

    downloads = cache_dir()
    if downloads.is_dir():
        for entry in downloads.iterdir():
            if entry.name != "models":
                os.symlink(entry, os.path.join(folder, entry.name))


def timed(command: Sequence[str], env: dict[str, str]) -> dict[str, Any]:
    """Run a command; seconds, processor seconds, and the most memory it and its children held (POSIX)."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate() if os.name == "nt" else ("", "")
    usage = None
    if os.name != "nt":
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        process.stderr.close()
    took = time.perf_counter() - start
    if process.returncode:
        raise UsageError(" ".join(command[:5]), errors.strip()[-500:] or "failed", "see above")
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": took,
        "memory": None if usage is None else usage.ru_maxrss * scale,
        "cpu": None if usage is None else usage.ru_utime + usage.ru_stime,
        "output": output,
    }


def summary(name: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put runs of one kind together."""
    memory = [run["memory"] for run in runs if run["memory"] is not None]
    cpu = sorted(run["cpu"] for run in runs if run["cpu"] is not None)
    return {
        "run": name,
        "seconds": summarize([run["seconds"] for run in runs])._asdict(),
        "peak_memory": max(memory) if memory else None,
        "cpu_seconds": cpu[len(cpu) // 2] if cpu else None,
    }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row as text."""
    seconds, memory, cpu = row["seconds"], row["peak_memory"], row["cpu_seconds"]
    return (
        row["run"],
        f"{seconds['median']:.2f}",
        f"{seconds['p90']:.2f}",
        f"{100 * seconds['spread']:.0f} %",
        "-" if memory is None else f"{memory / 2**20:.0f} MiB",
        "-" if cpu is None else f"{cpu:.2f}",
    )
