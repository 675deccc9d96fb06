"""Where a synthetic camera's pictures come from: textures by rule, a folder of pictures, or a folder of footage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from vidcls.errors import UsageError
from vidcls.training.camera_motion.textures import make_texture

Rng = np.random.Generator
Picture = np.ndarray

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg"})
MAX_SIDE = 1600
"""Longer sides of pictures are scaled down to this many pixels when read, to bound memory."""


@dataclass(frozen=True)
class Background:
    """A picture, or footage that goes on changing.

    Attributes:
        frames: Pictures (h, w, 3) uint8 of one size; more than one for footage.
        framed: True when the picture is a photograph or footage: it is then shown upright and nearly whole,
            where a texture by rule may be entered anywhere.
        rate: Pictures of the footage per frame of the clip.
    """

    frames: tuple[Picture, ...]
    framed: bool = False
    rate: float = 1.0

    @property
    def still(self) -> Picture:
        return self.frames[0]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.still.shape[:2]
        return height, width

    def frame(self, number: int) -> Picture:
        """The picture at the clip's frame `number`; footage runs to its end and back again."""
        count = len(self.frames)
        if count == 1:
            return self.frames[0]
        position = int(number * self.rate) % (2 * count - 2)
        return self.frames[position if position < count else 2 * count - 2 - position]

    def base(self, rng: Rng, side: float) -> np.ndarray:
        """Where the camera stands before a photograph: (3, 3) from background pixels to picture pixels."""
        height, width = self.size
        scale = min(height, width) / side * float(rng.uniform(0.45, 0.8))
        center = np.array([width, height]) / 2 + rng.uniform(-0.08, 0.08, 2) * min(height, width)
        return np.array([[scale, 0, center[0]], [0, scale, center[1]], [0, 0, 1.0]])


class Backgrounds(Protocol):
    """A stock of backgrounds."""

    def draw(self, rng: Rng) -> Background:
        """Choose a background."""
        ...


class TextureBackgrounds:
    """Textures made by rule, a few at a time.

    Args:
        rng: Source of the textures.
        count: How many to make.
        side: Their side length in pixels.
    """

    def __init__(self, rng: Rng, count: int = 10, side: int = 384) -> None:
        self.backgrounds = [Background((make_texture(rng, side),)) for _ in range(count)]

    def draw(self, rng: Rng) -> Background:
        return self.backgrounds[int(rng.integers(len(self.backgrounds)))]


class FileBackgrounds:
    """The user's own pictures or footage.

    Args:
        folder: Searched with its sub-folders.
        videos: True to read footage, False to read pictures.

    Raises:
        UsageError: The folder is missing or holds no such file.
    """

    def __init__(self, folder: str | Path, videos: bool = False) -> None:
        root = Path(folder)
        suffixes = VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
        if not root.is_dir():
            raise UsageError(
                str(folder), "no such folder", "name a folder of " + ("videos" if videos else "pictures")
            )
        self.paths: Sequence[Path] = sorted(p for p in root.rglob("*") if p.suffix.lower() in suffixes)
        self.videos = videos
        self.skipped: dict[Path, str] = {}
        if not self.paths:
            raise UsageError(
                str(folder), "holds no " + ("video" if videos else "picture"), "name another folder"
            )

    def draw(self, rng: Rng) -> Background:
        """Read one at random; unreadable files are noted in `skipped` and passed over.

        Raises:
            UsageError: None of the files can be read.
        """
        while len(self.skipped) < len(self.paths):
            path = self.paths[int(rng.integers(len(self.paths)))]
            if path in self.skipped:
                continue
            try:
                return read_footage(rng, path) if self.videos else read_picture(path)
            except (OSError, ValueError, av.FFmpegError) as error:
                self.skipped[path] = str(error)
        raise UsageError(str(self.paths[0].parent), "no file in it can be read", "check the files")


def read_picture(path: Path) -> Background:
    """Read a photograph.

    Raises:
        ValueError: The file is not a picture.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("not a readable picture")
    return Background((_bounded(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)),), framed=True)


def read_footage(rng: Rng, path: Path, count: int = 100) -> Background:
    """Read up to `count` successive frames from a random place of a video.

    Raises:
        ValueError: There is no video stream or no frame.
        av.FFmpegError: The file cannot be decoded.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        stream = container.streams.video[0]
        if container.duration and rng.random() < 0.8:
            container.seek(int(rng.uniform(0, 0.6) * container.duration))
        frames = []
        for frame in container.decode(stream):
            frames.append(_bounded(frame.to_ndarray(format="rgb24"), 960))
            if len(frames) == count:
                break
    if not frames:
        raise ValueError("no frames")
    return Background(
        tuple(f for f in frames if f.shape == frames[0].shape), framed=True, rate=float(rng.uniform(0.5, 1.5))
    )


def _bounded(picture: Picture, most: int = MAX_SIDE) -> Picture:
    """Scale a picture down until no side is longer than `most` pixels."""
    scale = most / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
