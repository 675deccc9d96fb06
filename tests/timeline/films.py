"""Films whose camera changes what it does at known times; one scene after the other, each a shot of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidcls.training.camera_motion.backgrounds import TextureBackgrounds
from vidcls.training.camera_motion.camera import LABELS, MOTION, CameraPath, Profile, make_wobble
from vidcls.training.camera_motion.scene import Layer, Scene, render

SPEED = (0.22, 0.22, 0.13, 0.16)
"""Of pan and tilt in short sides a second, of the log zoom and of roll in radians a second: what is plain to see."""
SHOWN = 0.3
"""Share of a texture's side that the frame shows, so that no motion reaches its edge."""
FRAMES = 100  # rendered together

Section = tuple[str, float]
"""(label, seconds)"""


def camera(rng: np.random.Generator, label: str, seconds: float) -> CameraPath:
    """A steady motion, or none."""
    change, wobbles = np.zeros(4), ()
    if label == "shake":
        wobbles = (make_wobble(rng, 0.035, (1.5, 6.0), np.array([1.0, 1.0, 0.1, 0.3])),)
    elif label != "static":
        channel, sign = MOTION[label]
        change[channel] = sign * SPEED[channel] * float(rng.uniform(0.8, 1.2)) * seconds
    return CameraPath(label, seconds, change, Profile("linear"), np.zeros(4), Profile("linear"), wobbles)


def shots(sections: Sequence[Section], size: tuple[int, int], fps: float, seed: int) -> Iterator[np.ndarray]:
    """Frames (t, h, w, 3) of a film, in pieces."""
    rng = np.random.default_rng(seed)
    side = min(size)
    backgrounds = TextureBackgrounds(rng, count=4, side=2 * side)
    for label, seconds in sections:
        picture = backgrounds.draw(rng)
        scale = SHOWN * min(picture.size) / side
        middle = np.array([picture.size[1] / 2, picture.size[0] / 2])
        base = np.array([[scale, 0, middle[0]], [0, scale, middle[1]], [0, 0, 1.0]])
        scene = Scene(camera(rng, label, seconds), (Layer(picture.frame, base),), ())
        times = np.arange(round(seconds * fps)) / fps
        for start in range(0, len(times), FRAMES):
            yield render(scene, times[start : start + FRAMES], size)


def random_sections(seed: int, seconds: float, lengths: tuple[float, float] = (5.0, 9.0)) -> list[Section]:
    """Sections that fill a film; neighbors have different labels."""
    rng = np.random.default_rng(seed)
    found: list[Section] = []
    left = seconds
    while left > 0:
        label = LABELS[int(rng.integers(len(LABELS)))]
        if found and found[-1][0] == label:
            continue
        length = round(float(rng.uniform(*lengths)), 1)
        if left - length < lengths[0]:
            length = left
        found.append((label, length))
        left = round(left - length, 6)
    return found


def make_film(
    path: Path,
    sections: Sequence[Section],
    *,
    size: tuple[int, int] = (120, 160),
    fps: int = 25,
    seed: int = 0,
    preset: str = "ultrafast",
) -> Path:
    """Write a film as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"preset": preset, "crf": "20"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.thread_count = 1
        for piece in shots(sections, size, fps, seed):
            for picture in piece:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def true_labels(sections: Sequence[Section], moments: np.ndarray) -> list[str]:
    """What the camera does at each of some moments (n,), in seconds."""
    ends = np.cumsum([seconds for _, seconds in sections])
    places = np.minimum(np.searchsorted(ends, moments, side="right"), len(sections) - 1)
    return [sections[place][0] for place in places]
