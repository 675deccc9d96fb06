"""What a model predicts for one clip."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Floats
from vidcls.errors import VidclsError


class ScoredLabel(NamedTuple):
    """A class's label, its score (0 to 1), and its index among the model's classes."""

    label: str
    score: float
    class_index: int


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model predicts for one clip; ``row`` is the form in which it is written.

    Attributes:
        row: The fields of one result; see ``vidcls.output``.
        scores: (k,) one score per class, or None when the clip could not be scored.
        logits: (k,) mean of the logits over the views, or None.
        seconds: Wall time spent on the clip.
        units: For models that encode frames or tubelets by themselves: how many the views have together, and how
            many of them are different and were encoded.
        error: Why the clip could not be scored.
        preview: (n, h, w, 3) some frames, small, of a clip that came from memory; those of a file are read when a
            notebook shows them.
    """

    row: dict[str, Any]
    scores: Floats | None = None
    logits: Floats | None = None
    seconds: float = 0.0
    units: tuple[int, int] | None = None
    error: VidclsError | None = field(default=None, compare=False)
    preview: NDArray[np.uint8] | None = field(default=None, compare=False)

    @property
    def top(self) -> tuple[ScoredLabel, ...]:
        """The best labels, best first; as many as were asked for, none where the clip could not be scored."""
        return tuple(ScoredLabel(p["label"], p["score"], p["index"]) for p in self.row["predictions"])

    @property
    def label(self) -> str | None:
        """The best label; None where the clip could not be scored."""
        return self.top[0].label if self.top else None

    @property
    def score(self) -> float | None:
        """The best label's score, 0 to 1; None where the clip could not be scored."""
        return self.top[0].score if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data, as ``vidcls predict -f json`` writes it."""
        return copy.deepcopy(self.row)

    def _repr_html_(self) -> str:
        from vidcls.output.notebook import prediction_html

        return prediction_html(self.row, self.preview)

    def __repr__(self) -> str:
        said = ", ".join(f"{one.label} {one.score:.3f}" for one in self.top[:5])
        return f"Prediction({self.row['path']!r}: {said or self.error})"
