"""Tiny clips of textures that move one way: a task that no single frame gives away."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.clips import make_clip

DIRECTIONS = {"down": (2, 0), "left": (0, -2), "right": (0, 2)}


def moving_frames(
    rng: np.random.Generator, step: tuple[int, int], frames: int = 12, side: int = 40
) -> np.ndarray:
    """Frames (t, side, side, 3) uint8 of a random texture that moves by ``step`` (y, x) pixels a frame."""
    texture = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    start = rng.integers(0, 128, 2)
    moved = [
        np.roll(texture, (start[0] + t * step[0], start[1] + t * step[1]), (0, 1)) for t in range(frames)
    ]
    return np.stack(moved)[:, :side, :side]


def make_folder(
    root: Path, clips: int, seed: int = 0, directions: dict[str, tuple[int, int]] = DIRECTIONS
) -> Path:
    """A folder with one folder a class, ``clips`` mp4 files in each."""
    rng = np.random.default_rng(seed)
    for name, step in directions.items():
        (root / name).mkdir(parents=True)
        for number in range(clips):
            make_clip(root / name / f"{number}.mp4", moving_frames(rng, step), options={"crf": "20"})
    return root
