"""Views → scores: one model made ready, and what every command scores clips with."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidcls.config import InputSpec, ModelSpec
from vidcls.engines import Engine, Floats
from vidcls.errors import InputError, UsageError, VidclsError
from vidcls.output.row import Row
from vidcls.video import sources
from vidcls.video.reader import VideoInfo, VideoReader
from vidcls.views.transform import (
    ClipPlan,
    clip_crop,
    frame_transform,
    make_views,
    pixel_scale_shift,
    plan_clips,
)

Fps = Literal["auto", "native"] | float
# Views that go through the model together; more would only cost memory on a CPU.
VIEW_BATCH = 4
# Frames that go through a spatial encoder together.
FRAME_BATCH = 64


@dataclass(frozen=True)
class Clip:
    """One clip read, ready to be cut into views.

    Attributes:
        frames: (n, h', w', 3) each frame once, resized as the checkpoint wants it; uint8, or floats in 0..255.
        frame_indices: (n,) their numbers in the file, sorted.
        plan: Which of them make up each clip in time.
        spec: How the checkpoint sees a video.
        info: The file's metadata.
        decoder: The decoder that delivered the frames.
        warnings: What a person should know about them.
    """

    frames: NDArray[Any]
    frame_indices: NDArray[np.int64]
    plan: ClipPlan
    spec: InputSpec
    info: VideoInfo
    decoder: str
    warnings: tuple[str, ...]

    @cached_property
    def views(self) -> Floats:
        """(v, c, t, h, w) float32, normalized; crop-major: all clips of the first crop, then those of the second."""
        return make_views(self.frames, self.frame_indices, self.plan, self.spec)

    @property
    def view_indices(self) -> NDArray[np.int64]:
        """(v, t) numbers in the file of each view's frames."""
        return np.tile(self.plan.indices, (self.spec.num_crops, 1))


@dataclass(frozen=True)
class Prediction:
    """What a model says of one clip; ``row`` is the form in which it is written.

    Attributes:
        row: The fields of one result; see ``vidcls.output.row.Row``.
        scores: (k,) one score per class, or None when the clip could not be scored.
        logits: (k,) mean of the logits over the views, or None.
        seconds: Wall time spent on the clip.
        units: For models that encode frames or tubelets by themselves: how many the views have together, and how
            many of them are different and were encoded.
        error: Why the clip could not be scored.
    """

    row: dict[str, Any]
    scores: Floats | None = None
    logits: Floats | None = None
    seconds: float = 0.0
    units: tuple[int, int] | None = None
    error: VidclsError | None = field(default=None, compare=False)


class Classifier:
    """One model made ready: views in, averaged scores out.

    Args:
        engine: Runs the model.
        spec: Which model it is and how it sees a video.
        labels: One per class.
        weights: Where the weights come from, as it is written into results.
        fps: ``auto`` spaces frames in time as at the training clips' rate, ``native`` takes frames as they are
            counted in the file, a number is a rate in 1/s.
        average: Average the views' ``logits``, or their ``probs``; None does as ``spec`` says.
        reader: Reads the clips; by default one of its own.
        uses_frame_indices: Whether the model wants to be told the frames' numbers (VTN).
        warnings: Printed with every result.
        notes: Choices that the checkpoint left open and the loader made; for people, once.
    """

    def __init__(
        self,
        engine: Engine,
        spec: ModelSpec,
        labels: tuple[str, ...],
        *,
        weights: str,
        fps: Fps = "auto",
        average: Literal["logits", "probs"] | None = None,
        reader: VideoReader | None = None,
        uses_frame_indices: bool = False,
        warnings: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.engine = engine
        self.spec = spec
        self.labels = labels
        self.weights = weights
        self.fps = fps
        self.average = average or spec.input.average
        self.uses_frame_indices = uses_frame_indices
        self.warnings = warnings
        self.notes = notes
        self._reader = reader if reader is not None else VideoReader()
        self._transform = frame_transform(spec.input)
        self._pixel_type = np.dtype(np.float32 if spec.input.resize_rule == "float" else np.uint8)

    def close(self) -> None:
        """Stop the decoding process."""
        self._reader.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, clip: str | os.PathLike[str] | bytes, reader: VideoReader | None = None) -> Clip:
        """Read one video file, or one clip's bytes, and cut it into views.

        Args:
            clip: A video file, or a clip's bytes.
            reader: Reads it in place of the classifier's own: several threads may read, each with one of its own.

        Raises:
            VideoError: It cannot be read.
        """
        reader = reader if reader is not None else self._reader
        info = reader.open(clip)
        spec = self.spec.input
        plan = plan_clips(
            spec, num_frames=info.num_frames, fps=info.fps, timestamps=info.timestamps, target_fps=self.fps
        )
        decoded = reader.read(plan.unique, self._transform)
        warnings = (*info.warnings, *(w for w in decoded.warnings if w not in info.warnings), *plan.warnings)
        return Clip(decoded.frames, decoded.indices, plan, spec, info, decoded.decoder, warnings)

    def logits(self, views: Any, frame_indices: NDArray[np.int64] | None = None) -> Floats:
        """Score views as they are: (v, c, t, h, w) → (v, k).

        Args:
            views: Array or tensor, already cropped and normalized as this checkpoint wants it.
            frame_indices: (v, t) numbers of the frames, for models that use them; 0, 1, 2 … by default.
        """
        array = np.asarray(views, dtype=np.float32)
        if array.ndim != 5:
            raise UsageError("views", f"have {array.ndim} axes, not 5", "pass (v, c, t, h, w)")
        if not self.uses_frame_indices:
            frame_indices = None
        parts = []
        for start in range(0, len(array), VIEW_BATCH):
            stop = start + VIEW_BATCH
            indices = None if frame_indices is None else frame_indices[start:stop]
            parts.append(self.engine(array[start:stop], indices))
        return np.concatenate(parts)

    def scores(self, logits: Floats) -> Floats:
        """Average the logits (v, k) of one clip's views into scores (k,) that sum to one.

        Scenic and TimeSformer average logits (a sum of logits ranks the same); VideoMAE averages the views' softmax,
        ``average="probs"``.
        """
        if self.average == "probs":
            mean: Floats = softmax(logits).mean(axis=0)
            return mean
        return softmax(logits.mean(axis=0))

    def classify(self, clip: Clip) -> tuple[Floats, Floats]:
        """Score one clip's views → scores (k,) and mean logits (k,)."""
        logits = self.clip_logits(clip)[0]
        return self.scores(logits), logits.mean(axis=0)

    def clip_logits(self, clip: Clip) -> tuple[Floats, tuple[int, int] | None]:
        """Score one clip's views → logits (v, k); they stay pixels until they are where the model runs.

        Where the model encodes frames or tubelets by themselves, one that several views share is encoded once; the
        second value says how many there are, and how many of them were encoded.
        """
        indices = clip.view_indices if self.uses_frame_indices else None
        if self.engine.unit_frames:
            return shared_logits(self.engine, clip, indices)
        scale_shift = pixel_scale_shift(clip.spec)
        parts = []
        for views in batches(len(clip.view_indices), VIEW_BATCH):
            pixels = clip_pixels(clip, views)
            parts.append(self.engine(pixels, None if indices is None else indices[views], scale_shift))
        return np.concatenate(parts), None

    def predict(self, path: str | os.PathLike[str] | bytes, top_k: int = 5) -> Prediction:
        """Say what is in one clip.

        Args:
            path: A video file, or a clip's bytes.
            top_k: How many labels to give, best first.

        Raises:
            VideoError: The clip cannot be read.
            DeviceError: Memory ran out.
        """
        start = time.perf_counter()
        clip = self.read(path)
        name = "-" if isinstance(path, bytes) else os.fspath(path)
        return self._predict_clip(name, clip, top_k, start)

    def predict_many(
        self, clips: Iterable[sources.Source | str | os.PathLike[str]], top_k: int = 5
    ) -> Iterator[Prediction]:
        """Say what is in each clip, in order; a clip that cannot be read gets a prediction with ``error`` set.

        The next clip is decoded while the model is busy with the one before it.
        """
        queue = (
            clip if isinstance(clip, sources.Source) else sources.Source(os.fspath(clip), os.fspath(clip))
            for clip in clips
        )
        stop = threading.Event()
        with (
            ThreadPoolExecutor(1, thread_name_prefix="vidcls-read") as pool,
            contextlib.ExitStack() as ending,
        ):
            ending.callback(stop.set)  # an interrupted download ends at once
            ahead: Future[tuple[sources.Source, Clip | VidclsError, float]] | None = None
            for source in queue:
                behind, ahead = ahead, pool.submit(self._read_source, source, stop)
                if behind is None:
                    # While the first clip is decoded: this may import torch, load weights and compile.
                    self.engine.prepare(self._pixel_type, pixel_scale_shift(self.spec.input))
                if behind is not None:
                    yield self._finish(*behind.result(), top_k)
            if ahead is not None:
                yield self._finish(*ahead.result(), top_k)

    def failed(self, name: str, error: VidclsError) -> Prediction:
        """Return the result of a clip that could not be scored."""
        return Prediction(self._row(name) | {"error": str(error)}, error=error)

    def _read_source(
        self, source: sources.Source, stop: threading.Event
    ) -> tuple[sources.Source, Clip | VidclsError, float]:
        start = time.perf_counter()
        try:
            if source.is_url:
                source = sources.fetch(source, stop)
            if source.error is not None:
                return source, source.error, start
            if source.clip is None:
                raise InputError(source.name, "there is nothing to read", "name a file")
            try:
                return source, self.read(source.clip), start
            except InputError as error:
                # The person named an address or standard input, not the temporary file behind it.
                return source, type(error)(source.name, error.problem, error.remedy, kind=error.kind), start
        except VidclsError as error:
            return source, error, start
        finally:
            sources.discard(source)

    def _finish(
        self, source: sources.Source, clip: Clip | VidclsError, start: float, top_k: int
    ) -> Prediction:
        if isinstance(clip, InputError):
            return self.failed(source.name, clip)
        if isinstance(clip, VidclsError):
            raise clip
        return self._predict_clip(source.name, clip, top_k, start)

    def _predict_clip(self, name: str, clip: Clip, top_k: int, start: float) -> Prediction:
        logits, units = self.clip_logits(clip)
        scores = self.scores(logits)
        mean: Floats = logits.mean(axis=0)
        prediction = self.prediction(name, clip, scores, mean, top_k, time.perf_counter() - start)
        return replace(prediction, units=units)

    def prediction(
        self, name: str, clip: Clip, scores: Floats, logits: Floats, top_k: int = 5, seconds: float = 0.0
    ) -> Prediction:
        """Make the result of a clip's averaged scores (k,) and logits (k,); the clip's views are not looked at."""
        best = np.argsort(-scores, kind="stable")[:top_k]
        row = self._row(name) | {
            "fps": round(clip.info.fps, 6),
            "duration": round(clip.info.duration, 6),
            "decoder": clip.decoder,
            "predictions": [
                {"rank": rank, "index": int(i), "label": self.labels[i], "score": float(scores[i])}
                for rank, i in enumerate(best, 1)
            ],
            "warnings": [*self.warnings, *clip.warnings],
        }
        return Prediction(row, scores, logits, seconds)

    def _row(self, name: str) -> dict[str, Any]:
        spec = self.spec.input
        return Row(
            path=name,
            model=self.spec.name,
            weights=self.weights,
            views=spec.num_views,
            crops=spec.num_crops,
            num_frames=spec.num_frames,
            stride=spec.stride,
            warnings=list(self.warnings),
        ).to_dict()


def batches(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` things into slices of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def clip_pixels(clip: Clip, views: slice) -> NDArray[Any]:
    """Cut some of a clip's views, before normalization: (v, t, h, w, 3)."""
    clips = len(clip.plan.indices)
    cut = []
    for view in range(views.start, views.stop):
        places = np.searchsorted(clip.frame_indices, clip.plan.indices[view % clips])
        cut.append(clip_crop(clip.frames, clip.spec, view // clips)[places])
    return cut[0][None] if len(cut) == 1 else np.stack(cut)


def shared_logits(
    engine: Engine, clip: Clip, indices: NDArray[np.int64] | None
) -> tuple[Floats, tuple[int, int]]:
    """Score a clip's views by a model that encodes units by themselves, each different unit once.

    Two units are the same where they hold the same frames in the same order, in the same crop.

    Returns:
        Logits (v, k); and how many units the views have together, and how many were encoded.
    """
    clips, frames = clip.plan.indices.shape
    size = engine.unit_frames
    places = np.searchsorted(clip.frame_indices, clip.plan.indices).reshape(-1, size)
    units, where = np.unique(places, axis=0, return_inverse=True)
    where = where.reshape(clips, frames // size)
    scale_shift = pixel_scale_shift(clip.spec)
    logits = []
    for crop in range(clip.spec.num_crops):
        cut = clip_crop(clip.frames, clip.spec, crop)
        some = batches(len(units), max(1, FRAME_BATCH // size))
        features = np.concatenate([engine.encode(cut[units[part]], scale_shift) for part in some])
        for part in batches(clips, VIEW_BATCH):
            given = None if indices is None else indices[part]  # each crop has the same frames
            logits.append(engine.classify(features[where[part]], given))
    crops = clip.spec.num_crops
    return np.concatenate(logits), (crops * where.size, crops * len(units))


def softmax(logits: Floats) -> Floats:
    """Return the softmax of (..., k) over its last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result
