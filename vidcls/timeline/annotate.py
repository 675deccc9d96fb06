"""A video written anew with its labels and a score bar drawn in; its sound is kept.

Pictures and sound are decoded in the worker process, as always; here they are only drawn on and encoded.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vidcls.errors import OutputError, UsageError, printable
from vidcls.inference.clip import file_source
from vidcls.output.sinks import open_error
from vidcls.paths import put_in_place, temporary_path
from vidcls.timeline.ahead import ahead
from vidcls.timeline.result import Timeline
from vidcls.video.collect import Sound
from vidcls.video.fetch import opened
from vidcls.video.reader import VideoInfo, VideoReader

SUFFIXES = (".mp4", ".mkv", ".mov")
PIECE_BYTES = 32 << 20  # of frames that are handed over together
TICKS = 90_000  # a second, of the times that are written
CRF = "20"
# Fonts that have more than Latin letters; the first that the system has is taken for a label that needs it.
FONTS = (
    "NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "arialuni.ttf", "msgothic.ttc", "Arial.ttf",
)  # fmt: skip

Picture = NDArray[np.uint8]


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that cannot be written to, before anything is done.

    Raises:
        UsageError: The suffix is not a video's, or the file exists.
        OutputError: The folder does not exist.
    """
    name = printable(str(path))
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(name, "its suffix is not that of a video", f"end its name in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise open_error(path, FileNotFoundError())
    if path.exists() and not overwrite:
        raise UsageError(name, "already exists", "choose another output, or pass overwrite=True")


def annotate(
    timeline: Timeline,
    target: Path,
    reader: VideoReader,
    sound_reader: VideoReader,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a video with the label of each moment and its score drawn in, as H.264 with AAC.

    Frames keep their times; pixels that are not square become square.

    Args:
        timeline: Of the video, which is read again from where it was.
        target: The file to write; it is there when it is whole.
        reader: Reads the pictures.
        sound_reader: Reads the sound meanwhile.
        progress: Called with the number of frames done and of all frames.

    Raises:
        UsageError: The video came from standard input.
        VideoError: The video cannot be read.
        OutputError: The file cannot be written.
    """
    if timeline.path == "-":
        raise UsageError("annotate", "needs a video that can be read twice", "save it to a file first")
    place = temporary_path(target.resolve())
    place = place.with_name(place.name + target.suffix.lower())  # the suffix chooses the container
    import av

    try:
        with opened(file_source(timeline.path)) as clip:
            info = reader.open(clip)
            sound_reader.open(clip)
            with av.open(str(place), "w") as container:
                _write(container, timeline, info, reader, sound_reader, progress)
        put_in_place(place, target)
    except (av.FFmpegError, OSError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            printable(str(target)), f"cannot be written ({said})", "choose another place"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


def _write(
    container: Any,
    timeline: Timeline,
    info: VideoInfo,
    reader: VideoReader,
    sound_reader: VideoReader,
    progress: Callable[[int, int], None],
) -> None:
    import av

    stream = container.add_stream("libx264", rate=Fraction(info.fps or 25).limit_denominator(1001))
    stream.width, stream.height = info.width // 2 * 2, info.height // 2 * 2
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": CRF, "preset": "veryfast"}
    stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
    draw = Drawing(timeline, stream.height, stream.width)
    piece = max(1, min(64, PIECE_BYTES // (3 * info.width * info.height)))
    numbers = np.arange(info.num_frames)
    with (
        ahead(lambda: reader.stream(numbers, None, piece), reader.abort) as pictures,
        ahead(sound_reader.sound, sound_reader.abort) as sounds,
    ):
        track = _Track(container, sounds)
        for frames in pictures:
            for number, picture in zip(frames.indices.tolist(), frames.frames, strict=True):
                seconds = float(info.timestamps[number])
                frame = av.VideoFrame.from_ndarray(draw(picture, seconds), format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
                track.write(seconds + 0.5)
                container.mux(stream.encode(frame))
            if len(frames.indices):
                progress(int(frames.indices[-1]) + 1, info.num_frames)
        container.mux(stream.encode(None))
        track.write(float("inf"))
        track.close()


class _Track:
    """Encodes the sound up to where the pictures are."""

    def __init__(self, container: Any, sounds: Iterator[Sound]) -> None:
        self._container, self._sounds = container, sounds
        self._next = next(sounds, None)
        self._stream: Any = None
        self._samples = 0  # number of the next sample
        if self._next is not None:
            self._stream = container.add_stream("aac", rate=self._next.rate)
            self._stream.layout = "mono" if len(self._next.samples) == 1 else "stereo"

    def write(self, until: float) -> None:
        """Encode what begins before a moment (seconds)."""
        while self._next is not None and self._next.start < until:
            self._encode(self._next)
            self._next = next(self._sounds, None)

    def close(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))

    def _encode(self, sound: Sound) -> None:
        import av

        place = round(sound.start * sound.rate)
        if (
            abs(place - self._samples) > sound.rate // 10
        ):  # a gap, or sound that begins elsewhere than the pictures
            self._samples = max(self._samples, place)
        before = min(max(0, -place), sound.samples.shape[1]) if self._samples == 0 else 0
        samples = np.ascontiguousarray(sound.samples[:, before:])
        if not samples.shape[1]:
            return
        frame = av.AudioFrame.from_ndarray(
            samples, format="fltp", layout="mono" if len(samples) == 1 else "stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, self._samples, Fraction(1, sound.rate)
        self._samples += samples.shape[1]
        self._container.mux(self._stream.encode(frame))


class Drawing:
    """Draws a strip over the foot of each picture: the label, and its score as a bar.

    Args:
        timeline: What to draw.
        height: Of the pictures that are returned, even.
        width: Of the pictures that are returned, even.
    """

    def __init__(self, timeline: Timeline, height: int, width: int) -> None:
        self._timeline, self._height, self._width = timeline, height, width
        self._starts = [segment.start for segment in timeline.segments]
        self._cells = [cell.start for cell in timeline.cells]
        self._strip = lru_cache(maxsize=64)(self._draw)

    def __call__(self, picture: Picture, seconds: float) -> Picture:
        """Draw on a picture (h, w, 3), as it is shown at a moment."""
        picture = np.array(picture[: self._height, : self._width])
        place = bisect.bisect_right(self._starts, seconds) - 1
        if place < 0 or seconds >= self._timeline.segments[place].end:
            return picture
        segment = self._timeline.segments[place]
        score = segment.score
        cell = bisect.bisect_right(self._cells, seconds) - 1
        if cell >= 0:
            score = float(self._timeline.cells[cell].scores[segment.top[0].class_index])
        color, opacity = self._strip(segment.label, round(100 * score))
        foot = picture[-len(color) :]
        foot[:] = ((foot * (255 - opacity) + color * opacity) // 255).astype(np.uint8)
        return picture

    def _draw(self, label: str, percent: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Color (s, w, 3) and opacity (s, w, 1) of the strip, 0 to 255."""
        high = min(self._height, max(18, self._height // 9))
        bar = max(2, high // 8)
        image = Image.new("RGBA", (self._width, high), (0, 0, 0, 150))
        pen = ImageDraw.Draw(image)
        size = max(8, int((high - bar) * 0.66))
        text = f"{printable(label)}  {percent} %"
        pen.text((size // 2, (high - bar) // 2), text, (255, 255, 255, 255), _font(text, size), anchor="lm")
        pen.rectangle((0, high - bar, self._width, high), (70, 70, 70, 200))
        pen.rectangle((0, high - bar, self._width * min(percent, 100) // 100, high), (90, 200, 120, 255))
        pixels = np.asarray(image).astype(np.uint16)
        return pixels[..., :3], pixels[..., 3:]


def _font(text: str, size: int) -> Any:
    if not text.isascii():
        for name in FONTS:
            with contextlib.suppress(OSError, ImportError):
                return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
