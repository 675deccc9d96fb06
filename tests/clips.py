"""Clips made on the spot for the tests: every frame carries its number in a form that survives encoding.

The upper half of a frame is a row of black and white blocks, the frame's number in binary; the lower half is
a colored pattern that moves, so that color conversion and motion are exercised too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 12
"""Bits of a frame's number: clips of up to 4096 frames are told apart."""

_IDENTITY = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_FASTEST = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "11"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
_COS_SIN = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}


def number_frame(number: int, height: int, width: int) -> np.ndarray:
    """A picture (height, width, 3) uint8 RGB that says which frame it is."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = (x * 255 // max(width - 1, 1) + 3 * number) % 256 // 2 + 64
    picture[..., 1] = y * 255 // max(height - 1, 1)
    picture[..., 2] = (255 - x * 255 // max(width - 1, 1)) // 2 + 32
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        picture[: height // 2, edges[bit] : edges[bit + 1]] = 224 if number >> bit & 1 else 32
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number in a picture made by `number_frame`, at any size, after any mild damage."""
    height, width = picture.shape[:2]
    edges = np.linspace(0, width, BITS + 1)
    rows = slice(height // 8, max(height // 8 + 1, height * 3 // 8))
    number = 0
    for bit in range(BITS):
        left, right = edges[bit], edges[bit + 1]
        margin = (right - left) / 4
        columns = slice(int(left + margin), max(int(right - margin), int(left + margin) + 1))
        number |= int(picture[rows, columns].mean() > 128) << bit
    return number


def read_numbers(pictures: Iterable[np.ndarray]) -> list[int]:
    """`read_number` of each of several pictures."""
    return [read_number(picture) for picture in pictures]


def make_clip(
    path: str | Path,
    frames: int | Sequence[np.ndarray] | np.ndarray = 30,
    *,
    fps: float | Fraction = 25,
    size: tuple[int, int] = (96, 144),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    gop: int = 12,
    bframes: int = 0,
    rotation: int = 0,
    audio: bool = False,
    second_size: tuple[int, int] | None = None,
    both_default: bool = False,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    faststart: bool = False,
) -> Path:
    """Writes a clip and returns its path.

    Args:
        path: Where to write; the suffix chooses the container.
        frames: How many numbered frames, or the frames themselves, (t, h, w, 3) uint8 RGB.
        fps: Frames a second.
        size: (height, width) in pixels of numbered frames.
        codec: FFmpeg's name of the encoder.
        pix_fmt: Pixel format that is encoded; ``yuvj420p`` is full range, ``yuv420p10le`` is 10 bits.
        times: Seconds at which each frame is shown, for a variable frame rate; resolution is a millisecond.
        gop: Frames from key frame to key frame.
        bframes: Bidirectional frames between two others (libx264 and mpeg4).
        rotation: Degrees clockwise by which a player has to turn the pictures (MP4 and MOV only).
        audio: Whether to add a sound stream.
        second_size: (height, width) of a second video stream, put after the first; its numbers start at 2048.
        both_default: Whether the second stream is marked as default too, as the first always is.
        options: More options for the encoder.
        container_format: FFmpeg's name of the container, where the suffix does not tell.
        faststart: Whether an MP4's index comes before its frames, so that a cut file still opens.
    """
    path = Path(path)
    if isinstance(frames, int):
        pictures: Iterable[np.ndarray] = (number_frame(i, *size) for i in range(frames))
    else:
        pictures, size = frames, (len(frames[0]), len(frames[0][0]))
    rate = Fraction(fps).limit_denominator(1001)
    base = Fraction(1, 1000) if times is not None else 1 / rate
    muxing = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", format=container_format, options=muxing) as container:
        stream = _add_video(container, codec, rate, size, pix_fmt, base, gop, bframes, options)
        second = None
        if second_size is not None:
            second = _add_video(container, codec, rate, second_size, pix_fmt, base, gop, bframes, options)
            if both_default:
                stream.disposition = second.disposition = av.stream.Disposition.default.value
        sound = container.add_stream("aac", rate=8000) if audio else None
        count = 0
        for count, picture in enumerate(pictures, 1):
            pts = count - 1 if times is None else round(times[count - 1] * 1000)
            container.mux(_encode(stream, picture, pix_fmt, pts, base))
            if second is not None and second_size is not None:
                other = number_frame(2048 + count - 1, *second_size)
                container.mux(_encode(second, other, pix_fmt, pts, base))
        container.mux(stream.encode(None))
        if second is not None:
            container.mux(second.encode(None))
        if sound is not None:
            _add_sound(container, sound, seconds=count / float(rate))
    if rotation:
        set_rotation(path, rotation)
    return path


def make_audio(path: str | Path, seconds: float = 1.0) -> Path:
    """Writes a file that holds sound and no picture."""
    with av.open(str(path), "w") as container:
        _add_sound(container, container.add_stream("aac", rate=8000), seconds)
    return Path(path)


def set_rotation(path: str | Path, degrees: int) -> None:
    """Writes the display matrix of every track of an MP4 or MOV file: turn by ``degrees`` clockwise."""
    cosine, sine = _COS_SIN[degrees % 360]
    one = 0x10000
    set_matrix(path, (one * cosine, one * sine, 0, -one * sine, one * cosine, 0, 0, 0, 0x40000000))


def set_matrix(path: str | Path, matrix: Sequence[int]) -> None:
    """Writes nine numbers as the display matrix of every track of an MP4 or MOV file."""
    data = Path(path).read_bytes()
    patched = data.replace(struct.pack(">9i", *_IDENTITY), struct.pack(">9i", *matrix))
    if data.count(struct.pack(">9i", *_IDENTITY)) < 2:
        raise ValueError(f"{path}: no track header with an identity matrix")
    # The movie header carries a matrix too, before those of the tracks; it stays as it was.
    at = data.index(b"mvhd")
    head = data.index(struct.pack(">9i", *_IDENTITY), at)
    patched = patched[:head] + data[head : head + 36] + patched[head + 36 :]
    Path(path).write_bytes(patched)


def _add_video(
    container: Any,
    codec: str,
    rate: Fraction,
    size: tuple[int, int],
    pix_fmt: str,
    base: Fraction,
    gop: int,
    bframes: int,
    options: dict[str, str] | None,
) -> Any:
    chosen = dict(_FASTEST.get(codec, {}))
    if codec in ("libx264", "mpeg4"):
        chosen["bf"] = str(bframes)
    stream = container.add_stream(codec, rate=rate, options={**chosen, **(options or {})})
    stream.height, stream.width = size
    stream.pix_fmt = pix_fmt
    stream.time_base = base
    stream.codec_context.time_base = base
    stream.codec_context.gop_size = gop
    stream.codec_context.thread_count = 1
    return stream


def _encode(stream: Any, picture: np.ndarray, pix_fmt: str, pts: int, base: Fraction) -> Any:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pix_fmt)
    frame.pts, frame.time_base = pts, base
    return stream.encode(frame)


def _add_sound(container: Any, stream: Any, seconds: float) -> None:
    for start in range(0, int(8000 * seconds), 1024):
        wave = np.sin(np.arange(start, start + 1024) * 0.3).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
