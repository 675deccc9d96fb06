"""What an explanation is: heat over the cells of each view, and the frames that it lies on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import Floats

METHODS = {
    "rollout": "attention rollout: what the model looked at, whatever the class",
    "gradient": "gradient x attention: what spoke for one class",
    "occlusion": "what one class loses when a part is covered; for every engine",
}
SUFFIXES = (".png", ".gif", ".mp4", ".npz")


@dataclass(frozen=True, repr=False)
class Explanation:
    """Where and when a model looked in one clip.

    Attributes:
        path: The clip.
        model: Name of the model.
        method: A key of `METHODS`.
        label: The class that is explained.
        index: Its index among the classes.
        score: Its score, averaged over the views.
        heat: (v, t, h, w) float32 over the cells of each view: shares of the whole for ``rollout`` and ``gradient``,
            log-odds that the class loses for ``occlusion``, where what speaks against it is below zero.
        frames: (v, n, h', w', 3) uint8 RGB, the views' pictures.
        times: (v, n) of the frames in the file, in seconds.
        warnings: What a prediction of the clip would warn of.
    """

    path: str
    model: str
    method: str
    label: str
    index: int
    score: float
    heat: Floats
    frames: NDArray[np.uint8] = field(compare=False)
    times: NDArray[np.float64] = field(compare=False)
    warnings: tuple[str, ...] = ()

    @property
    def frame_weights(self) -> Floats:
        """(v, t) how much of the heat is in each step of time; sums to one over each view."""
        total = self.heat.clip(min=0).sum((2, 3))
        return total / np.maximum(total.sum(1, keepdims=True), 1e-30)

    @property
    def hottest(self) -> tuple[int, int, int, int]:
        """View, step, row and column of the hottest cell."""
        place = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        v, t, h, w = (int(one) for one in place)
        return v, t, h, w

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.heat.shape))
        return f"Explanation({self.path!r}: {self.method} of {self.label!r}, {shape} cells)"

    def facts(self) -> dict[str, Any]:
        """Return all but the arrays."""
        names = ("path", "model", "method", "label", "index", "score")
        return {**{name: getattr(self, name) for name in names}, "warnings": list(self.warnings)}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the pictures."""
        return {
            **self.facts(),
            "heat": self.heat.tolist(),
            "frame_weights": self.frame_weights.tolist(),
            "times": self.times.tolist(),
        }

    def plot(self, columns: int = 8) -> Any:
        """Draw the contact sheet as a picture of PIL: up to ``columns`` frames of each view."""
        from vidcls.explain.draw import contact_sheet

        return contact_sheet(self, columns)

    def _repr_png_(self) -> bytes:
        from vidcls.output.pictures import png_of

        return png_of(self.plot())

    def _repr_html_(self) -> str:
        from vidcls.output.notebook import picture_html

        note = f"{METHODS[self.method]}: {self.label}, {self.score:.1%}"
        return picture_html(self.path, self.plot(), note)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a contact sheet (``.png``), an animation (``.gif``, ``.mp4``), or the numbers (``.npz``).

        Raises:
            UsageError: The name ends in something else.
            OutputError: It cannot be written.
        """
        from vidcls.explain.draw import write_gif, write_mp4
        from vidcls.output.files import save_as

        writers: Mapping[str, Callable[[Any], Any]] = {
            ".png": lambda file: self.plot().save(file, "PNG", optimize=True),
            ".gif": lambda file: write_gif(self, file),
            ".mp4": lambda file: write_mp4(self, file),
            ".npz": self._write_numbers,
        }
        save_as(path, writers)

    def _write_numbers(self, file: Any) -> None:
        np.savez_compressed(
            file,
            heat=self.heat,
            frame_weights=self.frame_weights,
            times=self.times,
            about=np.array(json.dumps(self.facts())),
        )
