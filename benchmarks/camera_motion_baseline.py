"""A classical baseline for camera motion: sparse optical flow, a similarity fit, thresholds.

Corners (Shi-Tomasi) are tracked from frame to frame (pyramidal Lucas-Kanade), a similarity is fitted to the tracks by
RANSAC, and the shifts, scalings and turns are added up over the clip. The label is that of the largest sum if it is
clear, else `shake` or `static` by how much the camera jitters. The thresholds were chosen on clips of
`vidcls synthesize` (seed 100), not on the clips it is tested on.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

SIDE = 240
"""Short side in pixels at which corners are tracked."""
RATE = 12.5
"""Pictures per second that are compared."""
DRIFT = 0.035
"""Least total motion, in short sides of the frame, that is called a pan, tilt, zoom or roll."""
JITTER = 0.006
"""Root-mean-square jitter, in short sides, from which a clip is called shaken."""

DIRECTIONS = (
    ("pan right", "pan left"),
    ("tilt down", "tilt up"),
    ("zoom out", "zoom in"),
    ("roll clockwise", "roll counter-clockwise"),
)
"""The camera's motion when the picture moves by (less, more) than zero right, down, in scale, in turn."""


def read(path: str | Path) -> list[np.ndarray]:
    """Decode a clip to gray pictures, about `RATE` per second, short side `SIDE`."""
    pictures: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        step = max(1, round(float(stream.average_rate or 25) / RATE))
        for number, frame in enumerate(container.decode(stream)):
            if number % step == 0:
                gray = frame.to_ndarray(format="gray")
                scale = SIDE / min(gray.shape)
                pictures.append(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return pictures


def similarity(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Motion of the picture between two frames: right, down (short sides), log scale, turn (radians, clockwise)."""
    corners = cv2.goodFeaturesToTrack(before, 300, 0.01, 5)
    if corners is None or len(corners) < 6:
        return np.zeros(4)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(21, 21), maxLevel=4)
    good = found[:, 0] == 1
    if good.sum() < 6:
        return np.zeros(4)
    matrix, _ = cv2.estimateAffinePartial2D(
        corners[good], moved[good], method=cv2.RANSAC, ransacReprojThreshold=2
    )
    if matrix is None:
        return np.zeros(4)
    center = np.array([before.shape[1] / 2, before.shape[0] / 2])
    shift = matrix[:, :2] @ center + matrix[:, 2] - center
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0.5 < scale < 2 or np.abs(shift).max() > SIDE / 2:  # a cut
        return np.zeros(4)
    return np.array([*(shift / SIDE), np.log(scale), np.arctan2(matrix[1, 0], matrix[0, 0])])


def classify(path: str | Path) -> str:
    """Say what the camera does in a clip."""
    pictures = read(path)
    if len(pictures) < 2:
        return "static"
    steps = np.stack([similarity(a, b) for a, b in pairwise(pictures)])
    # As motion in the picture: scaling and turning move its rim, half a short side from the center.
    reach = steps * np.array([1, 1, 0.5, 0.5])
    total = reach.sum(0)
    course = np.cumsum(reach[:, :2], 0)
    line = np.linspace(0, 1, len(course))[:, None]
    residual = course - course.mean(0) - (line - 0.5) * (course[-1] - course[0])
    jitter = float(np.sqrt((np.diff(residual, axis=0) ** 2).sum(1).mean())) if len(course) > 1 else 0.0
    strongest = int(np.abs(total).argmax())
    drift = abs(total[strongest])
    if drift > DRIFT and drift > 1.2 * jitter * np.sqrt(len(steps)):
        return DIRECTIONS[strongest][int(total[strongest] > 0)]
    return "shake" if jitter > JITTER else "static"
