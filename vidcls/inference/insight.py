"""What a loaded model tells about a clip besides its labels: its vectors, and where it looked. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal, cast

from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.config import ModelSpec
    from vidcls.engines import Engine
    from vidcls.engines.select import EngineRequest
    from vidcls.explain.explanation import Explanation
    from vidcls.inference.classifier import Classifier, ClipLike
    from vidcls.inference.embed import Embedder, Embedding
    from vidcls.timeline.result import Timeline
    from vidcls.video.reader import VideoReader
    from vidcls.video.sources import Source
    from vidcls.zoo.find import Found


class Insight:
    """What `Classifier` can do with the model behind its engine."""

    engine: Engine
    spec: ModelSpec
    labels: tuple[str, ...]
    uses_frame_indices: bool
    origin: tuple[Found, EngineRequest] | None
    _reader: VideoReader
    _embedders: dict[tuple[str, str], Embedder]

    def embed(
        self,
        clip: ClipLike,
        *,
        layer: Literal["head", "cls", "mean"] = "head",
        per: Literal["clip", "view", "frame"] = "clip",
        frame_rate: float | None = None,
    ) -> Embedding:
        """Return what the model makes of a clip just before its classifier: vectors that are near for like clips.

        Args:
            clip: As in `predict`.
            layer: ``head`` for what the classifier's last layer reads, ``cls`` for the class token after the last
                block, ``mean`` for the mean of the other tokens.
            per: One vector for the ``clip``, for each ``view``, or for each ``frame`` or tubelet of each view.
            frame_rate: As in `predict`.

        Raises:
            UsageError: The model has no such vectors.
            VideoError: The clip cannot be read.
            DeviceError: Memory ran out.
        """
        if (layer, per) not in self._embedders:
            self._embedders[layer, per] = self._embedder(layer, per)
        return self._embedders[layer, per].embed(clip, frame_rate=frame_rate)

    def _embedder(self, layer: str, per: str) -> Embedder:
        from vidcls.engines.embedding import EmbeddingRequest, embedding_engine
        from vidcls.inference.embed import Embedder

        (found, request), wanted = self.model_behind(), EmbeddingRequest(layer, per)
        engine = embedding_engine(found, self.spec.input, request, wanted)
        return Embedder(found, wanted, cast("Classifier", self).running(engine))

    def explain(
        self,
        clip: ClipLike | Source,
        *,
        target: str | int | None = None,
        method: str = "gradient",
        cells: tuple[int, int, int] | None = None,
        frame_rate: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Explanation:
        """Return where and when in a clip the model looked.

        Args:
            clip: As in `predict`.
            target: The class to explain: a label, ``rank N``, an index, or None for the best.
            method: ``rollout`` follows the attention, whatever the class; ``gradient`` weighs it by what spoke for the
                class; ``occlusion`` covers one part after the other, and needs nothing of the model but its engine.
            cells: For ``occlusion``: into how many parts a view is cut along (t, h, w); (8, 7, 7) at most by default.
            frame_rate: As in `predict`.
            progress: Called with the number of cells of ``occlusion`` that are done, and of all.

        Raises:
            UsageError: There is no such class or method, or the model has no attention over patches.
            VideoError: The clip cannot be read.
            DeviceError: Memory ran out.
        """
        from vidcls.explain.run import Scored, explain

        own = cast("Classifier", self)
        name, read = own.read_any(clip, frame_rate)
        scores = own.scores(own.clip_logits(read)[0])
        warnings = (*own.warnings, *read.warnings)
        scored = Scored(name, read, self.spec, self.labels, scores, self.uses_frame_indices, warnings)
        return explain(scored, self.engine, self.model_behind, target, method, cells, progress)

    def timeline(
        self,
        path: str | os.PathLike[str] | bytes,
        *,
        by: Literal["windows", "shots"] = "windows",
        window: float | None = None,
        step: float | None = None,
        min_length: float | None = None,
        threshold: float = 0.5,
        top_k: int = 3,
    ) -> Timeline:
        """Say what happens when in a long video: segments with label, start, end and score.

        Args:
            path: A path, an http(s) URL, or a video file's bytes.
            by: ``windows`` for dense overlapping windows, ``shots`` for what lies between cuts (PySceneDetect).
            window: Length of a window in seconds; None means the model's own clip length.
            step: Seconds from window to window; None means half a window.
            min_length: Minimum length of a segment in seconds; None means 1 s by windows, and no minimum by shots.
            threshold: Score, 0 to 1, that a label must reach; see `vidcls.timeline.segments` for the whole rule.
            top_k: Number of labels per segment.

        Raises:
            UsageError: The settings are not valid.
            VideoError: The video cannot be read.
            DependencyError: PySceneDetect is not installed.
            DeviceError: Memory ran out.
        """
        make = resolve_name("vidcls.timeline.make:timeline")  # a room above this one
        found: Timeline = make(
            self,
            path,
            reader=self._reader,
            by=by,
            window=window,
            step=step,
            min_length=min_length,
            threshold=threshold,
            top_k=top_k,
        )
        return found

    def model_behind(self) -> tuple[Found, EngineRequest]:
        """Return the model that the engine runs, and what was asked of the engine.

        Raises:
            UsageError: This classifier was not made by `vidcls.load`.
        """
        if self.origin is None:
            raise UsageError(self.spec.name, "has only an engine", "load the model with vidcls.load")
        return self.origin
