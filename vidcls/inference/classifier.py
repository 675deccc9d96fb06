"""Views → scores: a loaded model, with which every command scores clips."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidcls.config import ModelSpec
from vidcls.engines import Engine, Floats
from vidcls.errors import InputError, UsageError, VidclsError, VideoError
from vidcls.inference.activations import ACTIVATIONS
from vidcls.inference.auto_views import Rounds, StopRule, first_frames, score_rounds
from vidcls.inference.clip import IN_MEMORY, Clip, FramesSource, clip_of_frames, source_of
from vidcls.inference.insight import Insight
from vidcls.inference.prediction import Prediction
from vidcls.inference.settings import Fps
from vidcls.inference.shared_units import VIEW_BATCH, batches, score_clip
from vidcls.output.row import SCORES, VIEWS_USED, Row
from vidcls.video.fetch import opened
from vidcls.video.reader import VideoReader
from vidcls.video.sources import Source
from vidcls.views.transform import frame_transform, pixel_scale_shift, plan_clips

if TYPE_CHECKING:
    import torch

    from vidcls.engines.select import EngineRequest
    from vidcls.zoo.find import Found

    Path = str | os.PathLike[str]
    ClipLike = Path | bytes | NDArray[np.uint8] | torch.Tensor


class Classifier(Insight):
    """A loaded model: views in, averaged scores out.

    Args:
        engine: Runs the model.
        spec: Which model it is and how it sees a video.
        labels: One per class.
        weights: Where the weights come from, as it is written into results.
        fps: ``auto`` spaces frames in time as at the training clips' rate, ``native`` takes frames as they are
            counted in the file, a number is a rate in 1/s.
        reader: Reads the clips; by default one of its own.
        uses_frame_indices: Whether the model takes the frames' numbers (VTN).
        warnings: Printed with every result.
        notes: Choices that the loader made where the checkpoint left them open.
        origin: The model and what was asked of its engine, which embeddings and explanations need.

    Attributes:
        stop_rule: When the views seen of a clip are enough; None: always all.
    """

    stop_rule: StopRule | None = None

    def __init__(
        self,
        engine: Engine,
        spec: ModelSpec,
        labels: tuple[str, ...],
        *,
        weights: str,
        fps: Fps = "auto",
        reader: VideoReader | None = None,
        uses_frame_indices: bool = False,
        warnings: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        origin: tuple[Found, EngineRequest] | None = None,
    ) -> None:
        self.engine = engine
        self.spec = spec
        self.labels = labels
        self.weights = weights
        self.fps = fps
        self.average = spec.input.average
        self.uses_frame_indices = uses_frame_indices
        self.warnings = warnings
        self.notes = notes
        self.origin = origin
        self._embedders = {}
        self._reader = reader if reader is not None else VideoReader()
        self._transform = frame_transform(spec.input)
        self._pixel_type = np.dtype(np.float32 if spec.input.resize_rule == "float" else np.uint8)

    @property
    def merge_tokens(self) -> float:
        """Share of the tokens that the engine merges away."""
        return 0.0 if self.origin is None else self.origin[1].merge_tokens

    def close(self) -> None:
        """Stop the decoding process."""
        self._reader.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        spec = self.spec.input
        return (
            f"Classifier({self.spec.name}: {self.spec.architecture}, {len(self.labels)} classes, "
            f"{spec.num_views} views x {spec.num_crops} crops of {spec.num_frames} frames, weights {self.weights})"
        )

    def read(
        self,
        clip: str | os.PathLike[str] | bytes,
        reader: VideoReader | None = None,
        *,
        all_views: bool = True,
    ) -> Clip:
        """Read one video file, or one clip's bytes, ready to be cut into views.

        Args:
            clip: A video file, or a clip's bytes.
            reader: Reads it in place of the classifier's own: several threads may read, each with one of its own.
            all_views: Whether the frames of all views are wanted; else those of the first, if that saves much.

        Raises:
            VideoError: It cannot be read.
        """
        reader = reader if reader is not None else self._reader
        info = reader.open(clip)
        spec = self.spec.input
        plan = plan_clips(
            spec, num_frames=info.num_frames, fps=info.fps, timestamps=info.timestamps, target_fps=self.fps
        )
        decoded = reader.read(plan.unique if all_views else first_frames(plan), self._transform)
        warnings = (*info.warnings, *(w for w in decoded.warnings if w not in info.warnings), *plan.warnings)
        return Clip(decoded.frames, decoded.indices, plan, spec, info, decoded.decoder, warnings)

    def complete(self, source: Source, clip: Clip, reader: VideoReader | None = None) -> Clip:
        """Read the frames that a clip lacks.

        Args:
            source: Where the clip is.
            clip: What was read of it.
            reader: As in `read`.

        Raises:
            VideoError: It cannot be read, or is another one by now.
        """
        reader = reader if reader is not None else self._reader
        with opened(source) as found:
            if reader.open(found).num_frames != clip.info.num_frames:
                raise VideoError(source.path, "changed while it was read", "try again", kind="changed")
            return clip.with_frames(reader.read(clip.missing, self._transform))

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
        parts = [
            self.engine(array[part], None if frame_indices is None else frame_indices[part])
            for part in batches(len(array), VIEW_BATCH)
        ]
        return np.concatenate(parts)

    def scores(self, logits: Floats) -> Floats:
        """Average the logits (v, k) of one clip's views into scores (k,).

        They sum to one, or are each in 0..1 where several classes may be right (``activation="sigmoid"``). Scenic and
        TimeSformer average logits (a sum of logits ranks the same); VideoMAE averages the views' softmax,
        ``average="probs"``.
        """
        mean: Floats = self.averaged(logits).mean(axis=0)
        return mean if self.average == "probs" else ACTIVATIONS[self.spec.input.activation](mean)

    def averaged(self, logits: Floats) -> Floats:
        """Turn logits (v, k) into what is averaged over views: themselves, or probabilities."""
        return ACTIVATIONS[self.spec.input.activation](logits) if self.average == "probs" else logits

    def clip_logits(self, clip: Clip) -> tuple[Floats, tuple[int, int] | None]:
        """Score one clip's views → logits (v, k), and how many units they share; see `shared_units.score_clip`."""
        return score_clip(self.engine, clip, clip.view_indices if self.uses_frame_indices else None)

    def rounds(self, clip: Clip) -> Rounds | None:
        """Return what scores a clip's views one after another; None where all are always scored."""
        if self.stop_rule is None:
            return None
        return Rounds(clip, self.stop_rule, self.engine.unit_frames, self.averaged)

    def predict(self, clip: ClipLike, top_k: int = 5, *, frame_rate: float | None = None) -> Prediction:
        """Classify one clip.

        Args:
            clip: A path, an http(s) URL, a video file's bytes, or frames in memory: uint8 RGB, an array (t, h, w, 3) or
                a tensor (t, h, w, 3) or (t, 3, h, w).
            top_k: Number of labels to report, best first.
            frame_rate: Of frames in memory, in 1/s: they are spaced in time as in training. None takes them as they
                are counted.

        Raises:
            UsageError: The clip is none of these.
            VideoError: The clip cannot be read.
            DeviceError: Memory ran out.
        """
        start = time.perf_counter()
        _check_top_k(top_k)
        source = source_of(clip)
        read = self._read_source(source, frame_rate, all_views=False)
        found = self._predict_clip(source, read, top_k, start)
        return found if source.path not in IN_MEMORY else replace(found, preview=read.preview())

    def read_any(self, clip: ClipLike | Source, frame_rate: float | None = None) -> tuple[str, Clip]:
        """Read a clip of any form, ready to be cut into views → its name, and the clip; see `predict`."""
        source = source_of(clip)
        return source.path, self._read_source(source, frame_rate)

    def running(self, engine: Engine) -> Classifier:
        """Return what reads clips as this does, and runs another engine; it has no labels."""
        return Classifier(
            engine,
            self.spec,
            (),
            weights=self.weights,
            fps=self.fps,
            reader=self._reader,
            uses_frame_indices=self.uses_frame_indices,
        )

    def predict_many(
        self, clips: Iterable[ClipLike | Source], top_k: int = 5, *, frame_rate: float | None = None
    ) -> Iterator[Prediction]:
        """Classify clips, in order; one that cannot be read gets a prediction with ``error`` set.

        The next clip is decoded while the model is busy with the one before it. Arguments are those of `predict`.

        Raises:
            UsageError: A clip is neither a file nor frames.
            DeviceError: Memory ran out.
        """
        _check_top_k(top_k)
        stop = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="vidcls-read") as pool, ExitStack() as ending:
            ending.callback(stop.set)  # an interrupted download ends at once
            ahead: Future[_Read] | None = None
            for clip in clips:
                behind, ahead = ahead, pool.submit(self._read_next, clip, frame_rate, stop)
                if behind is None:
                    # While the first clip is decoded: this may import torch, load weights and compile.
                    self.engine.prepare(self._pixel_type, pixel_scale_shift(self.spec.input))
                else:
                    yield self._finish(behind.result(), top_k, pool)
            if ahead is not None:
                yield self._finish(ahead.result(), top_k, pool)

    def failed(self, name: str, error: VidclsError) -> Prediction:
        """Return the result of a clip that could not be scored."""
        return Prediction(self._row(name) | {"error": str(error)}, error=error)

    def _read_next(self, clip: ClipLike | Source, frame_rate: float | None, stop: threading.Event) -> _Read:
        start = time.perf_counter()
        source = source_of(clip)
        try:
            return _Read(source, self._read_source(source, frame_rate, stop, all_views=False), start)
        except InputError as error:
            return _Read(source, error, start)

    def _read_source(
        self,
        source: Source | FramesSource,
        frame_rate: float | None,
        stop: threading.Event | None = None,
        all_views: bool = True,
    ) -> Clip:
        if isinstance(source, FramesSource):
            return clip_of_frames(source.frames, self.spec.input, frame_rate, self.fps)
        with opened(source, stop) as clip:
            # What has to be fetched is read in one go.
            return self.read(clip, all_views=all_views or self.stop_rule is None or source.is_remote)

    def _finish(self, read: _Read, top_k: int, pool: ThreadPoolExecutor) -> Prediction:
        if isinstance(read.clip, InputError):
            return self.failed(read.source.path, read.clip)
        try:
            return self._predict_clip(read.source, read.clip, top_k, read.start, pool)
        except InputError as error:
            return self.failed(read.source.path, error)

    def _predict_clip(
        self,
        source: Source | FramesSource,
        clip: Clip,
        top_k: int,
        start: float,
        pool: ThreadPoolExecutor | None = None,
    ) -> Prediction:
        """Score a clip; frames that it lacks are read in the pool's thread, which has the reader."""
        rounds = self.rounds(clip)
        if rounds is None:
            logits, units = self.clip_logits(clip)
        else:

            def complete(clip: Clip) -> Clip:
                assert isinstance(source, Source)
                if pool is None:
                    return self.complete(source, clip)
                return pool.submit(self.complete, source, clip).result()

            score_rounds(self.engine, rounds, self.uses_frame_indices, complete)
            logits, units = rounds.logits, rounds.units
        scores = self.scores(logits)
        mean: Floats = logits.mean(axis=0)
        prediction = self.prediction(source.path, clip, scores, mean, top_k, time.perf_counter() - start)
        return replace(prediction, units=units, row=self._with_used(prediction.row, logits))

    def prediction(
        self, name: str, clip: Clip, scores: Floats, logits: Floats, top_k: int = 5, seconds: float = 0.0
    ) -> Prediction:
        """Make the result of a clip's averaged scores (k,) and logits (k,); the clip's views are not looked at.

        Raises:
            InputError: Scores are not numbers.
        """
        if not np.isfinite(scores).all():
            problem = f"{self.spec.name} gives scores that are not numbers"
            raise InputError(
                name,
                problem,
                "try precision=fp32 and engine=eager; if that is no better, the weights are damaged",
                kind="not_numbers",
            )
        best = np.argsort(-scores, kind="stable")[:top_k]
        row = self._row(name) | {
            "fps": round(clip.info.fps, 6) or None,
            "duration": round(clip.info.duration, 6) or None,
            "decoder": clip.decoder,
            "predictions": [
                {"rank": rank, "index": int(i), "label": self.labels[i], "score": float(scores[i])}
                for rank, i in enumerate(best, 1)
            ],
            "warnings": [*self.warnings, *clip.warnings],
        }
        return Prediction(row, scores, logits, seconds)

    def outputs_row(
        self, name: str, clip: Clip, outputs: Floats, top_k: int, all_scores: bool
    ) -> dict[str, Any]:
        """Return the row of what the engine gave for a clip's views, (v, k)."""
        scores = self.scores(outputs)
        row = self.prediction(name, clip, scores, outputs.mean(axis=0), top_k).row
        row = self._with_used(row, outputs)
        return row | {SCORES: scores.tolist()} if all_scores else row

    def _with_used(self, row: dict[str, Any], logits: Floats) -> dict[str, Any]:
        """Say in a row how many views were scored, where that may differ from clip to clip."""
        return row if self.stop_rule is None else row | {VIEWS_USED: len(logits)}

    def _row(self, name: str) -> dict[str, Any]:
        spec = self.spec.input
        row = Row(
            path=name,
            model=self.spec.name,
            weights=self.weights,
            views=spec.num_views,
            crops=spec.num_crops,
            frames=spec.num_frames,
            stride=spec.stride,
            warnings=list(self.warnings),
        ).to_dict()
        return row if self.stop_rule is None else row | {VIEWS_USED: None}


def _check_top_k(top_k: int) -> None:
    if not isinstance(top_k, int) or top_k < 1:
        raise UsageError("top_k", f"{top_k!r} is not a number of labels", "give 1 or more")


@dataclass(frozen=True)
class _Read:
    """A clip that was read, or why it could not be; work on it began at ``start``."""

    source: Source | FramesSource
    clip: Clip | InputError
    start: float
