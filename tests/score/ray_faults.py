"""A local Ray on which clips hang and are locked as their names say, and whose actors are killed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psutil
import ray

from tests.score import faults
from vidcls.score.ray import Cluster, RayRunner
from vidcls.score.rows import Result
from vidcls.score.setup import Setup
from vidcls.video.sources import Source


def start_ray() -> None:
    """Start a Ray of two CPUs on this machine."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
        runtime_env={
            "env_vars": {"PYTHONPATH": str(faults.ROOT)},
            "worker_process_setup_hook": "tests.score.faulty_main.break_reading",
        },
    )


def actor_processes() -> list[Any]:
    """Processes of Ray that score."""
    lines = ((p, " ".join(p.info["cmdline"] or ())) for p in psutil.process_iter(["cmdline"]))
    return [process for process, line in lines if "ray::" in line and "ScoreActor" in line]


class DeadlyRunner(RayRunner):
    """Kills the actors when certain numbers of results have come back.

    Attributes:
        killed: Process numbers of those that were killed.
    """

    def __init__(self, setup: Setup, cluster: Cluster, after: Sequence[int]) -> None:
        super().__init__(setup, cluster)
        self.after = sorted(after)
        self.killed: list[int] = []

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        """See `RayRunner.run`."""
        count = 0
        for result in super().run(items):
            count += result is not None
            while self.after and count >= self.after[0]:
                del self.after[0]
                for process in actor_processes():
                    process.kill()
                    self.killed.append(process.pid)
            yield result
