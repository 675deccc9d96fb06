"""The two decoders: frames of an indexed file, by decord or PyAV.

Runs in the decode worker only (`vidcls.video.worker`). A decoder is a class with `available` and `read`, and a
line in `DECODERS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from vidcls.errors import DependencyError, VideoError
from vidcls.video.index import LARGE_AREA, Index, check_size, open_container, reason

SEEK_COST = 8  # frames that could be decoded in the time of one seek, measured on H.264 at 340×256 and 1080p

Picture = npt.NDArray[np.uint8]


class DecodeError(Exception):
    """One decoder could not read the file; another may."""


class Run(NamedTuple):
    """Frames decoded in one go: seek to ``start``, then decode up to the last of ``wanted``."""

    start: int
    wanted: tuple[int, ...]


def plan_runs(wanted: Sequence[int], keyframes: Sequence[int], seek_cost: int = SEEK_COST) -> list[Run]:
    """Chooses, for frames asked for, between decoding on and seeking ahead, by what is cheaper.

    Decoding on costs the frames in between; a seek costs ``seek_cost`` frames and starts at the last key frame
    before the frame wanted. Going forward only, choosing the cheaper for each frame in turn is also the
    cheapest overall.

    Args:
        wanted: Frame indices, sorted, without duplicates.
        keyframes: Indices of the frames that decoding may start from, sorted.
        seek_cost: Price of a seek in decoded frames.
    """
    keys = np.asarray(keyframes, np.int64)
    runs: list[tuple[int, list[int]]] = []
    position = 0
    for frame in wanted:
        at = int(np.searchsorted(keys, frame, side="right")) - 1
        key = int(keys[at]) if at >= 0 else 0
        if key - position > seek_cost:
            runs.append((key, [frame]))
        elif runs:
            runs[-1][1].append(frame)
        else:
            runs.append((0, [frame]))
        position = frame + 1
    return [Run(start, tuple(frames)) for start, frames in runs]


class PyAVDecoder:
    """Reads frames with PyAV. Damaged packets are skipped; a frame that cannot be had is the nearest one."""

    name = "pyav"

    def __init__(self, index: Index) -> None:
        self.index = index
        self.warnings: list[str] = []
        self._damaged = 0
        self._replaced = 0

    @staticmethod
    def available() -> bool:
        """PyAV is a dependency of vidcls: it is always there."""
        return True

    def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """Yields (index, picture (h, w, 3) uint8 RGB, turned as it is shown) for sorted frame indices."""
        try:
            yield from self._read(wanted)
        except _UnorderedError:
            # The timestamps do not tell the frames apart after all: deliver everything again, by counting.
            self.index = replace(self.index, by_count=True, keyframes=self.index.keyframes[:1])
            self._replaced = 0
            yield from self._read(wanted)
        if self._damaged:
            self.warnings.append(f"{self._damaged} damaged packets were skipped")
        if 2 * self._replaced > len(wanted):
            problem = f"only {len(wanted) - self._replaced} of the {len(wanted)} frames needed can be decoded"
            raise VideoError(self.index.path, problem, "the file is damaged: copy it again")
        if self._replaced:
            self.warnings.append(
                f"{self._replaced} of {len(wanted)} frames could not be decoded: the nearest ones stand in"
            )

    def _read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        for run in plan_runs(wanted, self.index.keyframes.tolist()):
            try:
                yield from self._run(run)
            except _OvershotError:
                yield from self._run(Run(0, run.wanted))

    def _run(self, run: Run) -> Iterator[tuple[int, Picture]]:
        """Decodes one run; from frame 0 whatever comes is taken, from elsewhere an overshoot is noticed."""
        waiting = list(reversed(run.wanted))
        before: tuple[int, Any] | None = None
        for position, frame in self._frames(run.start):
            if before is None and run.start and position > waiting[-1]:
                raise _OvershotError
            if before is not None and position < before[0]:
                raise _UnorderedError
            while waiting and position >= waiting[-1]:
                yield self._deliver(waiting.pop(), before, (position, frame))
            before = position, frame
            if not waiting:
                return
        if before is None:
            if run.start:
                raise _OvershotError
            raise VideoError(self.index.path, "none of its frames can be decoded", "the file is damaged")
        while waiting:
            yield self._deliver(waiting.pop(), before, before)

    def _deliver(
        self, wanted: int, before: tuple[int, Any] | None, after: tuple[int, Any]
    ) -> tuple[int, Picture]:
        times = self.index.timestamps
        position, frame = after
        if position != wanted:
            self._replaced += 1
            if before and times[wanted] - times[before[0]] <= abs(times[position] - times[wanted]):
                frame = before[1]
        return wanted, self._picture(frame)

    def _frames(self, start: int) -> Iterator[tuple[int, Any]]:
        """(index, frame) from a key frame on, in order of presentation."""
        index = self.index
        last = len(index.pts) - 1
        with open_container(index.path) as container:
            stream = container.streams[index.stream]
            _set_threads(stream, index)
            if start:
                at = int(np.searchsorted(index.keyframes, start))
                try:
                    container.seek(index.key_times[at], stream=stream)
                except (av.FFmpegError, OSError):
                    raise _OvershotError from None
            for count, frame in enumerate(self._decoded(container, stream)):
                if index.by_count or frame.pts is None:
                    yield min(count, last), frame
                else:
                    place = int(np.searchsorted(index.pts, frame.pts, side="right")) - 1
                    if place >= 0:
                        yield place, frame

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError, IndexError):
                # Unreadable from here on (IndexError: PyAV's own, at the end, where the file holds a stream that
                # its header does not name); what the decoder still holds can be had.
                yield from self._flushed(stream)
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except (av.FFmpegError, OSError):
                self._damaged += 1

    def _flushed(self, stream: Any) -> Iterator[Any]:
        try:
            yield from stream.codec_context.decode(None)
        except (av.FFmpegError, OSError):
            self._damaged += 1

    def _picture(self, frame: Any) -> Picture:
        index = self.index
        check_size(index.path, frame.width, frame.height)
        size = {"width": index.width, "height": index.height, "format": "rgb24"}
        try:
            # A stream may change its size on the way; all frames get the first one's.
            rgb = frame.reformat(**size, **_colors(frame))
        except OSError:
            # FFmpeg has no matrix for this tag (YCgCo, ICtCp): take the usual one rather than nothing.
            rgb = frame.reformat(**size, src_colorspace=_USUAL_MATRIX, dst_colorspace=_USUAL_MATRIX)
            note = "its color matrix is not supported: colors may be off"
            if note not in self.warnings:
                self.warnings.append(note)
        picture: Picture = rgb.to_ndarray()
        return np.rot90(picture, -index.rotation // 90 % 4) if index.rotation else picture


# FFmpeg's tags of a stream's color matrix → swscale's: BT.709, FCC, SMPTE 240M, BT.2020 (both kinds).
_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
_USUAL_MATRIX = 5  # BT.601, taken where a stream says nothing
_FULL_RANGE = 2


def _colors(frame: Any) -> dict[str, int]:
    """How to read a frame's colors, as tagged; PyAV heeds the tags by itself from version 17 on only."""
    if frame.format.is_rgb:
        return {}
    colors = {}
    if int(frame.colorspace) in _MATRICES:
        colors = {"src_colorspace": _MATRICES[int(frame.colorspace)], "dst_colorspace": _USUAL_MATRIX}
    if int(frame.color_range) == _FULL_RANGE:
        # The range of RGB does not vary; older PyAV only acts if the two differ.
        colors |= {"src_color_range": _FULL_RANGE, "dst_color_range": _FULL_RANGE - 1}
    return colors


class _OvershotError(Exception):
    """A seek landed behind the frame that is wanted."""


class _UnorderedError(Exception):
    """Frames came in an order that contradicts their timestamps."""


def _set_threads(stream: Any, index: Index) -> None:
    # Each thread holds whole frames: few for large ones, so that memory stays bounded.
    count = min(4, os.cpu_count() or 1)
    stream.codec_context.thread_count = count if index.width * index.height <= LARGE_AREA else min(count, 2)
    stream.codec_context.thread_type = "AUTO"


class DecordDecoder:
    """Reads frames with decord, after it has shown that it sees the same frames in the file as the index."""

    name = "decord"

    def __init__(self, index: Index) -> None:
        self.index = index
        self.warnings: list[str] = []

    @staticmethod
    def available() -> bool:
        """Whether decord is installed; it has no wheel for ARM and recent macOS."""
        return find_spec("decord") is not None

    def read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """Yields (index, picture (h, w, 3) uint8 RGB, turned as it is shown) for sorted frame indices.

        Raises:
            DecodeError: decord cannot read the file, or reads it differently.
            DependencyError: decord is not installed.
        """
        if not self.available():
            raise DependencyError("decord", "is not installed", "use --decoder auto or --decoder pyav")
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        try:
            # Opened for these frames only: left open, it goes on reading ahead into memory.
            reader = decord.VideoReader(self.index.path, num_threads=min(4, os.cpu_count() or 1))
            self._check(reader)
            seekable = self.index.decord_seeks()
            position = 0
            for frame in wanted:
                if seekable:
                    reader.seek_accurate(frame)
                else:
                    # Not skip_frames: like a seek, it miscounts where frames are reordered across key frames.
                    for _ in range(frame - position):
                        reader.next()
                picture: Picture = reader.next().asnumpy()
                position = frame + 1
                if picture.shape != (*self.index.shown_size, 3):
                    raise DecodeError(f"frame {frame} has the shape {picture.shape}")
                yield frame, picture
        except (DecodeError, GeneratorExit):
            raise
        except Exception as error:  # decord raises C++ errors, assertions and StopIteration of many kinds
            raise DecodeError(_in_short(error)) from error

    def _check(self, reader: Any) -> None:
        """Whether decord chose the same stream and counts the same frames (edit lists, two video streams)."""
        if self.index.container in ("mpegts", "mpeg"):
            raise DecodeError("it loses the first frames of transport and program streams")
        count = len(self.index.pts)
        if len(reader) != count:
            raise DecodeError(f"it counts {len(reader)} frames instead of {count}")
        if self.index.by_count:
            return
        starts = reader.get_frame_timestamp(np.arange(count))[:, 0].astype(np.float64)
        if not np.allclose(starts - starts[0], self.index.timestamps, rtol=1e-5, atol=2e-3):
            raise DecodeError("it sees other frame times")


def _in_short(error: Exception) -> str:
    """What decord's error means, without the source lines and C++ conditions that it quotes."""
    text = str(error)
    if "find video stream" in text:
        return "it has no decoder for this codec"
    if "sending packet" in text or "av_read_frame" in text or "send_packet" in text:
        return "it stops at damaged packets"
    text = re.sub(r"\[[\d:]+\]\s*|\S+\.(cc|h):\d+:\s*|Check failed:\s*", "", reason(error))
    return text[:100].strip() or type(error).__name__


Decoder = PyAVDecoder | DecordDecoder
DECODERS: dict[str, Callable[[Index], Decoder]] = {"decord": DecordDecoder, "pyav": PyAVDecoder}


def choose(index: Index, decoder: str) -> list[str]:
    """Names of the decoders to try in turn for a file: ``auto``, ``decord`` or ``pyav`` as asked for."""
    if decoder != "auto":
        return [decoder]
    if DecordDecoder.available() and not index.decord_misfit():
        return ["decord", "pyav"]
    return ["pyav"]
