"""What lies between decoders and model: clips that are ready, batches of their views, and what is measured there."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Engine, Floats
from vidcls.errors import DeviceError
from vidcls.inference.auto_views import Rounds
from vidcls.inference.clip import Clip
from vidcls.inference.shared_units import classify_units, cut_clip, encode_units, score_pixels
from vidcls.score.scorer import TICK
from vidcls.video.sources import Source
from vidcls.views.transform import pixel_scale_shift

MAX_GPU_BATCH = 256  # views
WINDOW = 3.0  # seconds after which the number of decoders is looked at
MAX_READY = 128  # clips that wait for the model: two of the largest batches of four views each


@dataclass
class Stats:
    """What a pipeline measured, in seconds of wall time unless said otherwise.

    Attributes:
        waited: The model's time without anything to do, from the first clip that was ready on.
        forward: The model's time at work.
        decoded: The decoders' time at work, summed over them.
        blocked: The decoders' time before a full queue.
        clips: Clips scored.
        views: Views scored.
        frames: Frames read, of clips whose views are scored one after another.
        frames_spared: Frames of such clips that the fixed protocol would have read too.
        readers: Decoders at work together, at most.
        begun: When the forward pass began that is under way (``time.perf_counter``).
    """

    waited: float = 0.0
    forward: float = 0.0
    decoded: float = 0.0
    blocked: float = 0.0
    clips: int = 0
    views: int = 0
    frames: int = 0
    frames_spared: int = 0
    readers: int = 0
    begun: float | None = None

    def busy_seconds(self) -> float:
        """Return how long the forward pass has taken that is under way; 0 where none is."""
        begun = self.begun
        return 0.0 if begun is None else time.perf_counter() - begun

    @property
    def wait_share(self) -> float:
        """Share of the time for which the model was idle, 0 to 1."""
        return self.waited / max(self.waited + self.forward, 1e-9)


class Window:
    """Shares of the last seconds that model and decoders waited."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._restart()

    def _restart(self) -> None:
        self._begin = time.perf_counter()
        self._waited, self._blocked = self._stats.waited, self._stats.blocked

    def over(self) -> bool:
        return time.perf_counter() - self._begin > WINDOW

    def shares(self, readers: int) -> tuple[float, float]:
        took = time.perf_counter() - self._begin
        waited = (self._stats.waited - self._waited) / took
        blocked = (self._stats.blocked - self._blocked) / took / max(readers, 1)
        self._restart()
        return waited, blocked


@dataclass
class Work:
    """A clip on its way through the model.

    Attributes:
        item: What was to be scored.
        clip: What was read, without its frames.
        pixels: (v, t, h, w, 3) of all views, crop-major; or, for models that encode frames or tubelets by themselves,
            (u, t', h, w, 3) each different unit of them once.
        where: (v, n) which units make up each view; None for models that see whole views.
        indices: (v, t) numbers of the views' frames, for models that use them.
        seconds: Wall time spent on it so far.
        rounds: What says which views come next, where not all are scored at once; the arrays are those of these.
    """

    item: Source
    clip: Clip
    pixels: NDArray[Any]
    where: NDArray[np.int64] | None
    indices: NDArray[np.int64] | None
    seconds: float
    rounds: Rounds | None = None

    @property
    def views(self) -> int:
        """How many views of the clip go through the model."""
        return len(self.clip.view_indices) if self.rounds is None else len(self.rounds.due)

    def following(self, uses_indices: bool, begun: float) -> Work:
        """Return the clip with what its next views need; arguments as for `prepare`."""
        assert self.rounds is not None
        return prepare(self.item, self.rounds.clip, 0, uses_indices, begun, self.rounds)


def prepare(
    item: Source,
    clip: Clip,
    unit_frames: int,
    uses_indices: bool,
    begun: float,
    rounds: Rounds | None = None,
) -> Work:
    """Cut all that the model needs of a clip, so that the model's thread does not have to.

    Args:
        item: What was to be scored.
        clip: What was read.
        unit_frames: See ``vidcls.engines.Engine``.
        uses_indices: Whether the model takes the frames' numbers.
        begun: When work on the clip began (``time.perf_counter``).
        rounds: Says which views come next, where not all are scored at once.
    """
    bare = replace(clip, frames=clip.frames[:0])
    indices = clip.view_indices if uses_indices else None
    if rounds is None:
        cut = cut_clip(clip, unit_frames)
        return Work(item, bare, cut[:], cut.where, indices, time.perf_counter() - begun)
    due = None if indices is None else indices[rounds.due]
    return Work(item, bare, rounds.pixels(), rounds.where(), due, time.perf_counter() - begun, rounds)


class Ready:
    """A queue of decoded clips, bounded in bytes and in number; one clip always fits."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._works: collections.deque[Work] = collections.deque()
        self._changed = threading.Condition()

    def put(self, work: Work, stop: threading.Event) -> None:
        size = work.pixels.nbytes
        with self._changed:
            while self._full(size) and not stop.is_set():
                self._changed.wait(TICK)
            self._bytes += size
            self._works.append(work)
            self._changed.notify_all()

    def _full(self, size: int) -> bool:
        if not self._works:
            return False
        return len(self._works) >= MAX_READY or self._bytes + size > self._max_bytes

    def get(self, timeout: float) -> Work | None:
        with self._changed:
            if not self._works and timeout > 0:
                self._changed.wait(timeout)
            if not self._works:
                return None
            work = self._works.popleft()
            self._bytes -= work.pixels.nbytes
            self._changed.notify_all()
            return work


class Batcher:
    """Runs clips through a model, as many views together as pays.

    Args:
        size: Views to begin with.
        grows: Whether to double it for as long as that makes a view cheaper.
    """

    def __init__(self, size: int, *, grows: bool = False) -> None:
        self.size = size
        self.halved = 0
        self._grows = grows
        self._seen = 0  # batches of the present size
        self._best = float("inf")  # seconds a view at the present size
        self._smaller = float("inf")  # seconds a view at half of it

    def wants(self, works: Sequence[Work]) -> bool:
        """Whether one more clip like these would still fit into the batch."""
        return not works or sum(work.views for work in works) + works[-1].views <= self.size

    def run(self, engine: Engine, works: Sequence[Work]) -> list[Floats]:
        """Score clips together → logits (v, k) of each; where memory runs out, in smaller batches from then on.

        Raises:
            DeviceError: Memory does not suffice for one view.
        """
        while True:
            size = self.size
            begin = time.perf_counter()
            try:
                found = _score(engine, works, size)
            except (DeviceError, MemoryError) as error:
                if size == 1 or not _out_of_memory(error):
                    raise
                self.size = size // 2
                self.halved += 1
                self._grows = False
                _free_memory()
                continue
            self._learn(sum(work.views for work in works), time.perf_counter() - begin)
            return found

    def _learn(self, views: int, seconds: float) -> None:
        if not self._grows or 2 * views <= self.size:
            return  # a batch that is half empty says nothing of full ones
        self._seen += 1
        if self._seen > 1:  # the first of a size pays for what libraries choose then
            self._best = min(self._best, seconds / views)
        if self._seen < 5:
            return
        if self._best > 0.95 * self._smaller:
            self.size //= 2
            self._grows = False
        elif self.size * 2 > MAX_GPU_BATCH:
            self._grows = False
        else:
            self.size *= 2
            self._smaller, self._best, self._seen = self._best, float("inf"), 0


def _score(engine: Engine, works: Sequence[Work], size: int) -> list[Floats]:
    """Score the views of all clips, ``size`` at a time, whichever clips they are of."""
    scale_shift = pixel_scale_shift(works[0].clip.spec)
    pixels = _joined([work.pixels for work in works])
    indices = _joined([work.indices for work in works if work.indices is not None])
    if works[0].where is None:
        logits = score_pixels(engine, pixels, None, indices, scale_shift, size)
    else:
        encoded = encode_units(engine, pixels, scale_shift, size)
        new = np.split(encoded, np.cumsum([len(work.pixels) for work in works])[:-1])
        tables = [
            part if work.rounds is None else work.rounds.features(part)
            for work, part in zip(works, new, strict=True)
        ]
        starts = np.cumsum([0, *(len(table) for table in tables[:-1])])
        where = _joined([w.where + at for w, at in zip(works, starts, strict=True) if w.where is not None])
        logits = classify_units(engine, _joined(tables), where, indices, size)
    return np.split(logits, np.cumsum([work.views for work in works])[:-1])


def _joined(arrays: list[NDArray[Any]]) -> Any:
    """Return the arrays one after the other; None if there are none."""
    if len(arrays) < 2:
        return arrays[0] if arrays else None
    return np.concatenate(arrays)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "problem", "") == "out of memory"


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
