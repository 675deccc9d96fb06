"""Frames as they come from the worker: put in place for one `read`, or handed on piece by piece for one `stream`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidcls.errors import VideoError

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Frames:
    """Decoded frames, each once.

    Attributes:
        frames: (t, h, w, 3) uint8 RGB, or whatever the transform made of each.
        indices: Which frames of the file they are (t,), sorted, without duplicates.
        decoder: ``decord`` or ``pyav``.
        warnings: Sentences for a person.
    """

    frames: np.ndarray
    indices: npt.NDArray[np.int64]
    decoder: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sound:
    """A piece of a file's sound.

    Attributes:
        rate: Samples a second.
        start: Seconds from the first frame.
        samples: (c, n) float32, -1 to 1, of one or two channels.
    """

    rate: int
    start: float
    samples: np.ndarray


def _frames(header: dict[str, Any], body: bytearray) -> np.ndarray:
    """The frames (n, …) of one message."""
    return np.frombuffer(body, np.dtype(header["dtype"])).reshape(len(header["indices"]), *header["shape"])


class Collector:
    """Puts the frames of one `read` in place as they come."""

    def __init__(self, name: str, wanted: npt.NDArray[np.int64], max_memory: int) -> None:
        self._name = name
        self._wanted = wanted
        self._max_memory = max_memory
        self._frames: np.ndarray | None = None
        self._seen: set[int] = set()
        self.decoder = ""
        self.title = ""
        self.more = False  # whether there would be another decoder after it

    def __call__(self, header: dict[str, Any], body: bytearray) -> Frames | None:
        if header["type"] == "using":
            self.decoder, self.title, self.more = header["decoder"], header["title"], header["more"]
            self._seen.clear()
        elif header["type"] == "frames":
            self._place(header["indices"], _frames(header, body))
        elif header["type"] == "done":
            if self._frames is None or len(self._seen) < len(self._wanted):
                raise VideoError(self._name, "not all frames asked for were decoded", kind="unreadable")
            return Frames(self._frames, self._wanted, header["decoder"], tuple(header["warnings"]))
        return None

    def _place(self, indices: list[int], frames: np.ndarray) -> None:
        if self._frames is None:
            each = frames[0].nbytes
            if each * len(self._wanted) > self._max_memory:
                problem = f"{len(self._wanted)} frames of {each:,} bytes are more than the memory bound"
                raise VideoError(self._name, problem, "ask for fewer or smaller frames", kind="memory")
            self._frames = np.empty((len(self._wanted), *frames.shape[1:]), frames.dtype)
        at = np.searchsorted(self._wanted, indices)
        self._frames[at] = frames
        self._seen.update(at.tolist())


class Flow:
    """Hands on the frames of one `stream` in pieces, each once and in order."""

    def __init__(self, name: str, wanted: npt.NDArray[np.int64], piece: int) -> None:
        self.name = name
        self.wanted = wanted
        self._decoder = ""
        self._piece = piece
        self._next = 0  # the first that has not come yet
        self._frames: list[np.ndarray] = []

    def take(self, header: dict[str, Any], body: bytearray) -> Iterator[Frames]:
        if header["type"] == "using":
            self._decoder = header["decoder"]
        elif header["type"] == "frames":
            for index, frame in zip(header["indices"], _frames(header, body), strict=True):
                if self._is_next(index):
                    self._frames.append(frame)
                    self._next += 1
                if len(self._frames) >= self._piece:
                    yield self._handed_on(())
        elif header["type"] == "done":
            if self._next < len(self.wanted):
                raise VideoError(self.name, "not all frames asked for were decoded", kind="unreadable")
            if self._frames or header["warnings"]:
                yield self._handed_on(tuple(header["warnings"]))

    def _is_next(self, index: int) -> bool:
        """Whether it is not one that a decoder, beginning again, delivers once more."""
        return self._next < len(self.wanted) and bool(self.wanted[self._next] == index)

    def _handed_on(self, warnings: tuple[str, ...]) -> Frames:
        indices = self.wanted[self._next - len(self._frames) : self._next]
        frames, self._frames = self._frames, []
        stacked = np.stack(frames) if frames else np.empty((0, 0, 0, 3), np.uint8)
        return Frames(stacked, indices, self._decoder, warnings)
