"""One video → scores of its windows: decoded once, in one go; each tubelet or frame is encoded once."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Floats
from vidcls.inference.classifier import Classifier
from vidcls.inference.clip import Clip
from vidcls.inference.shared_units import VIEW_BATCH, CutClip, batches, score_pixels
from vidcls.timeline.ahead import ahead
from vidcls.timeline.windows import Windows
from vidcls.video.reader import Frames, VideoInfo, VideoReader
from vidcls.views.transform import ClipPlan, frame_transform, pixel_scale_shift

PART = 16  # windows at most that are scored, and noted in a journal, together
PART_BYTES = 48 << 20  # of the frames that come new with them
SLOW = 0.5  # seconds for a window, from which on few are scored together: each may be the last before Ctrl-C
PIECE = 64  # frames that the decoder hands over together


@dataclass
class Film:
    """A video that a reader has open, cut into windows or shots that are scored.

    Args:
        classifier: Scores them.
        reader: Has the video open.
        info: The video.

    Attributes:
        windows: The windows, or the shots.
        decoder: What decoded the frames, once there were some.
        warnings: What the user should know about them, complete at the end.
        units: Frames or tubelets that the windows scored so far have together, and how many were encoded; both stay 0
            where nothing is shared.
    """

    classifier: Classifier
    reader: VideoReader
    info: VideoInfo
    windows: Windows = field(init=False)
    decoder: str = field(default="", init=False)
    warnings: dict[str, None] = field(default_factory=dict, init=False)
    units: tuple[int, int] = field(default=(0, 0), init=False)

    def parts(self) -> list[slice]:
        """Cut the windows into parts that are scored together; the same for every run."""
        raise NotImplementedError

    def scores(self, parts: list[slice]) -> Generator[tuple[slice, Floats], None, None]:
        """Score some parts, in order and in pieces → (windows, scores (n, k)).

        Raises:
            VideoError: The video cannot be read any further.
            DeviceError: Memory ran out.
        """
        raise NotImplementedError


@dataclass
class Scan(Film):
    """Windows, each sampled as the model samples a clip of that length."""

    windows: Windows

    def parts(self) -> list[slice]:
        height, width = self.classifier.spec.input.image_size
        new = max(1, len(np.unique(self.windows.indices[:64])) // min(len(self.windows), 64))
        size = new * height * width * 3 * (4 if self.classifier.spec.input.resize_rule == "float" else 1)
        return list(batches(len(self.windows), int(np.clip(PART_BYTES // size, 1, PART))))

    def scores(self, parts: list[slice]) -> Generator[tuple[slice, Floats], None, None]:
        """Score some parts; the first window comes by itself, to be there soon, and a slow model's few at a time."""
        if not parts:
            return
        wanted = np.unique(np.concatenate([self.windows.indices[part].ravel() for part in parts]))
        transform = frame_transform(self.classifier.spec.input)
        with ahead(lambda: self.reader.stream(wanted, transform, PIECE), self.reader.abort) as stream:
            frames = _Frames(stream)
            encoded = _Units(self.classifier, self.windows)
            size = 1
            for part in parts:
                start = part.start
                while start < part.stop:
                    piece = slice(start, min(start + size, part.stop))
                    clip = self._clip(frames, piece)
                    began = time.monotonic()
                    logits, self.units = encoded.score(clip, piece)
                    size = PART if time.monotonic() - began < SLOW * (piece.stop - start) else VIEW_BATCH
                    start = piece.stop
                    self.decoder = clip.decoder
                    self.warnings.update(dict.fromkeys(frames.warnings))
                    yield piece, np.stack([self.classifier.scores(views) for views in logits])
            frames.drain()
            self.warnings.update(dict.fromkeys(frames.warnings))

    def _clip(self, frames: _Frames, part: slice) -> Clip:
        """The frames of some windows, as a clip whose views they are."""
        indices = self.windows.indices[part]
        pictures, numbers = frames.take(indices.min(), indices.max())
        spec = self.classifier.spec.input.model_copy(update={"num_views": len(indices)})
        plan = ClipPlan(indices, False, ())
        return Clip(pictures, numbers, plan, spec, self.info, frames.decoder, ())


class _Frames:
    """The frames that the windows at hand need, and no others."""

    def __init__(self, stream: Iterator[Frames]) -> None:
        self._stream = stream
        self._pieces: list[Frames] = []
        self.decoder = ""
        self.warnings: dict[str, None] = {}

    def take(self, first: int, last: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Return the frames from one number to another, and forget those before."""
        self._pieces = [piece for piece in self._pieces if piece.indices[-1] >= first]
        while not self._pieces or self._pieces[-1].indices[-1] < last:
            self._add(next(self._stream))
        numbers = np.concatenate([piece.indices for piece in self._pieces])
        left, right = np.searchsorted(numbers, [first, last + 1])
        return np.concatenate([piece.frames for piece in self._pieces])[left:right], numbers[left:right]

    def drain(self) -> None:
        """Wait for the decoder's last word."""
        for piece in self._stream:
            self._add(piece)

    def _add(self, piece: Frames) -> None:
        self.warnings.update(dict.fromkeys(piece.warnings))
        if len(piece.indices):
            self.decoder = piece.decoder
            self._pieces.append(piece)


class _Units:
    """Scores windows that share units with those before them; whole views where the model has no units."""

    def __init__(self, classifier: Classifier, windows: Windows) -> None:
        self._classifier = classifier
        self._engine = classifier.engine
        self._affine = pixel_scale_shift(classifier.spec.input)
        self._prepared = False
        self._together = self._encoded = 0
        size = self._engine.unit_frames
        self._units, self._where = np.empty((0, size), np.int64), None
        if size:
            self._units, where = np.unique(windows.indices.reshape(-1, size), axis=0, return_inverse=True)
            self._where = where.reshape(len(windows), -1)
        self._known = np.empty(0, np.int64)  # numbers of the units whose features are kept
        self._features: Floats = np.empty((classifier.spec.input.num_crops, 0, 0), np.float32)

    def score(self, clip: Clip, part: slice) -> tuple[Floats, tuple[int, int]]:
        """Score some windows → logits (n, crops, k), and the count of units so far."""
        if not self._prepared:
            self._engine.prepare(clip.frames.dtype, self._affine)
            self._prepared = True
        numbers = None
        if self._classifier.uses_frame_indices:  # as if each window were a clip of its own
            numbers = clip.plan.indices - clip.plan.indices[:, :1]
        crops = clip.spec.num_crops
        if self._where is None:
            places = np.searchsorted(clip.frame_indices, clip.plan.indices)
            tiled = None if numbers is None else np.tile(numbers, (crops, 1))
            logits = score_pixels(self._engine, CutClip(clip, places, None), None, tiled, self._affine)
        else:
            logits = self._classify(clip, self._where[part], numbers)
        return logits.reshape(crops, -1, logits.shape[-1]).swapaxes(0, 1), (self._together, self._encoded)

    def _classify(self, clip: Clip, where: NDArray[np.int64], numbers: NDArray[np.int64] | None) -> Floats:
        self._encode(clip, np.unique(where))
        places = np.searchsorted(self._known, where)
        self._together += where.size * len(self._features)
        found = [
            self._engine.classify(features[places[part]], None if numbers is None else numbers[part])
            for features in self._features
            for part in batches(len(places), PART)
        ]
        return np.concatenate(found)

    def _encode(self, clip: Clip, wanted: NDArray[np.int64]) -> None:
        """Encode what is new, and keep the features of just the units wanted."""
        kept = np.isin(self._known, wanted)
        features = self._features[:, kept]
        new = np.setdiff1d(wanted, self._known)
        if len(new):
            pixels = CutClip(clip, np.searchsorted(clip.frame_indices, self._units[new]), None)
            size = max(1, PIECE // self._engine.unit_frames)
            parts = [self._engine.encode(pixels[part], self._affine) for part in batches(len(pixels), size)]
            added = np.concatenate(parts).reshape(len(features), len(new), -1)
            features = np.concatenate([features, added], 1) if features.size else added
            self._encoded += len(pixels)
        known = np.concatenate([self._known[kept], new])
        order = np.argsort(known)
        self._known, self._features = known[order], features[:, order]
