"""Textures made by rule: the backgrounds that a synthetic camera looks at.

Every maker takes a random generator and a side length and returns one picture, (side, side, 3) uint8 RGB.
Together they are meant to be broader than any one kind of footage: detailed and almost empty, periodic and
scale-free, flat and with a horizon, bright and at night.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator
Picture = np.ndarray


def power_noise(rng: Rng, side: int, exponent: float) -> np.ndarray:
    """Noise whose amplitude falls with spatial frequency as 1/f^exponent.

    Returns:
        (side, side) float32, mean 0, standard deviation 1.
    """
    fy = np.fft.fftfreq(side).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(side).astype(np.float32)[None]
    radius = np.sqrt(fy * fy + fx * fx)
    radius[0, 0] = 1.0
    shape = radius.shape
    spectrum = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    spectrum *= radius**-exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (side, side)).astype(np.float32)
    return np.asarray(noise / (noise.std() + 1e-6))


def color(rng: Rng) -> tuple[int, int, int]:
    """One random color, more often muted than pure."""
    gray = rng.uniform(10, 245)
    tint = rng.normal(0, rng.choice([8.0, 30.0, 80.0]), 3)
    r, g, b = np.clip(gray + tint, 0, 255).astype(int).tolist()
    return r, g, b


def colored(rng: Rng, field: np.ndarray) -> Picture:
    """Map a (h, w) field of mean 0 and deviation 1 to a picture through a random ramp of three colors."""
    stops = np.array([color(rng) for _ in range(3)], np.float32)
    x = np.linspace(0, 2, 256)
    ramp = np.stack([np.interp(x, [0, 1, 2], stops[:, c]) for c in range(3)], -1).astype(np.uint8)
    index = np.clip(field * rng.uniform(30, 60) + 128, 0, 255).astype(np.uint8)
    return ramp[index]


def noise(rng: Rng, side: int) -> Picture:
    """1/f noise: clouds at steep exponents, sand at shallow ones."""
    exponent = rng.uniform(0.6, 2.0)
    if rng.random() < 0.5:
        return colored(rng, power_noise(rng, side, exponent))
    shared = power_noise(rng, side, exponent)
    own = [power_noise(rng, side, exponent) for _ in range(3)]
    mix, contrast, level = rng.uniform(0.2, 1.0), rng.uniform(20, 60), rng.uniform(70, 180, 3)
    planes = [level[c] + contrast * (mix * shared + (1 - mix) * own[c]) for c in range(3)]
    return np.asarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))


def modulated(rng: Rng, picture: Picture, strength: float, exponent: float = 1.2) -> Picture:
    """Multiply a picture with 1/f noise, as surfaces in the background are never quite even."""
    gain = 1.0 + strength * power_noise(rng, picture.shape[0], exponent)
    return np.clip(picture * gain[..., None], 0, 255).astype(np.uint8)


def draw_blob(
    rng: Rng, picture: Picture, center: np.ndarray, radius: float, fill: tuple[int, int, int]
) -> None:
    """Draw one filled disc, ellipse, box or ragged polygon of about `radius` pixels into the picture."""
    kind, angle = rng.integers(4), float(rng.uniform(0, 360))
    x, y = int(center[0]), int(center[1])
    axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.25, 1.0))))
    if kind == 0:
        cv2.circle(picture, (x, y), axes[0], fill, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.ellipse(picture, (x, y), axes, angle, 0, 360, fill, -1, cv2.LINE_AA)
    elif kind == 2:
        box = cv2.boxPoints(((float(x), float(y)), (2.0 * axes[0], 2.0 * axes[1]), angle))
        cv2.fillConvexPoly(picture, box.astype(np.int32), fill, cv2.LINE_AA)
    else:
        corners = int(rng.integers(3, 9))
        turn = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.5, 1.0, corners)
        points = np.stack([x + reach * np.cos(turn), y + reach * np.sin(turn)], -1)
        cv2.fillPoly(picture, [points.astype(np.int32)], fill, cv2.LINE_AA)


def dead_leaves(rng: Rng, side: int) -> Picture:
    """Opaque shapes over each other with a 1/r^3 law of sizes: edges and occlusions as in natural pictures."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = color(rng)
    smallest, count = rng.uniform(2.5, 12), int(rng.integers(100, 700))
    radii = np.minimum(smallest / np.sqrt(rng.uniform(0.0005, 1.0, count)), side * 0.3)
    palette = [color(rng) for _ in range(int(rng.integers(4, 40)))]
    centers = rng.uniform(0, side, (count, 2))
    for center, radius in zip(centers, radii, strict=True):
        draw_blob(rng, picture, center, float(radius), palette[int(rng.integers(len(palette)))])
    return modulated(rng, picture, rng.uniform(0.05, 0.25), rng.uniform(0.8, 1.8))


def shapes(rng: Rng, side: int) -> Picture:
    """A handful of shapes on a smooth ground: much of the frame holds nothing to track."""
    picture = gradient(rng, side)
    for _ in range(int(rng.integers(6, 40))):
        draw_blob(rng, picture, rng.uniform(0, side, 2), float(rng.uniform(6, side * 0.14)), color(rng))
    if rng.random() < 0.5:
        picture = modulated(rng, picture, rng.uniform(0.02, 0.12))
    return picture


def text(rng: Rng, side: int) -> Picture:
    """Printed matter: rows of letters in several sizes on paper."""
    picture = gradient(rng, side)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-   "
    y = 0.0
    while y < side:
        size, font = float(rng.uniform(0.3, 1.6)), int(rng.integers(0, 8))
        line = "".join(rng.choice(list(letters), 40))
        y += 30 * size * rng.uniform(0.9, 1.8)
        x = int(rng.integers(-40, side // 3))
        width = int(rng.integers(1, 4))
        cv2.putText(picture, line, (x, int(y)), font, size, color(rng), width, cv2.LINE_AA)
    return picture


def gradient(rng: Rng, side: int) -> Picture:
    """Smooth light and color, with very low-contrast structure."""
    small = rng.uniform(0, 1, (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3)).astype(np.float32)
    small = small * rng.uniform(20, 140) + rng.uniform(10, 120)
    smooth = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    smooth = smooth + rng.uniform(1, 7) * power_noise(rng, side, rng.uniform(1.0, 1.8))[..., None]
    return np.clip(smooth, 0, 255).astype(np.uint8)


def natural(rng: Rng, side: int) -> Picture:
    """Dead leaves in front of clouds, partly out of focus, under uneven light."""
    near, far = dead_leaves(rng, side), noise(rng, side)
    if rng.random() < 0.5:
        far = cv2.GaussianBlur(far, (0, 0), rng.uniform(1, 6))
    mask = power_noise(rng, side, rng.uniform(1.4, 2.2)) > rng.uniform(-1, 1)
    picture = np.where(mask[..., None], near, far)
    light = 1 + rng.uniform(0.1, 0.35) * power_noise(rng, side, 2.2)
    return np.clip(picture * light[..., None], 0, 255).astype(np.uint8)


def grid(rng: Rng, side: int) -> Picture:
    """Tiles, bricks, windows or planks, often seen in perspective; each cell a little different."""
    picture = gradient(rng, side)
    step_x, step_y = rng.uniform(14, 80), rng.uniform(14, 80)
    gap, jitter, stagger = rng.uniform(0.05, 0.5), rng.uniform(0.0, 0.3), rng.random() < 0.4
    base, spread = np.array(color(rng)), rng.uniform(3, 50)
    for row in range(int(side / step_y) + 2):
        shift = step_x / 2 if stagger and row % 2 else 0.0
        for column in range(int(side / step_x) + 2):
            x = (column + jitter * rng.normal()) * step_x - shift
            y = row * step_y
            fill = np.clip(base + rng.normal(0, spread, 3), 0, 255).astype(int).tolist()
            corner = (int(x + step_x * (1 - gap)), int(y + step_y * (1 - gap)))
            cv2.rectangle(picture, (int(x), int(y)), corner, fill, -1 if rng.random() < 0.95 else 2)
    if rng.random() < 0.6:
        picture = in_perspective(rng, picture)
    return modulated(rng, picture, rng.uniform(0.02, 0.2))


def in_perspective(rng: Rng, picture: Picture) -> Picture:
    """See a flat picture at a slant."""
    side = picture.shape[0]
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    moved = corners + rng.uniform(-0.35, 0.35, (4, 2)).astype(np.float32) * side
    matrix = cv2.getPerspectiveTransform(moved, corners)
    border = cv2.BORDER_REFLECT_101
    return cv2.warpPerspective(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)


def landscape(rng: Rng, side: int) -> Picture:
    """Sky above ground, a skyline of trees or houses between them; detail grows toward the viewer."""
    horizon = int(side * rng.uniform(0.3, 0.7))
    sky = cv2.GaussianBlur(noise(rng, side), (0, 0), 4).astype(np.float32) * rng.uniform(0.1, 0.5)
    top, low = np.array(color(rng), np.float32), np.array(color(rng), np.float32)
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    picture = np.clip(sky + (1 - ramp) * top + ramp * low, 0, 255).astype(np.uint8)
    ground = [noise, dead_leaves, grid][int(rng.integers(3))](rng, side)
    source = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    spread = rng.uniform(0.1, 1.5) * side
    target = np.array(
        [[0, horizon], [side, horizon], [side + spread, side], [-spread, side]], dtype=np.float32
    )
    matrix = cv2.getPerspectiveTransform(source, target)
    floor = cv2.warpPerspective(ground, matrix, (side, side), flags=cv2.INTER_LINEAR)
    picture[horizon:] = floor[horizon:]
    kind = rng.integers(3)
    for _ in range(int(rng.integers(3, 40))):
        x, height, width = (
            rng.uniform(0, side),
            rng.uniform(0.03, 0.35) * side,
            rng.uniform(0.02, 0.15) * side,
        )
        fill = color(rng)
        if kind == 0:
            box = (int(x), int(horizon - height)), (int(x + width), int(horizon + width * 0.3))
            cv2.rectangle(picture, box[0], box[1], fill, -1)
        elif kind == 1:
            cv2.line(
                picture, (int(x), horizon), (int(x), int(horizon - height)), fill, max(1, int(width * 0.2))
            )
            draw_blob(rng, picture, np.array([x, horizon - height]), float(width), fill)
        else:
            draw_blob(rng, picture, np.array([x, horizon + height * 0.4]), float(width), fill)
    return modulated(rng, picture, rng.uniform(0.02, 0.15))


def repetitive(rng: Rng, side: int) -> Picture:
    """Gratings, checks and dots, broken enough by noise for their motion to be told."""
    axis = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    wave, turn = rng.uniform(14, 70), rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    bend = rng.uniform(0.0, 0.25) * wave * power_noise(rng, side, 2.0)
    field = np.sin(2 * np.pi * (u + bend) / wave)
    if rng.random() < 0.75:
        field = field * np.sin(2 * np.pi * (v + bend) / (wave * rng.uniform(0.7, 2.0)))
    if rng.random() < 0.5:
        field = np.sign(field)
    return colored(rng, field * 1.2 + rng.uniform(0.3, 1.0) * power_noise(rng, side, 1.3))


def room(rng: Rng, side: int) -> Picture:
    """Indoors: walls and large flat furniture with hard edges, some pictures and text on them."""
    picture = gradient(rng, side)
    for _ in range(int(rng.integers(8, 30))):
        x, y = rng.uniform(-0.1, 1.0, 2) * side
        w, h = side * rng.uniform(0.04, 0.35, 2)
        first, last = np.array(color(rng), np.float32), np.array(color(rng), np.float32)
        x0, y0, x1, y1 = max(0, int(x)), max(0, int(y)), int(x + w), int(y + h)
        patch = picture[y0:y1, x0:x1]
        if patch.size:
            shade = np.linspace(0, rng.uniform(0.0, 0.6), patch.shape[0], dtype=np.float32)[:, None, None]
            patch[:] = np.clip(first * (1 - shade) + last * shade, 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            cv2.putText(
                picture, "".join(rng.choice(list("AEHKMRTX "), 6)), (x0, y1), 0, w / 90, color(rng), 2
            )
    if rng.random() < 0.4:
        picture = in_perspective(rng, picture)
    return modulated(rng, picture, rng.uniform(0.02, 0.1), 1.0)


def night(rng: Rng, side: int) -> Picture:
    """Small lights and their halos on darkness."""
    picture = (gradient(rng, side) * rng.uniform(0.08, 0.3)).astype(np.uint8)
    for _ in range(int(rng.integers(15, 150))):
        center = rng.uniform(0, side, 2)
        draw_blob(rng, picture, center, float(rng.uniform(1.5, 9)), color(rng))
    halo = cv2.GaussianBlur(picture, (0, 0), rng.uniform(3, 10))
    return cv2.add(picture, halo)


def cells(rng: Rng, side: int) -> Picture:
    """Voronoi cells: cobbles, scales, crowds, foliage."""
    count = int(rng.integers(40, 900))
    seeds = np.full((side, side), 255, np.uint8)
    points = rng.integers(0, side, (count, 2))
    seeds[points[:, 1], points[:, 0]] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    palette = np.array([color(rng) for _ in range(32)], np.uint8)
    picture = palette[label % 32].astype(np.float32)
    shade = 1 - distance * rng.uniform(0.0, 0.9) / (distance.max() + 1e-6)
    return modulated(
        rng, np.clip(picture * shade[..., None], 0, 255).astype(np.uint8), rng.uniform(0.02, 0.2)
    )


MAKERS: dict[str, tuple[Callable[[Rng, int], Picture], float]] = {
    "noise": (noise, 0.11),
    "dead leaves": (dead_leaves, 0.14),
    "shapes": (shapes, 0.10),
    "text": (text, 0.06),
    "gradient": (gradient, 0.04),
    "natural": (natural, 0.17),
    "grid": (grid, 0.08),
    "landscape": (landscape, 0.12),
    "repetitive": (repetitive, 0.04),
    "room": (room, 0.07),
    "night": (night, 0.03),
    "cells": (cells, 0.04),
}
"""Name → maker and its share of the training backgrounds (the shares sum to one)."""


def make_texture(rng: Rng, side: int = 384) -> Picture:
    """Make one background by rule.

    Args:
        rng: Source of every choice; the same state gives the same picture.
        side: Side length in pixels.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    makers = list(MAKERS.values())
    share = np.array([weight for _, weight in makers])
    picture = makers[int(rng.choice(len(makers), p=share / share.sum()))][0](rng, side)
    if rng.random() < 0.2:
        other = makers[int(rng.integers(len(makers)))][0](rng, side)
        weight = float(rng.uniform(0.3, 0.8))
        picture = cv2.addWeighted(picture, weight, other, 1 - weight, 0)
    blur = rng.uniform(0.0, 2.2) if rng.random() < 0.35 else 0.0
    return cv2.GaussianBlur(picture, (0, 0), blur) if blur > 0.3 else picture
