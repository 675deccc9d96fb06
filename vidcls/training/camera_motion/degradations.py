"""What stands between a scene and the file: light, lens, sensor, editing and compression."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import lru_cache

import av
import cv2
import numpy as np

Rng = np.random.Generator
Frames = np.ndarray


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """A strip of normal noise (2^20,) int16, deviation 64; drawn once, read at random offsets."""
    return np.asarray(np.random.default_rng(0).normal(0, 64, 1 << 20).astype(np.int16))


def sensor_noise(rng: Rng, frames: Frames, sigma: float) -> Frames:
    """Add grain of deviation `sigma` levels, different in every frame."""
    bank, flat = _noise_bank(), frames.reshape(len(frames), -1)
    gain = int(sigma * 4)
    out = np.empty_like(flat)
    for i, row in enumerate(flat):
        start = int(rng.integers(0, len(bank) - min(row.size, len(bank) // 2)))
        grain = np.resize(bank[start : start + row.size], row.size) if row.size > len(bank) - start else None
        grain = bank[start : start + row.size] if grain is None else grain
        out[i] = np.clip(row + ((grain * gain) >> 8), 0, 255)
    return out.reshape(frames.shape)


def light(rng: Rng, frames: Frames, times: np.ndarray) -> Frames:
    """Grade the clip and change its light over time.

    Contrast, brightness and gamma are drawn once; in some clips the exposure drifts, flickers, flashes or fades
    from or to black, and in some the colors are weak or gone.
    """
    n = len(frames)
    u = (times - times.min()) / max(float(np.ptp(times)), 1e-3)
    gain = np.ones(n)
    kind = rng.random()
    if kind < 0.12:  # exposure drifts
        gain *= np.exp(rng.normal(0, 0.4) * (u - 0.5))
    elif kind < 0.2:  # lamps flicker
        gain *= 1 + rng.uniform(0.02, 0.2) * np.sin(
            2 * np.pi * rng.uniform(0.5, 12) * times + rng.uniform(0, 6.3)
        )
    elif kind < 0.24:  # flashes
        for _ in range(int(rng.integers(1, 4))):
            gain[int(rng.integers(n))] *= rng.uniform(1.3, 2.5)
    elif kind < 0.28:  # fade in or out
        ramp = np.clip((u if rng.random() < 0.5 else 1 - u) / rng.uniform(0.1, 0.4), 0.05, 1)
        gain *= ramp
    x = np.arange(256) / 255.0
    base = x ** np.exp(rng.normal(0, 0.25))
    base = (base - 0.5) * rng.uniform(0.45, 1.15) + 0.5 + rng.normal(0, 0.07)
    gray = 1.0 if rng.random() < 0.12 else rng.uniform(0, 0.6) * (rng.random() < 0.4)
    tint = rng.normal(1, 0.06, 3) if rng.random() < 0.4 else np.ones(3)
    fixed = np.ptp(gain) < 1e-6
    table = np.clip(base[:, None] * tint * 255 * gain[0], 0, 255).astype(np.uint8)[None]
    out = np.empty_like(frames)
    for i, frame in enumerate(frames):
        if not fixed:
            table = np.clip(base[:, None] * tint * 255 * gain[i], 0, 255).astype(np.uint8)[None]
        graded = cv2.LUT(frame, np.ascontiguousarray(table))
        if gray > 0.05:
            luma = cv2.cvtColor(cv2.cvtColor(graded, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            graded = cv2.addWeighted(luma, gray, graded, 1 - gray, 0)
        out[i] = graded
    return out


def overlays(rng: Rng, frames: Frames) -> None:
    """Draw what editors put over a picture, in place: black bars, a logo, a subtitle."""
    n, h, w = frames.shape[:3]
    if rng.random() < 0.1:
        bar = int(h * rng.uniform(0.04, 0.16))
        shade = int(rng.choice([0, 0, 0, 16, 255]))
        frames[:, :bar], frames[:, h - bar :] = shade, shade
    elif rng.random() < 0.05:
        bar = int(w * rng.uniform(0.04, 0.2))
        frames[:, :, :bar], frames[:, :, w - bar :] = 0, 0
    if rng.random() < 0.1:  # a logo in a corner
        size = max(4, int(h * rng.uniform(0.06, 0.2)))
        y, x = (int(rng.choice([h * 0.04, h * 0.94 - size])), int(rng.choice([w * 0.04, w * 0.94 - size])))
        fill = rng.integers(0, 256, 3).astype(np.float32)
        alpha = float(rng.uniform(0.4, 1.0))
        shape = np.zeros((size, size, 1), np.float32)
        cv2.circle(
            shape, (size // 2, size // 2), size // 2, 1.0, -1 if rng.random() < 0.5 else max(1, size // 6)
        )
        patch = frames[:, y : y + size, x : x + size]
        patch[:] = (patch * (1 - alpha * shape) + alpha * shape * fill).astype(np.uint8)
    if rng.random() < 0.1:  # a subtitle or a clock, perhaps for a part of the clip
        words = "".join(rng.choice(list("abcdefghiklmnorstu    "), int(rng.integers(5, 30))))
        scale = h / 128 * rng.uniform(0.25, 0.6)
        place = (int(rng.uniform(0, 0.3) * w), int(rng.choice([0.1, 0.85, 0.92]) * h))
        first = int(rng.integers(0, n)) if rng.random() < 0.4 else 0
        ink = (255, 255, 255) if rng.random() < 0.6 else tuple(rng.integers(0, 256, 3).tolist())
        thick = max(1, round(h / 128))
        for frame in frames[first:]:
            cv2.putText(frame, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thick + 2)
            cv2.putText(frame, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)


def jpeg(frames: Frames, quality: int) -> Frames:
    """Compress every frame by itself, as motion JPEG does."""
    out = np.empty_like(frames)
    for i, frame in enumerate(frames):
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out[i] = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return out


def h264(frames: Frames, crf: int, preset: str = "ultrafast") -> Frames:
    """Send a clip through a real H.264 encoder and decoder at constant quality `crf` (higher is worse)."""
    buffer = io.BytesIO()
    encode(buffer, frames, Fraction(25), crf, preset)
    buffer.seek(0)
    with av.open(buffer) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(decoded)


def encode(
    target: io.BytesIO | str, frames: Frames, fps: Fraction, crf: int, preset: str = "veryfast"
) -> None:
    """Write frames (t, h, w, 3) uint8, h and w even, as an H.264 mp4 file.

    Args:
        target: A path or a binary buffer.
        frames: The pictures.
        fps: Frames per second.
        crf: Constant rate factor of x264; 18 looks lossless, 40 is very poor.
        preset: Speed preset of x264.
    """
    options = {"crf": str(crf), "preset": preset, "threads": "1"}
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def compression(rng: Rng, frames: Frames) -> Frames:
    """Compress one clip in five, by JPEG or by H.264."""
    kind = rng.random()
    if kind < 0.08:
        return jpeg(frames, int(rng.integers(12, 60)))
    if kind < 0.2:
        return h264(frames, int(rng.integers(22, 40)))
    return frames


def shrink(rng: Rng, frames: Frames, side: int) -> Frames:
    """Bring square frames to `side` pixels, mostly antialiased, sometimes softer or sharper than that."""
    if frames.shape[1] == side:
        return frames
    kind = rng.random()
    rule = cv2.INTER_AREA if kind < 0.85 else cv2.INTER_LINEAR
    blur = rng.uniform(0.5, 1.8) if kind < 0.2 else 0.0
    out = np.empty((len(frames), side, side, 3), np.uint8)
    for i, frame in enumerate(frames):
        if blur:
            frame = cv2.GaussianBlur(frame, (0, 0), blur)
        cv2.resize(frame, (side, side), dst=out[i], interpolation=rule)
    return out
