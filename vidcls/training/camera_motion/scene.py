"""Scenes in front of a synthetic camera: a background, a nearer layer, moving objects; and their rendering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vidcls.training.camera_motion.camera import CameraPath

Rng = np.random.Generator
Picture = np.ndarray
Background = Callable[[int], Picture]
"""Frame number → the background's picture (h, w, 3) uint8 at that frame; footage changes, a texture does not."""


@dataclass(frozen=True)
class Layer:
    """A flat picture that the camera looks at.

    Attributes:
        picture: Frame number → (h, w, 3) uint8, or (h, w, 4) with an opacity mask.
        base: (3, 3) from background pixels (centered on the middle of the movement) to texture pixels.
        gain: How much faster than the ground it passes (parallax).
    """

    picture: Background
    base: np.ndarray
    gain: float = 1.0


@dataclass(frozen=True)
class Mover:
    """Something that moves on its own: a person, a car, an animal, a hand.

    Attributes:
        parts: Outlines (k, 2) around the origin; unit radius.
        swing: (parts, 3) amplitude in radians, phase in radians and frequency in Hz of each part's swing.
        hinge: (parts, 2) the point about which each part swings.
        position: (2,) place at the middle of the clip, in short sides from the center.
        velocity: (2,) short sides per second.
        sway: (2,) amplitude of a regular sway in short sides.
        sway_hz: Its frequency.
        size: Radius in short sides.
        growth: Logarithmic growth per second (coming nearer).
        spin: Radians per second.
        fills: Color of each part.
        texture: (h, w, 3) painted onto the parts, or None for flat colors.
        follows: True if it stays where it is on the screen while the camera moves (it is being followed).
    """

    parts: tuple[np.ndarray, ...]
    swing: np.ndarray
    hinge: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    sway: np.ndarray
    sway_hz: float
    size: float
    growth: float
    spin: float
    fills: tuple[tuple[int, int, int], ...]
    texture: Picture | None
    follows: bool


@dataclass(frozen=True)
class Scene:
    """Everything the camera sees, and how it moves.

    Attributes:
        path: The camera's movement.
        layers: Ground first; later ones are nearer and have masks.
        movers: Objects, the nearest last.
        after_cut: The scene after a hard cut, which has the same label; None without a cut.
        cut_at: Seconds at which the cut comes.
        dissolve: Seconds over which the cut is a cross-dissolve.
    """

    path: CameraPath
    layers: tuple[Layer, ...]
    movers: tuple[Mover, ...]
    after_cut: Scene | None = None
    cut_at: float = 0.0
    dissolve: float = 0.0


def _blob(rng: Rng, points: int = 12) -> np.ndarray:
    """A smooth closed outline (points, 2) of about unit radius."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    reach = 1 + rng.uniform(0.1, 0.5) * np.sin(turn * rng.integers(1, 4) + rng.uniform(0, 6.3))
    reach *= rng.uniform(0.7, 1.0, points)
    return np.asarray(np.stack([reach * np.cos(turn) * rng.uniform(0.4, 1.0), reach * np.sin(turn)], -1))


def _limb(x: float, y: float, length: float, width: float) -> np.ndarray:
    """An upright bar (6, 2) hanging down from (x, y)."""
    w = width / 2
    return np.array(
        [
            [x - w, y],
            [x, y - w],
            [x + w, y],
            [x + w * 0.8, y + length],
            [x, y + length + w],
            [x - w * 0.8, y + length],
        ]
    )


def _disc(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], -1)


def _person(rng: Rng) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Head, trunk, arms and legs: outlines, swings and hinges."""
    w = rng.uniform(0.1, 0.18)
    parts = [
        _limb(-0.12, 0.1, 0.8, w), _limb(0.12, 0.1, 0.8, w),
        _limb(-0.22, -0.45, 0.6, w * 0.8), _disc(0, -0.15, rng.uniform(0.22, 0.34), 0.42),
        _disc(0, -0.78, 0.17, 0.21), _limb(0.22, -0.45, 0.6, w * 0.8),
    ]  # fmt: skip
    hinge = np.array([[-0.12, 0.1], [0.12, 0.1], [-0.22, -0.45], [0, 0], [0, -0.6], [0.22, -0.45]])
    pace, stride, wave = rng.uniform(0.4, 2.5), rng.uniform(0, 0.7), rng.uniform(0, 1.4)
    phase = rng.uniform(0, 6.3)
    swing = np.array(
        [[stride, phase, pace], [stride, phase + np.pi, pace], [wave, phase + np.pi, pace], [0, 0, 1],
         [rng.uniform(0, 0.2), phase, pace], [wave, phase, pace]]
    )  # fmt: skip
    return parts, swing, hinge


def _still(parts: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    return parts, np.tile([0.0, 0.0, 1.0], (len(parts), 1)), np.zeros((len(parts), 2))


def _anatomy(rng: Rng) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Draw what kind of thing a mover is."""
    kind = rng.integers(5)
    if kind <= 1:
        return _person(rng)
    if kind == 2:  # a car or a lorry
        body = np.array(
            [[-1, 0.3], [-1, -0.1], [-0.5, -0.15], [-0.3, -0.5], [0.4, -0.5], [0.6, -0.1], [1, 0.3]]
        )
        return _still([body, _disc(-0.6, 0.3, 0.2, 0.2), _disc(0.6, 0.3, 0.2, 0.2)])
    if kind == 3:  # arms and hands reaching in
        count = int(rng.integers(1, 4))
        arms = [_limb(rng.uniform(-0.5, 0.5), -1.0, 1.6, rng.uniform(0.2, 0.5)) for _ in range(count)]
        rows = [[rng.uniform(0.1, 0.8), rng.uniform(0, 6.3), rng.uniform(0.3, 3)] for _ in arms]
        return arms, np.array(rows), np.stack([arm[0] for arm in arms])
    count = int(rng.integers(1, 5))
    blobs = [_blob(rng) * rng.uniform(0.3, 1.0) + rng.uniform(-0.5, 0.5, 2) for _ in range(count)]
    rows = [[rng.uniform(0, 0.8), rng.uniform(0, 6.3), rng.uniform(0.3, 3)] for _ in blobs]
    return blobs, np.array(rows), rng.uniform(-0.5, 0.5, (count, 2))


def make_mover(rng: Rng, duration: float, texture: Picture | None, largest: float = 0.42) -> Mover:
    """Draw an object that moves independently of the camera.

    Args:
        rng: Source of randomness.
        duration: Length of the clip in seconds.
        texture: A picture to cut its surface from, or None for flat colors.
        largest: Its greatest radius in short sides; two radii of 0.42 cover about half of a square frame.
    """
    parts, swing, hinge = _anatomy(rng)
    speed = rng.uniform(0, 1.1) / duration * (rng.random() < 0.75)
    course = (
        rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else rng.choice([0.0, np.pi]) + rng.normal(0, 0.15)
    )
    gray = rng.uniform(20, 230)
    fills = [np.clip(gray + rng.normal(0, 40, 3), 0, 255).astype(int).tolist() for _ in parts]
    return Mover(
        parts=tuple(parts),
        swing=swing,
        hinge=hinge,
        position=rng.uniform(-0.45, 0.45, 2),
        velocity=speed * np.array([np.cos(course), np.sin(course)]),
        sway=rng.uniform(0, 0.08, 2) * (rng.random() < 0.4),
        sway_hz=rng.uniform(0.3, 3.0),
        size=float(np.exp(rng.uniform(np.log(0.06), np.log(largest)))),
        growth=rng.normal(0, 0.25) * (rng.random() < 0.3),
        spin=rng.normal(0, 1.0) * (rng.random() < 0.15),
        fills=tuple(fills),
        texture=texture,
        follows=bool(rng.random() < 0.3),
    )


def _turned(points: np.ndarray, angle: float, center: np.ndarray) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray((points - center) @ np.array([[c, s], [-s, c]]) + center)


def _draw_mover(
    frame: Picture, mover: Mover, time: float, middle: float, to_screen: np.ndarray, side: float
) -> None:
    """Paint the mover at `time` onto the frame; `to_screen` maps background pixels to centered screen pixels."""
    place = mover.position + mover.velocity * (time - middle)
    place = place + mover.sway * np.sin(2 * np.pi * mover.sway_hz * time + np.array([0.0, 1.0]))
    size = mover.size * np.exp(mover.growth * (time - middle))
    spin = mover.spin * (time - middle)
    h, w = frame.shape[:2]
    center = np.array([w / 2, h / 2])
    matrix = np.eye(3) if mover.follows else to_screen
    outlines = []
    for part, (amplitude, phase, hertz), hinge in zip(mover.parts, mover.swing, mover.hinge, strict=True):
        points = (
            _turned(part, amplitude * np.sin(2 * np.pi * hertz * time + phase), hinge) if amplitude else part
        )
        points = _turned(points, spin, np.zeros(2)) if spin else points
        points = (points * size + place) * side
        points = points @ matrix[:2, :2].T + matrix[:2, 2]
        # Sub-pixel outlines: cv2 takes fixed-point coordinates with 4 fractional bits.
        outlines.append(np.clip((points + center) * 16, -(2**20), 2**20).astype(np.int32))
    if mover.texture is None:
        for outline, fill in zip(outlines, mover.fills, strict=True):
            cv2.fillPoly(frame, [outline], fill, cv2.LINE_8, 4)
        return
    # Only the box around the outlines is looked at.
    corners = np.concatenate(outlines) / 16
    left, top = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, [w, h])
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, [w, h])
    if right - left < 2 or bottom - top < 2:
        return
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [outline - np.array([left, top], np.int32) * 16], 255, cv2.LINE_8, 4)
    scale = mover.texture.shape[0] / (2.6 * size * side)
    c, s = np.cos(spin) * scale, np.sin(spin) * scale
    half = mover.texture.shape[0] / 2
    local = np.array([[c, s, half], [-s, c, half], [0, 0, 1.0]])
    shift = np.eye(3)
    shift[:2, 2] = -place * side
    middle_of_box = np.eye(3)
    middle_of_box[:2, 2] = np.array([left + right, top + bottom]) / 2 - center
    lookup = local @ shift @ (np.eye(3) if mover.follows else np.linalg.inv(to_screen)) @ middle_of_box
    box = frame[top:bottom, left:right]
    np.copyto(box, _warp(mover.texture, lookup, mask.shape), where=mask[..., None] > 0)


def _warp(picture: Picture, screen_to_texture: np.ndarray, size: tuple[int, int]) -> Picture:
    """Look up `picture` at every pixel of a (h, w) screen; `screen_to_texture` starts at the screen's center."""
    h, w = size
    center = np.array([[1, 0, -(w - 1) / 2], [0, 1, -(h - 1) / 2], [0, 0, 1.0]])
    matrix = screen_to_texture @ center
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if abs(matrix[2, 0]) + abs(matrix[2, 1]) < 1e-12:
        return cv2.warpAffine(
            picture, matrix[:2] / matrix[2, 2], (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
    return cv2.warpPerspective(picture, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT)


def render(
    scene: Scene, times: np.ndarray, size: tuple[int, int], shutter: float = 0.0, samples: int = 1
) -> Picture:
    """Film the scene.

    Args:
        scene: What is there, and the camera's path.
        times: (t,) seconds of the frames.
        size: Height and width of the frames in pixels.
        shutter: Seconds that the shutter stays open (motion blur); needs `samples` > 1.
        samples: Moments averaged into one frame.

    Returns:
        (t, h, w, 3) uint8.
    """
    if scene.after_cut is not None:
        return _render_cut(scene, times, size, shutter, samples)
    frames = np.empty((len(times), *size, 3), np.uint8)
    offsets = np.linspace(0, shutter, samples) if samples > 1 else np.zeros(1)
    moments = (times[:, None] + offsets).ravel()
    side = float(min(size))
    views = [
        [layer.base @ m for m in scene.path.matrices(moments, side, layer.gain)] for layer in scene.layers
    ]
    to_screen = np.linalg.inv(scene.path.matrices(moments, side)) if scene.movers else None
    middle = scene.path.duration / 2
    for i in range(len(times)):
        total = np.zeros((*size, 3), np.uint16) if samples > 1 else None
        for k in range(i * samples, (i + 1) * samples):
            frame = _warp(scene.layers[0].picture(i), views[0][k], size)
            for layer, matrices in zip(scene.layers[1:], views[1:], strict=True):
                near = _warp(layer.picture(i), matrices[k], size)
                cv2.copyTo(np.ascontiguousarray(near[..., :3]), (near[..., 3] > 127).astype(np.uint8), frame)
            for mover in scene.movers:
                if to_screen is not None:
                    _draw_mover(frame, mover, float(moments[k]), middle, to_screen[k], side)
            if total is not None:
                total += frame
        frames[i] = frame if total is None else (total // samples).astype(np.uint8)
    return frames


def _render_cut(
    scene: Scene, times: np.ndarray, size: tuple[int, int], shutter: float, samples: int
) -> Picture:
    """Film two shots with a cut or a cross-dissolve between them."""
    assert scene.after_cut is not None
    first = Scene(scene.path, scene.layers, scene.movers)
    weight = (times - scene.cut_at) / max(scene.dissolve, 1e-6)
    weight = np.clip(weight, 0, 1) if scene.dissolve else (times >= scene.cut_at).astype(float)
    frames = np.empty((len(times), *size, 3), np.uint8)
    for shot, part in ((first, weight < 1), (scene.after_cut, weight > 0)):
        if not part.any():
            continue
        new = render(shot, times[part], size, shutter, samples)
        if shot is first:
            frames[part] = new
            continue
        for frame, index in zip(new, np.flatnonzero(part), strict=True):
            w = float(weight[index])
            frames[index] = frame if w >= 1 else cv2.addWeighted(frame, w, frames[index], 1 - w, 0)
    return frames
