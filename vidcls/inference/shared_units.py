"""What of a clip goes through a model, cut out and scored: whole views, or the units that views share.

A model whose spatial encoder sees few frames at a time (a tubelet, or one frame) needs each different unit encoded
only once, however many views it is part of. `vidcls predict` cuts as it scores; `vidcls score` cuts ahead, in the
decoders' threads, and scores the views of many clips together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Engine, Floats, ScaleShift
from vidcls.inference.clip import Clip
from vidcls.views.transform import clip_crop, pixel_scale_shift

# Views that go through the model together; more would only cost memory on a CPU.
VIEW_BATCH = 4
# Frames that go through a spatial encoder together, for as many views.
FRAME_BATCH = 64


class Pixels(Protocol):
    """Pixels (n, t', h, w, 3) that can be taken in slices: an array, or a clip that is cut as they are taken."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class CutClip:
    """A clip's views before normalization, or each different unit of them once; crop by crop, cut when taken.

    Two units are the same where they hold the same frames in the same order, in the same crop.

    Attributes:
        clip: The clip.
        places: (u, t') where the frames of each view or unit are in ``clip.frames``; the same for every crop.
        where: (v, n) which units make up each view; None for whole views.
    """

    clip: Clip
    places: NDArray[np.int64]
    where: NDArray[np.int64] | None

    def __len__(self) -> int:
        return self.clip.spec.num_crops * len(self.places)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Cut some of them: (n, t', h, w, 3); numbers must be sorted."""
        crops, numbers = np.divmod(np.arange(len(self))[part], len(self.places))
        cut = [
            clip_crop(self.clip.frames, self.clip.spec, crop)[self.places[numbers[crops == crop]]]
            for crop in np.unique(crops)
            if len(crops)
        ] or [clip_crop(self.clip.frames, self.clip.spec, 0)[self.places[:0]]]
        return cut[0] if len(cut) == 1 else np.concatenate(cut)


def cut_clip(clip: Clip, unit_frames: int) -> CutClip:
    """Find what of a clip a model needs.

    Args:
        clip: The clip.
        unit_frames: Frames of a unit, 0 for models that see whole views; see `vidcls.engines.Engine`.
    """
    frames = clip.plan.indices
    if not unit_frames:
        return CutClip(clip, np.searchsorted(clip.frame_indices, frames), None)
    units, where = np.unique(frames.reshape(-1, unit_frames), axis=0, return_inverse=True)
    where = where.reshape(len(frames), -1)
    crops = range(clip.spec.num_crops)
    places = np.searchsorted(clip.frame_indices, units)
    return CutClip(clip, places, np.concatenate([where + crop * len(units) for crop in crops]))


def score_clip(
    engine: Engine, clip: Clip, indices: NDArray[np.int64] | None
) -> tuple[Floats, tuple[int, int] | None]:
    """Score a clip's views; they stay pixels until they are where the model runs.

    Returns:
        Logits (v, k); and how many units the views have together, and how many of them are different and were
        encoded: None for models that see whole views.
    """
    cut = cut_clip(clip, engine.unit_frames)
    logits = score_pixels(engine, cut, cut.where, indices, pixel_scale_shift(clip.spec))
    return logits, None if cut.where is None else (cut.where.size, len(cut))


def score_pixels(
    engine: Engine,
    pixels: Pixels,
    where: NDArray[np.int64] | None,
    indices: NDArray[np.int64] | None,
    scale_shift: ScaleShift,
    size: int = VIEW_BATCH,
) -> Floats:
    """Score views → logits (v, k).

    Args:
        engine: Runs the model.
        pixels: The views, or the units that they share.
        where: (v, n) which units make up each view; None for whole views.
        indices: (v, t) numbers of the views' frames, for models that use them.
        scale_shift: What makes numbers of pixels.
        size: Views that go through the model together; batches of units grow and shrink with it.
    """
    if where is not None:
        return classify_units(engine, encode_units(engine, pixels, scale_shift, size), where, indices, size)
    return np.concatenate(
        [
            engine(pixels[part], None if indices is None else indices[part], scale_shift)
            for part in batches(len(pixels), size)
        ]
    )


def encode_units(engine: Engine, pixels: Pixels, scale_shift: ScaleShift, size: int = VIEW_BATCH) -> Floats:
    """Encode units → features (u, …), as many at a time as go with a batch of ``size`` views."""
    together = max(1, FRAME_BATCH // engine.unit_frames * size // VIEW_BATCH)
    parts = [engine.encode(pixels[part], scale_shift) for part in batches(len(pixels), together)]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def classify_units(
    engine: Engine,
    features: Floats,
    where: NDArray[np.int64],
    indices: NDArray[np.int64] | None,
    size: int = VIEW_BATCH,
) -> Floats:
    """Score views by the features of the units ``where`` (v, n) → logits (v, k)."""
    return np.concatenate(
        [
            engine.classify(features[where[part]], None if indices is None else indices[part])
            for part in batches(len(where), size)
        ]
    )


def batches(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` things into slices of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
