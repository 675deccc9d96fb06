"""PyAV: reads every file that can be indexed. Damaged packets are skipped; a frame that is lost is its neighbor."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidcls.errors import VideoError, counted
from vidcls.video.container import check_size, open_container
from vidcls.video.decoders import Picture, Scaling
from vidcls.video.index import Index
from vidcls.video.orientation import rotated
from vidcls.video.packets import MISSING, decode, payloads

SEEK_COST = 8  # frames that could be decoded in the time of one seek, measured on H.264 at 340×256 and 1080p
_LARGE_AREA = 4096 * 2304  # pixels
# Codecs whose decoders leave out a frame that no other refers to without any other frame changing.
_SKIPPING = ("h264", "hevc")
_WORTH_THREADS = 1280 * 720  # pixels; to start threads that convert smaller frames costs more than they gain
_SCALES_IN_THREADS = int(av.__version__.split(".")[0]) >= 17  # before, PyAV converts in one thread
_MARGIN = 500  # packets looked through, beyond those expected, for the one that a seek is to find


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
        wanted: Frame numbers, sorted, without duplicates.
        keyframes: Numbers of the frames that decoding may start from, sorted.
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
    """Reads frames with PyAV, from the start of the file or from a key frame that is certain to stand alone."""

    title = "PyAV"

    def __init__(self, index: Index, threads: int | None = None) -> None:
        self.index = index
        self.warnings: list[str] = []
        self._threads = threads
        self._counting = index.place is None
        self._alone = len(index.starts) == len(index.sizes)  # no frame refers to another
        self._skipping = not (index.corrupt or self._counting) and (self._alone or index.codec in _SKIPPING)
        self._damaged = 0
        self._replaced = 0
        self._wanted: Sequence[int] = ()
        self._scaling: Scaling | None = None
        self._converter = _Converter(threads)

    @staticmethod
    def available() -> bool:
        """PyAV is a dependency of vidcls: it is always there."""
        return True

    @staticmethod
    def misfit(index: Index) -> str:
        """PyAV reads all that it has indexed."""
        return ""

    def read(self, wanted: Sequence[int], scaling: Scaling | None = None) -> Iterator[tuple[int, Picture]]:
        """See `Decoder.read`.

        Raises:
            VideoError: More than half of them cannot be decoded.
        """
        self._wanted, self._scaling = wanted, scaling
        try:
            yield from self._read(wanted)
        except _SkippedError:
            # What conceals damage looks at the frames around it: deliver everything again, leaving out none.
            self._skipping = False
            self._damaged = self._replaced = 0
            yield from self.read(wanted, scaling)
            return
        except _UnorderedError:
            # The timestamps do not tell the frames apart after all: deliver everything again, by counting.
            self._counting, self._skipping = True, False
            self._damaged = self._replaced = 0
            yield from self._run(Run(0, tuple(wanted)))
        if self._damaged:
            were = "was" if self._damaged == 1 else "were"
            self._warn(f"{counted(self._damaged, 'damaged packet')} {were} skipped")
        if 2 * self._replaced > len(wanted):
            problem = f"only {len(wanted) - self._replaced} of the {len(wanted)} frames needed can be decoded"
            raise VideoError(self.index.path, problem, "the file is damaged: copy it again")
        if self._replaced:
            lost = f"{self._replaced} of {len(wanted)} frames could not be decoded"
            self._warn(f"{lost}: the nearest ones were taken")

    def _warn(self, note: str) -> None:
        if note not in self.warnings:
            self.warnings.append(note)

    def _read(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        done = 0
        for run in plan_runs(wanted, self.index.keyframes.tolist()):
            before = self._damaged, self._replaced
            try:
                yield from self._run(run)
            except _AstrayError:
                # One seek that does not land is reason enough to distrust all of this file's.
                self._damaged, self._replaced = before
                yield from self._run(Run(0, tuple(wanted[done:])))
                return
            done += len(run.wanted)

    def _run(self, run: Run) -> Iterator[tuple[int, Picture]]:
        """Decodes one run; from frame 0 whatever comes is taken, from elsewhere all must be as expected."""
        waiting = list(reversed(run.wanted))
        before: tuple[int, Any] | None = None
        for position, frame in self._frames(run.start):
            if before is None and run.start and not (position == run.start and frame.key_frame):
                raise _AstrayError
            if before is not None and position < before[0]:
                raise _UnorderedError
            while waiting and position >= waiting[-1]:
                if run.start and position != waiting[-1] and not self._damaged:
                    raise _AstrayError
                yield self._deliver(waiting.pop(), before, (position, frame))
            before = position, frame
            if not waiting:
                return
        if waiting and run.start:
            raise _AstrayError  # it ended before a frame that was seen when all was read
        if waiting and self._skipping:
            raise _SkippedError
        if before is None:
            raise VideoError(self.index.path, "none of its frames can be decoded", "the file is damaged")
        while waiting:
            yield self._deliver(waiting.pop(), before, before)

    def _deliver(
        self, wanted: int, before: tuple[int, Any] | None, after: tuple[int, Any]
    ) -> tuple[int, Picture]:
        times = self.index.timestamps
        position, frame = after
        if position != wanted:
            if self._skipping:
                raise _SkippedError
            self._replaced += 1
            if before and times[wanted] - times[before[0]] <= abs(times[position] - times[wanted]):
                frame = before[1]
        return wanted, self._picture(frame)

    def _frames(self, start: int) -> Iterator[tuple[int, Any]]:
        """(number, frame) from a key frame on, in order of presentation."""
        index = self.index
        last = index.num_frames - 1
        with open_container(index.path) as container:
            stream = container.streams[index.stream]
            _set_threads(stream.codec_context, index, self._threads)
            packets = (
                self._from(container, stream, start) if start else enumerate(payloads(container, stream))
            )
            if self._skipping:
                packets = self._skipped(stream.codec_context, packets)
            for count, frame in enumerate(decode(stream, packets, self._damage)):
                if self._skipping and frame.is_corrupt:
                    raise _SkippedError
                if self._counting:
                    yield min(count, last), frame
                elif (
                    place := self._place(frame.pts)
                ) >= start:  # before it are an open group's leading pictures
                    yield place, frame

    def _skipped(self, context: Any, packets: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """The packets; the decoder is told to skip those of frames that nobody wants and no other frame refers to."""
        if self.index.codec in _SKIPPING:
            context.options = {**context.options, "err_detect": "explode"}  # damage must be heard of
        place = self.index.place
        assert place is not None
        wanted = frozenset(self._wanted)
        for number, packet in packets:
            needed = number >= len(place) or int(place[number]) in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            if needed or not self._alone:
                yield number, packet

    def _damage(self) -> None:
        if self._skipping:
            raise _SkippedError
        self._damaged += 1

    def _place(self, packet: int | None) -> int:
        """Number of the frame that a packet holds; -1 for none that is shown."""
        place = self.index.place
        if place is None or packet is None:
            raise _UnorderedError
        return int(place[packet]) if 0 <= packet < len(place) else -1

    def _from(self, container: Any, stream: Any, start: int) -> Iterator[tuple[int, Any]]:
        """Numbers and packets from that of key frame ``start`` on, each found to be the one that was indexed."""
        index = self.index
        first = index.key_packets[int(np.searchsorted(index.keyframes, start))]
        if index.seek_times[first] == MISSING:
            raise _AstrayError
        try:
            container.seek(int(index.seek_times[first]), stream=stream)
            packets = payloads(container, stream)
            for _, packet in zip(range(first + _MARGIN), packets, strict=False):
                if self._is(packet, first):
                    break
            else:
                raise _AstrayError
        except (av.FFmpegError, OSError):
            raise _AstrayError from None
        yield first, packet
        for number, packet in enumerate(packets, first + 1):
            if number >= len(index.sizes) or packet.size != index.sizes[number]:
                raise _AstrayError
            yield number, packet

    def _is(self, packet: Any, number: int) -> bool:
        checksum, position = self.index.starts[number]
        here = -1 if packet.pos is None else packet.pos
        if position >= 0 and here >= 0 and here != position:
            return False
        return bool(packet.size == self.index.sizes[number]) and zlib.crc32(packet) == checksum

    def _picture(self, frame: Any) -> Picture:
        index = self.index
        check_size(index.path, frame.width, frame.height)
        if (frame.height, frame.width) != (index.height, index.width):
            self._warn("the size of its frames changes: all were scaled to that of the first")
        if index.orientation.angle:
            frame = rotated(frame, index.orientation.angle)
        colors = _colors(frame)
        height, width, kernel = self._scaling or (*index.shown_size, "BICUBIC")
        size = index.orientation.size(height, width)
        if self._scaling is None and ((frame.height, frame.width) != size or not _plain(frame)):
            frame = _without_tags(frame)
        try:
            rgb = self._converter(frame, size, kernel, colors)
        except OSError:
            # FFmpeg has no matrix for this tag (YCgCo, ICtCp): take the usual one rather than nothing.
            rgb = self._converter(frame, size, kernel, dict.fromkeys(_COLORSPACES, _USUAL_MATRIX))
            self._warn("its color matrix is not supported: colors may be off")
        return index.orientation(rgb)


# FFmpeg's tags of a stream's color matrix → swscale's: BT.709, FCC, SMPTE 240M, BT.2020 (both kinds).
_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
_USUAL_MATRIX = 5  # BT.601, taken where a stream says nothing
_COLORSPACES = ("src_colorspace", "dst_colorspace")
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


_PLAIN_FORMATS = frozenset("yuv420p yuvj420p yuv422p yuvj422p".split())


def _plain(frame: Any) -> bool:
    """Whether the conversion to RGB heeds no tag but those of `_colors`."""
    if frame.format.is_rgb or frame.format.chroma_width(2) == frame.format.chroma_height(2) == 2:
        return True
    return frame.format.name in _PLAIN_FORMATS and not frame.interlaced_frame


def _without_tags(frame: Any) -> Any:
    """The frame's planes without what is said of fields and of the place of chroma.

    The scaler of FFmpeg 8 heeds these, the ffmpeg command up to 7 and decord do not: at sharp edges, 3 to 6 gray
    levels on average.
    """
    plain = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, plain.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        copies = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        width = min(source.line_size, target.line_size)
        copies[:, :width] = rows[: len(copies), :width]
    return plain


class _Converter:
    """Frames to RGB of any size; FFmpeg's tables are kept as long as frames are alike."""

    def __init__(self, threads: int | None) -> None:
        self._several = threads != 1
        self._alike: tuple[Any, ...] | None = None
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any, size: tuple[int, int], kernel: str, colors: dict[str, int]) -> Picture:
        """Converts one frame to (h, w, 3) uint8 of a size (h, w)."""
        alike = (frame.width, frame.height, frame.format.name, size, kernel, *colors.items())
        if alike != self._alike:
            self._alike, self._reformatter = alike, VideoReformatter()
        options: dict[str, Any] = {"width": size[1], "height": size[0], "interpolation": kernel, **colors}
        if _SCALES_IN_THREADS:
            options["threads"] = 0 if self._several and frame.width * frame.height >= _WORTH_THREADS else 1
        rgb = self._reformatter.reformat(frame, format="rgb24", **options)
        return np.asarray(rgb.to_ndarray(), np.uint8)


class _SkippedError(Exception):
    """Frames may be missing or wrong because others were skipped."""


class _AstrayError(Exception):
    """A seek led elsewhere than to the frame expected."""


class _UnorderedError(Exception):
    """Frames came in an order that contradicts their timestamps."""


def _set_threads(context: Any, index: Index, threads: int | None) -> None:
    # Each thread holds whole frames: few for large ones, so that memory stays bounded.
    count = threads or min(4, os.cpu_count() or 1)
    context.thread_count = count if index.width * index.height <= _LARGE_AREA else min(count, 2)
    # Where frames are decoded side by side, those beside a damaged one are lost with it.
    context.thread_type = "SLICE" if index.corrupt else "AUTO"
