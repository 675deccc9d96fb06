"""One model kept busy: decode threads → a bounded queue → batches of views of different clips → results.

Each decode thread has a worker process of its own (`vidcls.video.reader`), which is killed and replaced when it
hangs or swells. The queue is bounded in bytes; a full one makes the decoders wait, an empty one the model. The
model's waiting is measured, and decoders are added while it waits, up to a bound, and retired while they do.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from vidcls.doctor.machine import cores
from vidcls.engines import Floats
from vidcls.errors import InputError, VidclsError
from vidcls.inference.classifier import Classifier
from vidcls.inference.embed import Embedder
from vidcls.inference.shared_units import VIEW_BATCH
from vidcls.models.limits import memory
from vidcls.score.batching import Batcher, Ready, Stats, Window, Work, prepare
from vidcls.score.rows import Result, finish, unforeseen
from vidcls.score.scorer import TICK, Arrived, Scorer, arriving, left_in, put_until
from vidcls.video.fetch import opened
from vidcls.video.reader import VideoReader
from vidcls.video.sources import Source

if TYPE_CHECKING:
    from vidcls.score.setup import Setup

GPU_BATCH = 16  # views; on a CPU as many as `vidcls predict` takes, so that results are the same to the bit
WAITED_TOO_LONG = 0.05  # share of the model's time above which a decoder is added
IDLE = 0.9  # share of the decoders' time spent before a full queue above which one is retired
MAX_READERS = 64
FEEDER = "vidcls-list"
OUTPUTS = "outputs"  # column of rows kept for the caller alone: what each view gave (v, k), as it is averaged


class Pipeline(Scorer):
    """Scores clips with one classifier in this process.

    Args:
        classifier: Ready to run; or an embedder, whose rows have vectors in place of labels.
        setup: How many decoders, what batch, which predictions. Where it leaves that open: as many decoders as the
            model needs so as not to wait, and a batch by the device, on a GPU as large as pays.
        settings: What ``settings()`` returns.
        processes: How many of these share the machine.
    """

    def __init__(
        self, classifier: Classifier | Embedder, setup: Setup, settings: dict[str, Any], processes: int = 1
    ) -> None:
        super().__init__()
        self._classifier = classifier
        self._make_reader = setup.reader
        self._settings, self._labels = settings, classifier.labels
        self._top_k = setup.top_k
        self._all_scores = setup.all_scores
        self._keep_outputs = setup.keep_outputs
        self._max_readers = setup.workers or max(1, min(cores() // processes, MAX_READERS))
        self._fixed_readers = setup.workers is not None
        on_cpu = classifier.engine.device.startswith("cpu")
        size = setup.batch or (VIEW_BATCH if on_cpu else GPU_BATCH)
        self._batcher = Batcher(size, grows=setup.batch is None and not on_cpu)
        self._max_bytes = setup.max_bytes or min(2 << 30, memory() // 8) // processes
        self.measured = Stats()

    def notes(self) -> tuple[str, ...]:
        return tuple(f"{self._classifier.weights}: {note}" for note in self._classifier.notes)

    def stats(self) -> dict[str, Any]:
        s = self.measured
        return {
            "wait_share": round(s.wait_share, 4),
            "waited_seconds": round(s.waited, 3),
            "forward_seconds": round(s.forward, 3),
            "decode_seconds": round(s.decoded, 3),
            "clips": s.clips,
            "views": s.views,
            "batch": self._batcher.size,
            "workers": s.readers,
            **({"frames": s.frames, "frames_spared": s.frames_spared} if s.frames else {}),
        }

    def close(self) -> None:
        """Free the classifier's own decoder; those of ``run`` end with it."""
        self._classifier.close()

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        flow = _Flow(self, items)
        try:
            flow.start()
            yield from arriving(flow.done)
        finally:
            flow.stop()
            self._leftovers = left_in(flow.done)


class _Flow:
    """One run of a pipeline: its threads and queues."""

    def __init__(self, pipeline: Pipeline, items: Iterable[Source]) -> None:
        self._pipe = pipeline
        self._stats = pipeline.measured
        self._items = items
        self._todo: queue.Queue[Source | None] = queue.Queue(maxsize=2 * pipeline._max_readers)
        self._ready = Ready(pipeline._max_bytes)
        # Of clips scored in rounds: those that need frames, those whose next views are cut, how many have no row yet.
        self._rounds = (
            isinstance(pipeline._classifier, Classifier) and pipeline._classifier.stop_rule is not None
        )
        self._again: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._due: collections.deque[Work] = collections.deque()
        self._begun = 0
        self.done: Arrived = queue.Queue(maxsize=4096)
        self._stop = threading.Event()
        self._retire = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._readers: dict[threading.Thread, VideoReader] = {}
        self._reading = 0  # decode threads that have not ended
        self._others: list[threading.Thread] = []

    def start(self) -> None:
        self._add_reader()
        for name, target in ((FEEDER, self._feed), ("vidcls-model", self._score)):
            thread = threading.Thread(target=self._guarded, args=(target,), name=name, daemon=True)
            self._others.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        with self._lock:
            readers = dict(self._readers)
        for thread, reader in readers.items():
            while thread.is_alive():  # an aborted reader may try once more with its other decoder
                reader.abort()
                thread.join(TICK)
        for thread in self._others:
            # The feeder may wait for a line of standard input that never comes; the model's batch has an end.
            thread.join(TICK if thread.name == FEEDER else None)

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            # Whatever it is, the main thread must hear of it: it would wait for this thread forever.
            self._finish(error)

    def _finish(self, result: Result | BaseException | None) -> None:
        if isinstance(result, Result):
            with self._lock:
                self._begun -= 1
        put_until(self._stop, self.done, result)

    # Listing

    def _feed(self) -> None:
        """Hand the items out; each of the first ones brings a decoder, so that there are no more than items."""
        first = self._pipe._max_readers if self._pipe._fixed_readers else min(2, self._pipe._max_readers)
        for number, item in enumerate(self._items):
            if 0 < number < first:
                self._add_reader()
            if not self._hand(item):
                return
        # One sentinel for all readers: each puts it back for the next.
        self._hand(None)

    def _hand(self, item: Source | None) -> bool:
        return put_until(self._stop, self._todo, item)

    # Decoding

    def _add_reader(self) -> None:
        reader = self._pipe._make_reader()
        thread = threading.Thread(
            target=self._guarded, args=(lambda: self._read_all(reader),), name="vidcls-decode", daemon=True
        )
        with self._lock:
            if self._stop.is_set():
                return
            self._readers[thread] = reader
            self._reading += 1
            self._stats.readers = max(self._stats.readers, self._reading)
        reader.start()
        thread.start()

    def _read_all(self, reader: VideoReader) -> None:
        try:
            while not self._stop.is_set() and not self._retire.acquire(blocking=False):
                with contextlib.suppress(queue.Empty):
                    item = self._next()
                    if item is None:
                        break
                    self._read(reader, item)
        finally:
            reader.close()
            with self._lock:
                self._reading -= 1
                self._readers.pop(threading.current_thread(), None)

    def _next(self) -> Source | Work | None:
        """Return a clip to begin or to go on with, or None where there will be no more.

        Raises:
            queue.Empty: There is none now.
        """
        if not self._again.empty():
            return self._again.get_nowait()
        item = self._todo.get(timeout=TICK)
        with self._lock:
            self._begun += item is not None
            over = not (self._rounds and self._begun)
        if item is not None:
            return item
        self._hand(None)  # for the next reader
        return None if over else self._again.get(timeout=TICK)

    def _read(self, reader: VideoReader, item: Source | Work) -> None:
        start = time.perf_counter()
        source = item.item if isinstance(item, Work) else item
        try:
            work = self._decode(reader, item, start)
        except InputError as error:
            if not self._stop.is_set():  # then it is the stop that broke it
                self._fail(source, error, time.perf_counter() - start)
            return
        seconds = time.perf_counter() - start
        self._ready.put(work, self._stop)
        with self._lock:
            self._stats.decoded += seconds
            self._stats.blocked += time.perf_counter() - start - seconds

    def _decode(self, reader: VideoReader, item: Source | Work, start: float) -> Work:
        """Read one clip, or more of it; whatever happens on the way is this clip's own failure."""
        source = item.item if isinstance(item, Work) else item
        try:
            if isinstance(item, Work):
                return self._read_rest(reader, item, start)
            model, rounds = self._pipe._classifier, None
            with opened(source, self._stop) as found:
                if isinstance(model, Classifier) and self._rounds:
                    # What has to be fetched is read in one go.
                    clip = model.read(found, reader, all_views=source.is_remote)
                    rounds = model.rounds(clip)
                else:
                    clip = model.read(found, reader)
            return prepare(source, clip, model.engine.unit_frames, model.uses_frame_indices, start, rounds)
        except VidclsError:
            raise
        except MemoryError:
            raise InputError(source.path, "there is not enough memory for its views", kind="memory") from None
        except Exception as error:
            # A million strangers' files find every hole there is; none of them may cost the others their rows.
            raise unforeseen(source, error) from None

    def _read_rest(self, reader: VideoReader, work: Work, start: float) -> Work:
        model, rounds = self._pipe._classifier, work.rounds
        assert isinstance(model, Classifier)
        assert rounds is not None
        rounds.complete(model.complete(work.item, rounds.clip, reader))
        return work.following(model.uses_frame_indices, start - work.seconds)

    def _fail(self, item: Source, error: InputError, seconds: float) -> None:
        row = self._pipe._classifier.failed(item.path, error).row
        self._finish(finish(item, row, seconds=seconds, error=error))

    # The model

    def _score(self) -> None:
        window = Window(self._stats)
        busy = False  # the time until the first clip is ready is nobody's waiting
        more = True
        while more and not self._stop.is_set():
            begin = time.perf_counter()
            works, more = self._take()
            if busy:
                self._stats.waited += time.perf_counter() - begin
            if works:
                busy = True
                self._forward(works)
            self._adjust(window)
        self._finish(None)

    def _take(self) -> tuple[list[Work], bool]:
        """Collect clips until a batch is full or no more are ready; False: there will be no more."""
        works: list[Work] = []
        while self._pipe._batcher.wants(works):
            # Read before the queue is: when it says that all decoders have ended, whatever they put there is there.
            with self._lock:
                ended = self._reading == 0
            waits = 0.0 if works or ended else TICK
            work = self._due.popleft() if self._due else self._ready.get(timeout=waits)
            if work is None:
                return works, not ended
            works.append(work)
        return works, True

    def _forward(self, works: list[Work]) -> None:
        begin = time.perf_counter()
        self._stats.begun = begin
        try:
            logits = self._pipe._batcher.run(self._pipe._classifier.engine, works)
        except VidclsError:
            raise
        except Exception as error:
            self._forward_apart(works, error)
            return
        finally:
            self._stats.begun = None
        took = time.perf_counter() - begin
        self._stats.forward += took
        for work, found in zip(works, logits, strict=True):
            self._stats.views += len(found)
            work.seconds += took / len(works)
            self._advance(work, found)

    def _forward_apart(self, works: list[Work], error: Exception) -> None:
        """Find the clip that the model stumbled over; a model that never worked is not a clip's fault."""
        if len(works) > 1:
            for work in works:
                self._forward([work])
        elif self._stats.clips:
            self._fail(works[0].item, unforeseen(works[0].item, error), works[0].seconds)
        else:
            raise error

    def _advance(self, work: Work, logits: Floats) -> None:
        """Hand out a clip's row, or send it on to its next views."""
        rounds = work.rounds
        try:
            if rounds is None or rounds.add(logits):
                result = self._result(work, logits if rounds is None else rounds.logits)
                self._stats.clips += 1
                self._finish(result)
            elif rounds.lacks_frames:
                self._again.put(work)
            else:
                begun = time.perf_counter() - work.seconds
                self._due.append(work.following(self._pipe._classifier.uses_frame_indices, begun))
        except Exception as error:
            self._fail(work.item, unforeseen(work.item, error), work.seconds)

    def _result(self, work: Work, logits: Floats) -> Result:
        pipe, clip = self._pipe, work.clip
        if work.rounds is not None:
            clip = work.rounds.clip
            self._stats.frames += len(clip.frame_indices)
            self._stats.frames_spared += len(clip.missing)
        row = pipe._classifier.outputs_row(work.item.path, clip, logits, pipe._top_k, pipe._all_scores)
        if pipe._keep_outputs and isinstance(pipe._classifier, Classifier):
            row[OUTPUTS] = pipe._classifier.averaged(logits)
        return finish(work.item, row, seconds=work.seconds)

    def _adjust(self, window: Window) -> None:
        """Add a decoder where the model waits, retire one where they do."""
        if self._pipe._fixed_readers or not window.over():
            return
        waited, blocked = window.shares(self._reading)
        if (
            waited > WAITED_TOO_LONG
            and 0 < self._reading < self._pipe._max_readers
            and not self._todo.empty()
        ):
            self._add_reader()
        elif blocked > IDLE and self._reading > 1:
            self._retire.release()
