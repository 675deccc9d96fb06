"""Whole videos, and stored features: frames through the backbone piece by piece, then one pass over time.

For models that look at each frame by itself first (VTN, and image models frame by frame). A clip is decoded in
pieces, each piece goes through the backbone and is forgotten, and only the features are kept: 3 kB a frame for ViT-B,
0.28 GB for an hour at 25 frames/s, where the frames themselves would be 54 GB. Imports no torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import InputError, UsageError, VideoError
from vidcls.inference.classifier import Classifier
from vidcls.inference.clip import Clip
from vidcls.inference.feature_store import Features, FeatureStore, clip_identity
from vidcls.inference.prediction import Prediction
from vidcls.inference.shared_units import batches
from vidcls.video.fetch import opened
from vidcls.video.reader import VideoInfo, VideoReader
from vidcls.video.sources import Source
from vidcls.views.sampling import whole_file
from vidcls.views.transform import ClipPlan, clip_crop, frame_transform, pixel_scale_shift, plan_clips
from vidcls.zoo.weights import checksum

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""(name of the clip, frames done, frames in all); called after each piece."""

ARCHITECTURES = ("vtn", "vit-frames", "vt-frames")

# Frames that go through the backbone together. More is no faster on a CPU; with ViT-B at 224 pixels a piece of this
# size takes some 200 MB.
ENCODE_BATCH = 32
# Decoded frames that are held at once, twice: one piece is decoded while the one before it is encoded.
PIECE_BYTES = 64 << 20
PIECE_FRAMES = (ENCODE_BATCH, 1024)
# Features of an unfinished clip are stored after as many seconds, so that a power cut loses no more.
SAVE_SECONDS = 300.0
MAX_FRAMES = 2_000_000  # of one clip: 22 hours at 25 frames/s, whose features take 6 GB with ViT-B


class WholeVideo:
    """Classifies clips by the features of their frames.

    Args:
        classifier: The loaded model.
        every_frame: Take every frame of the file at the model's stride, instead of the clips that it was tested on.
        features: Folder in which features are kept; None keeps none.
        weights: The weights' file or folder, by whose checksum stored features are told apart; None where the
            weights are random.
        reader: Reads the clips; by default one of its own.
        progress: Called as a clip advances.

    Raises:
        UsageError: The model has no features of single frames.
        OutputError: The folder cannot be made.
        WeightsError: The weights cannot be read.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        every_frame: bool = True,
        features: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        reader: VideoReader | None = None,
        progress: Progress | None = None,
    ) -> None:
        if classifier.engine.unit_frames != 1:
            raise UsageError(
                "num_frames=all" if features is None else "features",
                f"{classifier.spec.name} is a {classifier.spec.architecture}, which has no features of single frames",
                f"choose a model of {', '.join(ARCHITECTURES)}",
            )
        self.classifier = classifier
        self.every_frame = every_frame
        self._spec = classifier.spec.input
        if every_frame:
            self._spec = self._spec.model_copy(update={"num_views": 1})
        self._affine = pixel_scale_shift(self._spec)
        self._transform = frame_transform(self._spec)
        self._reader = reader if reader is not None else VideoReader()
        self._progress = progress
        self._store = None
        if features is not None:
            self._store = FeatureStore(features, feature_settings(classifier, weights))

    def predict(self, path: str | os.PathLike[str] | bytes, top_k: int = 5) -> Prediction:
        """Classify one clip; see `Classifier.predict`.

        Raises:
            VideoError: The clip cannot be read.
            DeviceError: Memory ran out.
            OutputError: Features cannot be stored.
        """
        name = "-" if isinstance(path, bytes) else os.fspath(path)
        return self._predict(name, path, False, top_k)

    def predict_many(
        self, clips: Iterable[Source | str | os.PathLike[str]], top_k: int = 5
    ) -> Iterator[Prediction]:
        """Classify clips, in order; one that cannot be read gets a prediction with ``error`` set."""
        for clip in clips:
            source = clip if isinstance(clip, Source) else Source(str(clip), os.fspath(clip))
            try:
                with opened(source) as found:
                    yield self._predict(source.path, found, source.is_remote, top_k)
            except InputError as error:
                failed = self.classifier.failed(source.path, error)
                failed.row.update(self._row(None))
                yield failed

    def plan(self, info: VideoInfo) -> ClipPlan:
        """Choose the frames of a clip.

        Raises:
            VideoError: They are more than can be held.
        """
        fps = self.classifier.fps
        plan = plan_clips(
            self._spec,
            num_frames=info.num_frames,
            fps=info.fps,
            timestamps=info.timestamps,
            target_fps="native" if self.every_frame and fps == "auto" else fps,
            rules={self._spec.sampling: whole_file} if self.every_frame else None,
        )
        if plan.indices.size > MAX_FRAMES:
            problem = f"{plan.indices.size:,} frames are more than {MAX_FRAMES:,}"
            raise VideoError(info.path, problem, "choose a larger stride", kind="too_large")
        return plan

    def features(
        self, clip: str | os.PathLike[str] | bytes, temporary: bool = False
    ) -> tuple[Features, ClipPlan]:
        """Return the features of at least the frames that the clip's plan needs, and the plan.

        What is stored is neither decoded nor encoded again; what is new is stored.

        Args:
            clip: A video file, or a clip's bytes.
            temporary: The file is a download that has another name each time.

        Raises:
            VideoError: The clip cannot be read.
            OutputError: The features cannot be stored.
        """
        identity, found = None, None
        if self._store is not None:
            identity = self._identify(clip, temporary)
            found = None if identity is None else self._store.get(identity)
        opened = found is None
        info = self._reader.open(clip) if found is None else found.info
        plan = self.plan(info)
        if found is None:
            empty = np.empty((self._spec.num_crops, 0, 0), np.float32)
            found = Features(np.empty(0, np.int64), empty, info, "", ())
        missing = np.setdiff1d(plan.unique, found.indices, assume_unique=True)
        if len(missing):
            if not opened:
                self._reader.open(clip)
            found = self._extend(found, missing, identity)
        return found, plan

    def logits(self, features: Features, plan: ClipPlan) -> Floats:
        """Score a clip's views by the features of its frames → logits (v, k), crop-major."""
        engine, parts = self.classifier.engine, []
        where = np.searchsorted(features.indices, plan.indices)
        for values in features.values:
            for view in range(len(where)):
                indices = plan.indices[view : view + 1] if self.classifier.uses_frame_indices else None
                parts.append(engine.classify(values[where[view]][None], indices))
        return np.concatenate(parts)

    def _predict(
        self, name: str, clip: str | os.PathLike[str] | bytes, temporary: bool, top_k: int
    ) -> Prediction:
        start = time.perf_counter()
        features, plan = self.features(clip, temporary)
        logits = self.logits(features, plan)
        warnings = dict.fromkeys((*features.info.warnings, *features.warnings, *plan.warnings))
        read = Clip(
            frames=np.empty((0, *self._spec.image_size, 3), np.uint8),  # they are gone
            frame_indices=plan.unique,
            plan=plan,
            spec=self._spec,
            info=features.info,
            decoder=features.decoder,
            warnings=tuple(warnings),
        )
        result = self.classifier.prediction(
            name,
            read,
            self.classifier.scores(logits),
            logits.mean(axis=0),
            top_k,
            time.perf_counter() - start,
        )
        result.row.update(self._row(plan))
        return result

    def _row(self, plan: ClipPlan | None) -> dict[str, Any]:
        """What a result says of its views, where that is not as the model has it."""
        if not self.every_frame:
            return {}
        return {"views": 1, "frames": None if plan is None else plan.indices.shape[1]}

    def _identify(self, clip: str | os.PathLike[str] | bytes, temporary: bool) -> dict[str, Any] | None:
        try:
            return clip_identity(clip, temporary)
        except (OSError, ValueError):
            return None  # the reader says what is wrong with the file

    def _extend(
        self, found: Features, missing: NDArray[np.int64], identity: dict[str, Any] | None
    ) -> Features:
        """Add the features of frames; what was encoded is stored even where the clip breaks off."""
        pieces: list[Features] = []
        saved = time.monotonic()
        try:
            for piece in self._encode(found.info, missing):
                pieces.append(piece)
                if identity is not None and time.monotonic() - saved > SAVE_SECONDS:
                    found, pieces = _joined(found, pieces), []
                    self._save(identity, found)
                    saved = time.monotonic()
        finally:
            if pieces:
                found = _joined(found, pieces)
                self._save(identity, found)
        return found

    def _save(self, identity: dict[str, Any] | None, features: Features) -> None:
        if self._store is not None and identity is not None:
            self._store.put(identity, features)

    def _encode(self, info: VideoInfo, wanted: NDArray[np.int64]) -> Iterator[Features]:
        """Decode and encode frames of the open clip, piece by piece; the next is decoded meanwhile."""
        done = 0
        with closing(self._reader.stream(wanted, self._transform, self._piece_frames())) as pieces:
            pixel_type = np.dtype(np.float32 if self._spec.resize_rule == "float" else np.uint8)
            self.classifier.engine.prepare(pixel_type, self._affine)
            for decoded in pieces:
                values = self._encode_piece(decoded.frames)
                done += len(decoded.indices)
                if self._progress is not None:
                    self._progress(info.path, done, len(wanted))
                yield Features(decoded.indices, values, info, decoded.decoder, decoded.warnings)

    def _encode_piece(self, frames: NDArray[Any]) -> Floats:
        """Frames (n, h', w', 3) → features (crops, n, d)."""
        crops = []
        for crop in range(self._spec.num_crops):
            cut = clip_crop(frames, self._spec, crop)[:, None]  # each frame is a unit of one
            encode = self.classifier.engine.encode
            crops.append(
                np.concatenate([encode(cut[part], self._affine) for part in batches(len(cut), ENCODE_BATCH)])
            )
        return np.stack(crops)

    def _piece_frames(self) -> int:
        height, width = self._spec.image_size
        size = 3 * height * width * (4 if self._spec.resize_rule == "float" else 1)
        size *= 2 if self._spec.num_crops > 1 else 1  # what lies between the crops is kept too
        least, most = PIECE_FRAMES
        return int(min(most, max(least, PIECE_BYTES // size)))


def feature_settings(classifier: Classifier, weights: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return all but the clip that features depend on: weights, preprocessing, and what runs the model."""
    spec = classifier.spec
    pixels = (
        "image_size num_crops resize resize_rule interpolation center_crop scale offset mean std channels"
    )
    return {
        "weights": "random" if weights is None else checksum(Path(weights)),
        "architecture": spec.architecture,
        "config": spec.config,
        "input": spec.input.model_dump(mode="json", include=set(pixels.split())),
        "engine": [classifier.engine.name, classifier.engine.precision],
        **({"merge_tokens": classifier.merge_tokens} if classifier.merge_tokens else {}),
    }


def _joined(found: Features, pieces: list[Features]) -> Features:
    """Join all at once; one by one would copy what is there again for each piece."""
    first = pieces[0]
    if len(pieces) > 1:
        first = replace(
            first,
            indices=np.concatenate([piece.indices for piece in pieces]),
            values=np.concatenate([piece.values for piece in pieces], axis=1),
            decoder=pieces[-1].decoder,
            warnings=_warnings(pieces),
        )
    return found.joined(first)


def _warnings(pieces: list[Features]) -> tuple[str, ...]:
    """What was said of the pieces: where one decoder does them all, it says the same of each in other numbers."""
    said: dict[str, None] = {}
    decoder = ""
    for piece in pieces:
        if piece.decoder != decoder:
            said.update(dict.fromkeys(piece.warnings))
            decoder = piece.decoder
    return tuple(said)
