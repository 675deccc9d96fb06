"""What the engines of exported graphs share: one graph takes whole views, and nothing is encoded by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.base import Array, Floats, Indices, ScaleShift, check_logits
from vidcls.errors import DeviceError


@dataclass(frozen=True)
class GraphFacts:
    """What a graph takes and gives.

    Attributes:
        num_classes: Length of the logits; 0 for any.
        pixels: Type of the pixels (v, t, h, w, 3) that it takes and normalizes itself; empty where it takes
            normalized views (v, 3, t, h, w) in float32.
    """

    num_classes: int = 0
    pixels: str = ""


class WholeGraphEngine:
    """One graph on the CPU.

    Args:
        path: Its file.
        precision: Number format of the graph.
        facts: What it takes and gives.
    """

    name: str
    device = "cpu"
    unit_frames = 0

    def __init__(self, path: Path, precision: str, facts: GraphFacts) -> None:
        self.precision = precision
        self._path = path
        self._facts = facts

    def prepare(self, dtype: np.dtype[Any], scale_shift: ScaleShift) -> None:
        """There is nothing to prepare."""

    def __call__(
        self, views: Array, frame_indices: Indices | None = None, scale_shift: ScaleShift | None = None
    ) -> Floats:
        pixels = self._facts.pixels
        if pixels and scale_shift is None:
            raise DeviceError(
                self.name, "this model takes pixels, not normalized views", "export it without pixels"
            )
        if pixels:
            views = views.astype(pixels, copy=False)
        elif scale_shift is not None:
            views = (views * scale_shift[0] + scale_shift[1]).transpose(0, 4, 1, 2, 3)
        given = [np.ascontiguousarray(views if pixels else views.astype(np.float32, copy=False))]
        given += [] if frame_indices is None else [np.ascontiguousarray(frame_indices, np.int64)]
        return check_logits(self._run(given), len(views), self._facts.num_classes, self._path)

    def _run(self, inputs: list[NDArray[Any]]) -> Floats:
        """Run the graph on views, and the numbers of their frames where the model uses them → logits (v, k)."""
        raise NotImplementedError

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        raise NotImplementedError("a whole graph encodes no units")

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        raise NotImplementedError("a whole graph encodes no units")
