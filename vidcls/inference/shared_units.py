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

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Cut some of them: (n, t', h, w, 3)."""
        start, stop, _ = part.indices(len(self))
        cut = []
        for crop in range(self.clip.spec.num_crops):
            first = crop * len(self.places)
            places = self.places[max(start - first, 0) : max(stop - first, 0)]
            if len(places):
                cut.append(clip_crop(self.clip.frames, self.clip.spec, crop)[places])
        return cut[0] if len(cut) == 1 else np.concatenate(cut)


def cut_clip(clip: Clip, unit_frames: int) -> CutClip:
    """Find what of a clip a model needs.

    Args:
        clip: The clip.
        unit_frames: Frames of a unit, 0 for models that see whole views; see `vidcls.engines.Engine`.
    """
    places = np.searchsorted(clip.frame_indices, clip.plan.indices)
    if not unit_frames:
        return CutClip(clip, places, None)
    units, where = np.unique(places.reshape(-1, unit_frames), axis=0, return_inverse=True)
    where = where.reshape(len(places), -1)
    crops = range(clip.spec.num_crops)
    return CutClip(clip, units, np.concatenate([where + crop * len(units) for crop in crops]))


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
    features = None
    if where is not None:
        together = max(1, FRAME_BATCH // engine.unit_frames * size // VIEW_BATCH)
        parts = batches(len(pixels), together)
        features = np.concatenate([engine.encode(pixels[part], scale_shift) for part in parts])
    logits = []
    for part in batches(len(pixels if where is None else where), size):
        numbers = None if indices is None else indices[part]
        if features is None or where is None:
            logits.append(engine(pixels[part], numbers, scale_shift))
        else:
            logits.append(engine.classify(features[where[part]], numbers))
    return np.concatenate(logits)


def batches(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` things into slices of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
