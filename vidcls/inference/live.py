"""A live source → what is seen in it now: one view of the last seconds, again and again, never far behind."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vidcls.inference.classifier import Classifier
from vidcls.inference.clip import Clip
from vidcls.inference.prediction import Prediction
from vidcls.video.process import AnsweredError, Worker
from vidcls.video.reader import DEFAULT_MAX_MEMORY, VideoInfo
from vidcls.video.urls import shown_url
from vidcls.views.transform import FrameTransform, frame_transform, pixel_scale_shift, plan_clips

MAX_HELD = 4096  # frames of the last seconds; of a source with more of them, fewer seconds
USUAL_RATE = 25.0  # frames a second, for models that name none
_ENTRY = "vidcls.video.live"
Received = tuple[float, np.ndarray]  # seconds since the first frame, and a frame


@dataclass(frozen=True)
class Moment:
    """What is seen at one moment.

    Attributes:
        time: Of the newest frame, seconds since the first.
        prediction: What the model says of the seconds before it.
        delay: Seconds from the newest frame's arrival until the answer was there.
    """

    time: float
    prediction: Prediction
    delay: float


def watch(
    classifier: Classifier, source: str, *, every: float, live: bool, timeout: float
) -> Iterator[Moment]:
    """Classify the last seconds of a source at most once every so many seconds.

    Where the source is ``live``, what comes while the model is busy is kept for the next answer or dropped, so that
    no answer is later than one pass of the model; otherwise the source waits for the model, and nothing is dropped.

    Args:
        classifier: With one view and one crop.
        source: See `vidcls.video.live`.
        every: Seconds between two answers, by the source's clock.
        live: Whether the source goes on by itself.
        timeout: Seconds without a frame after which the source counts as lost.

    Raises:
        VideoError: The source cannot be opened, or breaks off.
    """
    window = _Window(span(classifier))
    transform = frame_transform(classifier.spec.input)
    # Now, and not when the first frames wait: this may import torch and load weights.
    classifier.engine.prepare(np.dtype(np.uint8), pixel_scale_shift(classifier.spec.input))
    frames = _Source(source, transform, timeout)
    last, answered = -np.inf, False
    for items in _Arrivals(frames) if live else ([item] for item in frames):
        for item in items:
            window.add(*item)
        moment = items[-1][0]
        if moment < last:  # the source began again
            last = -np.inf
        if window.full and moment - last >= every:
            last, answered = moment, True
            yield _answer(classifier, source, window)
    if window.frames and not answered:  # it was shorter than a view
        yield _answer(classifier, source, window)


def span(classifier: Classifier) -> float:
    """Seconds that one view sees."""
    spec = classifier.spec.input
    rate = classifier.fps if isinstance(classifier.fps, (int, float)) else spec.fps or USUAL_RATE
    return ((spec.num_frames - 1) * spec.stride + 1) / rate


@dataclass
class _Window:
    """The frames of the last seconds, with the times when they were shown and when they arrived."""

    seconds: float
    frames: deque[tuple[float, np.ndarray, float]] = field(default_factory=lambda: deque(maxlen=MAX_HELD))
    full: bool = False

    def add(self, moment: float, frame: np.ndarray) -> None:
        if self.frames and moment < self.frames[-1][0]:  # the source began again
            self.frames.clear()
            self.full = False
        self.frames.append((moment, frame, time.monotonic()))
        while len(self.frames) > 2 and moment - self.frames[1][0] >= self.seconds:
            self.frames.popleft()
            self.full = True
        self.full = self.full or len(self.frames) == MAX_HELD


class _Source:
    """The frames of a source as a worker sends them.

    Raises:
        VideoError: While iterating: see `watch`.
    """

    def __init__(self, source: str, transform: FrameTransform, timeout: float) -> None:
        self._request = {"op": "live", "path": source, "transform": transform}
        self._name, self._timeout = shown_url(source), timeout
        self._worker = Worker(_ENTRY, DEFAULT_MAX_MEMORY)

    def __iter__(self) -> Iterator[Received]:
        worker = self._worker
        try:
            for header, body in worker.stream(self._name, self._request, self._timeout, DEFAULT_MAX_MEMORY):
                if header["type"] == "done":
                    return
                yield header["time"], np.frombuffer(body, header["dtype"]).reshape(header["shape"])
        except AnsweredError as answered:
            raise answered.error from None
        finally:
            worker.kill()

    def stop(self) -> None:
        """End it from another thread than the one that iterates."""
        self._worker.abort()


class _Arrivals:
    """What a live source has sent since it was last asked, kept by a thread."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._arrived: deque[Received] = deque(maxlen=MAX_HELD)
        self._ready = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._receive, name="vidcls-live", daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        try:
            for item in self._source:
                with self._ready:
                    self._arrived.append(item)
                    self._ready.notify()
        except BaseException as error:
            self._error = error
        with self._ready:
            self._ended = True
            self._ready.notify()

    def __iter__(self) -> Iterator[list[Received]]:
        """Yield all that has come since, as soon as there is something."""
        try:
            while items := self._take():
                yield items
            if self._error is not None:
                raise self._error
        finally:
            if self._thread.is_alive():
                self._source.stop()
                self._thread.join(5)

    def _take(self) -> list[Received]:
        with self._ready:
            while not self._arrived and not self._ended:
                self._ready.wait(0.2)  # awake now and then, so that Ctrl-C is heard everywhere
            items = list(self._arrived)
            self._arrived.clear()
            return items


def _answer(classifier: Classifier, source: str, window: _Window) -> Moment:
    start = time.perf_counter()
    moments, frames, arrivals = zip(*window.frames, strict=True)
    spec = classifier.spec.input
    times = np.asarray(moments, np.float64) - moments[0]
    length = float(times[-1])
    rate = (len(times) - 1) / length if length > 0 else USUAL_RATE
    plan = plan_clips(spec, num_frames=len(times), fps=rate, timestamps=times, target_fps=classifier.fps)
    height, width = frames[0].shape[:2]
    name = shown_url(source)
    info = VideoInfo(name, len(times), rate, length, width, height, 0, "", "pyav", times, False)
    taken = np.stack([frames[index] for index in plan.unique])
    clip = Clip(taken, plan.unique, plan, spec, info, "pyav", plan.warnings)
    logits, _ = classifier.clip_logits(clip)
    prediction = classifier.prediction(
        name, clip, classifier.scores(logits), logits.mean(axis=0), seconds=time.perf_counter() - start
    )
    return Moment(moments[-1], prediction, time.monotonic() - arrivals[-1])
