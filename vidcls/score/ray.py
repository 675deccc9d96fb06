"""The same scorer as actors of Ray Data, on this machine or on a cluster.

Paths go out in small blocks; each actor decodes and scores what it gets, with a pipeline of its own that lives as
long as the actor; rows come back here, where they are written and noted as in a local run. An actor that dies is
started again by Ray, and its block is scored once more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from vidcls.errors import DeviceError, UsageError, VidclsError, needing
from vidcls.score.multi_gpu import FRAMES
from vidcls.score.rows import Result
from vidcls.score.scorer import Arrived, Scorer, arriving, left_in
from vidcls.score.setup import Setup
from vidcls.video.sources import Source

BLOCK = 64  # clips that an actor gets at once: what one that dies may lose, and what comes back together
PORTION = 100_000  # clips that are handed to Ray at once, so that memory here does not grow with the inputs


@dataclass(frozen=True)
class Cluster:
    """What to use of a Ray cluster.

    Attributes:
        address: Of its head, ``auto`` for the one this machine belongs to, ``local`` for a new one here; None: as the
            variable RAY_ADDRESS says, else a new one here.
        actors: How many; None: one for each GPU, or one for four CPUs where there is none.
        gpus: Of each actor; None: 1 where the cluster has any and the device is not ``cpu``.
        block: Clips that an actor gets at once.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float | None = None
    block: int = BLOCK


class RayRunner(Scorer):
    """Scores clips on a Ray cluster.

    Args:
        setup: What each actor runs; ``workers`` None means as many as the actor has CPUs.
        cluster: Where.

    Raises:
        DependencyError: Ray is not installed.
        DeviceError: The cluster cannot be reached.
        VidclsError: The model cannot be loaded there.
    """

    def __init__(self, setup: Setup, cluster: Cluster) -> None:
        super().__init__()
        self._ray = _import_ray()
        self._cluster = cluster
        self._started = not self._ray.is_initialized()
        if self._started:
            self._connect(cluster.address)
        self._actors, self._cpus, self._gpus = self._shares(setup)
        self._setup = replace(setup, workers=setup.workers or self._cpus)
        self._clips = 0
        self._measured: dict[str, dict[str, Any]] = {}
        # Asked of a machine of the cluster: this one may have another precision, or no room for the model.
        task = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=1)(_describe)
        found = pickle.loads(self._wait(task.remote(self._setup)))
        if isinstance(found, VidclsError):
            self.close()
            raise found
        self._settings, self._labels = found

    def _connect(self, address: str | None) -> None:
        if (address or os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
            # Ray Data asks for what only a process inside the cluster has.
            problem = "is Ray Client, from which Ray Data does not run"
            remedy = (
                'run the command on a machine of the cluster with ray_address="auto", or by `ray job submit`'
            )
            raise UsageError(address or "RAY_ADDRESS", problem, remedy)
        try:
            self._ray.init(
                address=address, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise DeviceError(
                address or "ray",
                f"cannot be reached ({error})",
                "check ray_address=ADDRESS; `ray status` asks it",
            ) from None

    def _shares(self, setup: Setup) -> tuple[int, int, float]:
        """Return how many actors there are at most, and the CPUs and GPUs of each."""
        there = self._ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0))
        each = self._cluster.gpus
        if each is None:
            each = 1.0 if gpus and setup.load.get("device", "auto") != "cpu" else 0.0
        if each > gpus:
            raise DeviceError(
                "ray", f"has {gpus} GPUs, not {each:g} for an actor", "pass a smaller number, ray_gpus=N"
            )
        actors = self._cluster.actors or (int(gpus / each) if each else max(1, cpus // 4))
        return actors, max(1, cpus // actors), each

    def stats(self) -> dict[str, Any]:
        """Return what the actors have measured up to the blocks that arrived, taken together."""
        found = list(self._measured.values())
        waited, forward, decode = (
            sum(stats[f"{name}_seconds"] for stats in found) for name in ("waited", "forward", "decode")
        )
        return {
            "wait_share": round(waited / (waited + forward), 4) if waited + forward else 0.0,
            "waited_seconds": round(waited, 3),
            "forward_seconds": round(forward, 3),
            "decode_seconds": round(decode, 3),
            "clips": self._clips,
            "actors": self._actors,
            **{
                name: sum(stats.get(name, 0) for stats in found)
                for name in ("views", *FRAMES)
                if any(FRAMES[0] in stats for stats in found)
            },
        }

    def close(self) -> None:
        """Leave the cluster; one that was started for this ends."""
        if self._started:
            self._ray.shutdown()

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        arrived: Arrived = queue.Queue()
        stop = threading.Event()
        thread = threading.Thread(
            target=self._work, args=(items, arrived, stop), name="vidcls-ray", daemon=True
        )
        thread.start()
        try:
            for result in arriving(arrived):
                self._clips += result is not None
                yield result
        finally:
            stop.set()
            self._leftovers = left_in(arrived)

    def _work(self, items: Iterable[Source], arrived: queue.Queue[Any], stop: threading.Event) -> None:
        try:
            iterator = iter(items)
            while portion := list(islice(iterator, PORTION)):
                for result in self._portion(portion):
                    if stop.is_set():
                        return
                    arrived.put(result)
            arrived.put(None)
        except VidclsError as error:
            arrived.put(error)
        except Exception as error:
            # Ray's errors have no common root that is public, and the main thread waits for an answer.
            text = f"{type(error).__name__}: {str(error).strip()[-300:]}"
            arrived.put(DeviceError("ray", f"the cluster failed ({text})", "start the same command again"))

    def _portion(self, items: list[Source]) -> Iterator[Result]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [{"item": pickle.dumps(item)} for item in items]
        blocks = -(-len(rows) // self._cluster.block)
        data = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            ScoreActor,
            fn_constructor_args=(self._setup,),
            batch_size=self._cluster.block,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(self._actors, blocks)),
            num_cpus=self._cpus,
            num_gpus=self._gpus,
        )
        for batch in data.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for packed in batch["result"]:
                result = pickle.loads(packed)
                if isinstance(result, VidclsError):
                    raise result
                if isinstance(result, Measured):
                    self._measured[result.actor] = result.stats
                else:
                    yield result

    def _wait(self, reference: Any) -> bytes:
        try:
            answer: bytes = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self.close()
            text = str(error).strip().splitlines()[-1][:300]
            raise DeviceError(
                "ray", f"the model cannot be loaded there ({text})", "is vidcls installed there?"
            ) from None
        return answer


@dataclass(frozen=True)
class Measured:
    """What one actor has measured since it was started.

    Attributes:
        actor: Its name, unique in the cluster.
        stats: As `vidcls.score.pipeline.Pipeline.stats` has it.
    """

    actor: str
    stats: dict[str, Any]


class ScoreActor:
    """One model on one machine of the cluster; Ray Data calls it with blocks of clips.

    Its pipeline runs on from block to block, so that decoders are started once.

    Args:
        setup: What it runs.
    """

    def __init__(self, setup: Setup) -> None:
        self._todo: queue.Queue[Source | None] = queue.Queue()
        self._done: queue.Queue[Result | BaseException] = queue.Queue()
        self._pipeline = setup.pipeline()
        self._name = uuid.uuid4().hex
        threading.Thread(target=self._run, name="vidcls-actor", daemon=True).start()

    def _run(self) -> None:
        try:
            for result in self._pipeline.run(iter(self._todo.get, None)):
                if result is not None:
                    self._done.put(result)
        except BaseException as error:
            self._done.put(error)  # for the call that waits

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score a block: pickled items in, pickled results and a `Measured` out, or one pickled error."""
        items = [pickle.loads(packed) for packed in batch["item"]]
        for item in items:
            self._todo.put(item)
        found: list[bytes] = []
        for _ in items:
            result = self._done.get()
            if isinstance(result, BaseException):
                if not isinstance(result, VidclsError):
                    raise result
                found = [pickle.dumps(result)]
                break
            found.append(pickle.dumps(result))
        else:
            found.append(pickle.dumps(Measured(self._name, self._pipeline.stats())))
        return {"result": np.array(found, dtype=object)}


def _describe(setup: Setup) -> bytes:
    """Load the model on a machine of the cluster and say what its scores depend on, and its labels."""
    try:
        with contextlib.closing(setup.pipeline()) as pipeline:
            return pickle.dumps((pipeline.settings(), pipeline.labels()))
    except VidclsError as error:
        return pickle.dumps(error)


def _import_ray() -> Any:
    with needing("runner=ray", "Ray is not installed", "pip install 'vidcls[ray]'"):
        import ray
        import ray.data
    return ray
