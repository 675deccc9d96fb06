"""Labeled camera-motion clips, made exactly.

`CameraMotionDataset` makes clips on the fly as the model will see them; `film_clip` makes one clip at any size and
frame rate, for files. What is drawn is decided by a seed and an index alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from vidcls.training.camera_motion.backgrounds import Background, Backgrounds, TextureBackgrounds
from vidcls.training.camera_motion.camera import LABELS, CameraPath, make_path
from vidcls.training.camera_motion.degradations import compression, light, overlays, sensor_noise, shrink
from vidcls.training.camera_motion.scene import Layer, Mover, Scene, make_mover, render
from vidcls.training.camera_motion.textures import power_noise

Rng = np.random.Generator

# Label after a symmetry of the picture: left-right mirror, transposition (rows become columns), reversed time.
_PAIRS = {"pan left": "pan right", "tilt up": "tilt down", "zoom in": "zoom out"}
_PAIRS["roll clockwise"] = "roll counter-clockwise"
_BACK = {**_PAIRS, **{b: a for a, b in _PAIRS.items()}}
_ROLLS = ("roll clockwise", "roll counter-clockwise")


def _relabel(swap: dict[str, str]) -> np.ndarray:
    return np.array([LABELS.index(swap.get(name, name)) for name in LABELS])


MIRRORED = _relabel({name: _BACK[name] for name in ("pan left", "pan right", *_ROLLS)})
"""MIRRORED[label] is the label of a clip whose left and right were exchanged."""
TRANSPOSED = _relabel(
    {"pan left": "tilt up", "tilt up": "pan left", "pan right": "tilt down", "tilt down": "pan right"}
    | {name: _BACK[name] for name in _ROLLS}
)
"""TRANSPOSED[label] is the label of a clip whose x and y axes were exchanged."""
REVERSED = _relabel(_BACK)
"""REVERSED[label] is the label of a clip that is played backwards."""


PLAIN_CHANGE = 0.2
"""Least change of a plain clip, in short sides, log zoom or radians."""


@dataclass(frozen=True)
class ClipSpec:
    """How training clips look: what `vidcls.views.transform` gives the model from a file.

    Attributes:
        num_frames: Frames of a clip.
        stride: Frames of the model's frame rate from one to the next.
        fps: The model's frame rate.
        side: Height and width in pixels.
    """

    num_frames: int = 32
    stride: int = 2
    fps: float = 25.0
    side: int = 64


def symmetric(frames: np.ndarray, label: int, choice: int) -> tuple[np.ndarray, int]:
    """Turn a clip into one of its 16 symmetric images, with the label that is then true.

    Args:
        frames: (t, s, s, 3), square.
        label: Class id.
        choice: 0 to 15; bit 0 mirrors, bit 1 turns upside down, bit 2 transposes, bit 3 reverses time.

    Returns:
        A view of the frames and the new class id.
    """
    if choice & 1:
        frames, label = frames[:, :, ::-1], int(MIRRORED[label])
    if choice & 2:  # up-down is left-right between two transpositions
        frames, label = frames[:, ::-1], int(TRANSPOSED[MIRRORED[TRANSPOSED[label]]])
    if choice & 4:
        frames, label = frames.transpose(0, 2, 1, 3), int(TRANSPOSED[label])
    if choice & 8:
        frames, label = frames[::-1], int(REVERSED[label])
    return frames, label


def symmetric_steps(steps: np.ndarray, choice: int) -> np.ndarray:
    """The camera's steps (n, 4) in a symmetric image of a clip; `choice` as in `symmetric`."""
    pan, tilt, zoom, roll = steps.T
    if choice & 1:
        pan, roll = -pan, -roll
    if choice & 2:
        tilt, roll = -tilt, -roll
    if choice & 4:
        pan, tilt, roll = -tilt, -pan, -roll
    out = np.stack([pan, tilt, zoom, roll], -1)
    return -out[::-1] if choice & 8 else out


@dataclass(frozen=True)
class Item:
    """A training clip and what is known of it.

    Attributes:
        frames: (t, s, s, 3) uint8.
        label: Class id.
        steps: (t - 1, 4) float32: change of pan, tilt (short sides), log zoom and roll (radians) from each frame to
            the next; NaN where a looped clip begins again.
    """

    frames: np.ndarray
    label: int
    steps: np.ndarray


def _steps(path: CameraPath, times: np.ndarray) -> np.ndarray:
    steps = np.diff(path.state(times), axis=0).astype(np.float32)
    steps[np.diff(times) < 0] = np.nan
    return np.asarray(steps)


def _base(rng: Rng, picture_size: tuple[int, int], side: float) -> np.ndarray:
    """Where the camera stands before the background: (3, 3) from background pixels to texture pixels."""
    short = min(picture_size)
    # The frame shows between a fifth and three quarters of the texture's side.
    scale = short / side * float(np.exp(rng.uniform(np.log(0.2), np.log(0.75))))
    angle = rng.normal(0, 0.06) if rng.random() < 0.75 else rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    shift = rng.uniform(-0.2, 0.2, 2) * short + np.array([picture_size[1] / 2, picture_size[0] / 2])
    return np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1.0]])


def _near_layer(rng: Rng, background: Background, side: float) -> Layer:
    """A nearer layer with holes: foliage, a fence, posts."""
    picture = background.still
    h, w = picture.shape[:2]
    short = min(h, w)
    if rng.random() < 0.6:
        mask = power_noise(rng, short, rng.uniform(1.2, 2.2)) > rng.uniform(0.5, 1.6)
    else:
        column = np.repeat(rng.random(short // 12 + 1) < rng.uniform(0.1, 0.35), 12)[:short]
        mask = np.tile(column, (short, 1))
    opacity = (mask * 255).astype(np.uint8)[..., None]
    layered = np.ascontiguousarray(np.concatenate([picture[:short, :short], opacity], -1))
    return Layer(lambda _: layered, _base(rng, (short, short), side), float(rng.uniform(1.15, 1.8)))


def make_scene(
    rng: Rng,
    label: str,
    duration: float,
    side: float,
    backgrounds: Backgrounds,
    path: CameraPath | None = None,
    busy: bool = False,
) -> Scene:
    """Put a background and things that move in front of a camera.

    Args:
        rng: Source of randomness.
        label: One of `LABELS`.
        duration: Length in seconds.
        side: Short side of the frame in pixels.
        backgrounds: Where the pictures come from.
        path: The camera's path; drawn when None.
        busy: More and larger things move, and the camera is held less steadily.
    """
    path = path or make_path(rng, label, duration, busy)
    background = backgrounds.draw(rng)
    layers = [
        Layer(
            background.frame,
            background.base(rng, side) if background.framed else _base(rng, background.size, side),
        )
    ]
    if not path.perspective and rng.random() < 0.12:
        layers.append(_near_layer(rng, backgrounds.draw(rng), side))
    return Scene(path, tuple(layers), _movers(rng, label, duration, backgrounds, busy))


def _movers(rng: Rng, label: str, duration: float, backgrounds: Backgrounds, busy: bool) -> tuple[Mover, ...]:
    """Objects in half of the clips, more often before a still camera, where they could be taken for its motion."""
    if rng.random() > (0.75 if busy else 0.65 if label in ("static", "shake") else 0.45):
        return ()
    count = int(rng.choice([1, 2, 3, 5], p=[0.5, 0.25, 0.15, 0.1]))
    largest = (0.45, 0.35, 0.28, 0.28, 0.2)[count - 1] * (1.5 if busy else 1.0)
    movers = []
    for _ in range(count):
        texture = backgrounds.draw(rng).still if rng.random() < 0.5 else None
        movers.append(make_mover(rng, duration, texture, largest))
    return tuple(movers)


def with_cut(rng: Rng, scene: Scene, side: float, backgrounds: Backgrounds) -> Scene:
    """Cut to another shot in the middle in which the camera does the same."""
    duration = scene.path.duration
    other = make_scene(rng, scene.path.label, duration, side, backgrounds, scene.path)
    dissolve = rng.uniform(0.1, 0.6) if rng.random() < 0.25 else 0.0
    return Scene(scene.path, scene.layers, scene.movers, other, rng.uniform(0.2, 0.8) * duration, dissolve)


def sample_times(rng: Rng, spec: ClipSpec) -> tuple[np.ndarray, float]:
    """When the sampled frames were filmed, for a file of a random length and frame rate.

    The file's own frames lie on its frame rate's grid, and a file shorter than the clip is looped, as in
    `vidcls.views.transform`.

    Returns:
        Seconds (num_frames,) and the length of the file (at most the span of the clip).
    """
    span = spec.num_frames * spec.stride
    length = span
    if rng.random() < 0.2:
        length = int(rng.integers(span * 2 // 5, span))
    positions = (np.arange(spec.num_frames) * spec.stride) % length / spec.fps
    file_fps = float(
        rng.choice(
            [12, 15, 23.976, 24, 25, 29.97, 30, 50, 60], p=[0.03, 0.07, 0.1, 0.1, 0.2, 0.1, 0.2, 0.1, 0.1]
        )
    )
    return np.floor(positions * file_fps + rng.uniform(0, 1)) / file_fps, length / spec.fps


def make_plain_clip(
    rng: Rng, label: str, spec: ClipSpec, backgrounds: Backgrounds
) -> tuple[np.ndarray, np.ndarray]:
    """Make a clip in which nothing but the camera moves, far enough to be seen: what a beginner learns from.

    Arguments and result are those of `make_clip`.
    """
    times = np.arange(spec.num_frames) * spec.stride / spec.fps
    duration = spec.num_frames * spec.stride / spec.fps
    path = make_path(rng, label, duration)
    size = np.abs(path.change).max()
    if 0 < size < PLAIN_CHANGE:
        path = replace(path, change=path.change * float(rng.uniform(1, 2) * PLAIN_CHANGE / size))
    background = backgrounds.draw(rng)
    layer = Layer(
        background.frame,
        background.base(rng, spec.side) if background.framed else _base(rng, background.size, spec.side),
    )
    return render(Scene(path, (layer,), ()), times, (spec.side, spec.side)), _steps(path, times)


def make_clip(
    rng: Rng, label: str, spec: ClipSpec, backgrounds: Backgrounds, busy: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Make one training clip.

    Args:
        rng: Source of randomness.
        label: One of `LABELS`.
        spec: Shape of the clip.
        backgrounds: Where the pictures come from.
        busy: As in `make_scene`.

    Returns:
        Frames (num_frames, side, side, 3) uint8 RGB, and the camera's steps (see `Item`).
    """
    times, duration = sample_times(rng, spec)
    drawn = max(spec.side, int(spec.side * rng.choice([1.0, 1.5, 2.0], p=[0.15, 0.55, 0.3])) // 2 * 2)
    scene = make_scene(rng, label, duration, drawn, backgrounds, busy=busy)
    if rng.random() < 0.08:
        scene = with_cut(rng, scene, drawn, backgrounds)
    blurred = rng.random() < 0.25
    shutter = rng.uniform(0.008, 0.04) if blurred else 0.0
    frames = render(scene, times, (drawn, drawn), shutter, 3 if blurred else 1)
    overlays(rng, frames)
    frames = shrink(rng, compression(rng, frames), spec.side)
    frames = light(rng, frames, times)
    if rng.random() < 0.4:
        frames = sensor_noise(rng, frames, float(np.exp(rng.uniform(np.log(0.5), np.log(8)))))
    return frames, _steps(scene.path, times)


class CameraMotionDataset:
    """Clips made on the fly: item `i` depends on the seed and `i` alone.

    Clips come in blocks which share their backgrounds, since a background costs more than a clip; every clip drawn
    is given in `repeats` of its 16 symmetric images.

    Args:
        seed: Seed of everything.
        length: Number of items.
        spec: Shape of the clips.
        repeats: Symmetric images given of each clip drawn.
        backgrounds: Where the pictures come from; textures by rule when None.
        plain_items: While the item's number is below this, a share of the clips is plain: all of them at first,
            falling linearly to none. Without such a start the loss stays at chance for tens of thousands of clips.
        busy_items: From this item on, half of the clips are busy (see `make_scene`); None for never.
    """

    block = 48
    """Clips drawn in one block."""

    def __init__(
        self,
        seed: int,
        length: int,
        spec: ClipSpec | None = None,
        repeats: int = 1,
        backgrounds: Backgrounds | None = None,
        plain_items: int = 0,
        busy_items: int | None = None,
    ) -> None:
        self.seed, self.length, self.repeats = seed, length, repeats
        self.plain_items, self.busy_items = plain_items, busy_items
        self.spec = spec or ClipSpec()
        self.backgrounds = backgrounds
        self._cache: tuple[int, list[Item]] | None = None

    def __len__(self) -> int:
        return self.length

    def make_block(self, number: int) -> list[Item]:
        """All items of one block, shuffled."""
        cv2.setNumThreads(1)
        rng = np.random.default_rng([self.seed, number])
        backgrounds = self.backgrounds or TextureBackgrounds(rng, count=10)
        begins = number * self.block * self.repeats
        busy = self.busy_items is not None and begins >= self.busy_items
        plain = 1 - number * self.block * self.repeats / self.plain_items if self.plain_items else 0.0
        labels = np.arange(self.block) + int(rng.integers(len(LABELS)))
        items: list[Item] = []
        for label in (labels % len(LABELS)).tolist():
            if rng.random() < plain:
                frames, steps = make_plain_clip(rng, LABELS[label], self.spec, backgrounds)
            else:
                frames, steps = make_clip(
                    rng, LABELS[label], self.spec, backgrounds, busy and rng.random() < 0.5
                )
            # A transposed landscape is rarer in the background than a mirrored one.
            for _ in range(self.repeats):
                choice = int(rng.integers(16)) if rng.random() < 0.4 else int(rng.choice([0, 1, 8, 9]))
                image, name = symmetric(frames, label, choice)
                items.append(Item(image, name, symmetric_steps(steps, choice)))
        order = rng.permutation(len(items))
        return [items[k] for k in order]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        number, offset = divmod(index, self.block * self.repeats)
        if self._cache is None or self._cache[0] != number:
            self._cache = (number, self.make_block(number))
        item = self._cache[1][offset]
        return item.frames, item.label

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (self[i] for i in range(self.length))
