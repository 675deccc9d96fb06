"""How pictures are turned and mirrored for display: FFmpeg's display matrix, read as the ffmpeg command reads it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Orientation:
    """Mirrored left to right first, then turned.

    Attributes:
        mirrored: Whether left and right are exchanged.
        turn: Degrees clockwise, a multiple of 90.
        angle: Degrees clockwise by which the picture is turned within its frame, corners black; for what no ``turn``
            can express.
        ignored: There is a matrix, but ffmpeg makes nothing of it, as of all zeros.
    """

    mirrored: bool = False
    turn: int = 0
    angle: int = 0
    ignored: bool = False

    def __call__(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The picture (h, w, 3) as it is shown, but for ``angle``."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, -self.turn // 90 % 4) if self.turn else picture

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a picture as it is shown."""
        return (width, height) if self.turn % 180 else (height, width)


def orientation_of(frame: Any) -> Orientation:
    """The orientation of a decoded frame; none where its matrix is not one, as all zeros."""
    from av.sidedata.sidedata import Type

    try:
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV cannot list the side data of a newer FFmpeg, such as a photo's EXIF
        return Orientation(turn=round(-frame.rotation / 90) * 90 % 360)
    return from_matrix(struct.unpack("=9i", bytes(data)[:36])) if data is not None else Orientation()


def from_matrix(matrix: tuple[int, ...]) -> Orientation:
    """Orientation of a display matrix: nine numbers, of which the rows' first two turn and mirror.

    This is ``get_rotation`` and the choice of filters in ffmpeg's ``configure_input_video_filter``.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    across, down = math.hypot(a, c), math.hypot(b, d)
    if not across or not down:
        return Orientation(ignored=True)
    theta = round(math.degrees(math.atan2(b / down, a / across))) % 360
    if theta == 90:
        return Orientation(True, 270) if c > 0 else Orientation(False, 90)
    if theta == 180:
        if a < 0 and d < 0:
            return Orientation(False, 180)
        return Orientation(True, 0) if a < 0 else Orientation(d < 0, 180 if d < 0 else 0)
    if theta == 270:
        return Orientation(True, 90) if c < 0 else Orientation(False, 270)
    if theta <= 1:  # ffmpeg leaves a turn by one degree alone
        return Orientation(True, 180) if theta == 0 and d < 0 else Orientation(ignored=theta == 1)
    return Orientation(angle=theta)


def rotated(frame: Any, angle: int) -> Any:
    """A frame turned by an odd angle within its own size, by FFmpeg's own filter."""
    from av.filter import Graph

    graph = Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
    ]
    nodes += [graph.add("rotate", f"{angle}*PI/180"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    return graph.pull()
