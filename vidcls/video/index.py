"""What one video file holds: which stream, when each frame is shown, where a decoder may start.

PyAV indexes every file, whichever library decodes it then. Packets are known by their number in the file, frames by
their number in order of presentation. Where timestamps do not tell that order, the file is decoded once to see it.
Runs in the decode worker only (`vidcls.video.worker`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vidcls.errors import VideoError
from vidcls.video.container import (
    check_size,
    has_edit_list,
    is_cut_short,
    open_container,
    picture_demuxer,
    read_head,
    safe_for_decord,
)
from vidcls.video.orientation import Orientation, orientation_of
from vidcls.video.packets import MAX_FRAMES, MISSING, Packets, decode, payloads, scan
from vidcls.video.timing import frame_times

DECODE_BUDGET = (
    2_000_000_000  # pixels decoded to find the order of frames: 960 frames of 1080p, 20,000 of 340×256
)
# Containers that tell when each frame is shown; the others have no such times, or not for all frames, or those of
# decoding in their place, which is the same only where frames are not reordered.
_TIMED = ("mov", "matroska", "mpegts", "flv", "nut", "ogg")
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of H.273

Numbers = npt.NDArray[np.int64]


@dataclass
class Index:
    """What a file holds.

    Attributes:
        place: For each packet the number of its frame in order of presentation, or -1 (packets,); None where frames
            can only be counted as they come.
        sizes: Bytes of each packet (packets,).
        starts: Packets that decoding may start from → (CRC-32, position in the file or -1).
        keyframes: Frames that decoding may start from, sorted; the first is 0, where the file starts.
        key_packets: Their packets' numbers.
        seek_times: For each packet the timestamp to seek to, or `MISSING` (packets,).
        timestamps: Seconds from the first frame (n,).
        guessed: The file has no times of presentation.
        sorted: The order of its frames is that of their timestamps.
        repaired: The times are others than the file's.
        open_gop: Some frames shown before a key frame are decoded after it.
        false_keys: Some frames that the file calls key frames do not stand alone.
        resized: Frames may change their size on the way.
        corrupt: Some packets are known to be damaged or cut off.
        finished: The header says how long the file is; those of live streams do not.
        plain: The file's first bytes leave no doubt which container it is.
        height, width: Pixels, as stored.
    """

    path: str
    stream: int
    place: Numbers | None
    sizes: Numbers
    starts: dict[int, tuple[int, int]]
    keyframes: Numbers
    key_packets: list[int]
    seek_times: Numbers
    timestamps: npt.NDArray[np.float64]
    guessed: bool
    sorted: bool
    repaired: bool
    open_gop: bool
    false_keys: bool
    resized: bool
    corrupt: bool
    finished: bool
    plain: bool
    height: int
    width: int
    orientation: Orientation
    codec: str
    pix_fmt: str
    container: str
    fps: float
    variable_frame_rate: bool
    duration: float
    warnings: list[str] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return len(self.timestamps)

    @property
    def reordered(self) -> bool:
        """Whether some frames come in the file after others that are shown later."""
        return self.place is None or bool((np.diff(self.place[self.place >= 0]) < 0).any())

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) in pixels after rotation."""
        return self.orientation.size(self.height, self.width)


def build_index(path: str) -> Index:
    """Reads a file's packets once and decodes its first frame, or all of them where that is needed.

    Raises:
        VideoError: The file is not a video, holds no video stream or no frame, or is too large.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        check_size(path, stream.codec_context.width, stream.codec_context.height)
        packets = scan(container, stream, path)
        check_size(path, packets.first.width, packets.first.height)
        order = _order(path, container, stream, packets)
        return _make_index(path, container, stream, packets, order)


def _video_stream(container: Any, path: str) -> Any:
    """FFmpeg's best video stream, which is the one that decord takes too; never a cover picture."""
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        if container.streams.video:
            raise VideoError(
                path, "holds audio and a cover picture, but no video stream", kind="no_video_stream"
            )
        hint = "is it an audio file?" if container.streams.audio else "is the file complete?"
        raise VideoError(path, "no video stream", hint, kind="no_video_stream")
    best = container.streams.best("video")
    chosen = best if best in pictures else pictures[0]
    if chosen.codec_context is None:
        raise VideoError(path, "its codec is unknown to this FFmpeg", "convert it, for example to H.264")
    return chosen


@dataclass
class _Order:
    """Packets in order of presentation, and how many frames there are.

    Attributes:
        packets: Numbers of the packets of the frames (n,), if ``known``; else of all packets.
        count: Number of frames.
        known: Whether each frame's packet is known; else frames can only be counted as they come.
        guessed: There are no times of presentation.
        sound: All packets are whole and have timestamps, no two the same.
        sorted: The order is that of the timestamps.
        lost: Frames at the start of which nothing can be decoded.
    """

    packets: Numbers
    count: int
    known: bool
    guessed: bool = False
    sound: bool = False
    sorted: bool = False
    lost: int = 0


def _order(path: str, container: Any, stream: Any, packets: Packets) -> _Order:
    """The order in which frames are shown: by their timestamps if these are sound, else by decoding."""
    name, codec = container.format.name, stream.codec_context.codec.canonical_name
    reordering = bool(stream.codec_context.has_b_frames)
    missing = packets.missing()
    if missing and not reordering and not (packets.dts == MISSING).any():
        packets.pts, missing = packets.dts, False
    timed = any(known in name for known in _TIMED)
    short = packets.may_hold_no_frame()
    shown = np.flatnonzero(packets.shown)
    pts, dts = packets.pts[shown], packets.dts[shown]
    onward = bool((np.diff(dts[dts != MISSING]) >= 0).all())
    sound = not (missing or packets.corrupt) and onward and len(np.unique(pts)) == len(pts)
    # MPEG-4's encoders often give B-frames in a wrong order, or pack them.
    sound_order = timed and codec != "mpeg4"
    # Muxers that count packets as they come give all frames the order of decoding.
    reordered = bool((np.diff(pts) < 0).any())
    if sound and (not reordering or (sound_order and reordered)):
        return _by_timestamps(shown, pts, packets.first)
    found = None
    cheap = len(shown) * packets.first.width * packets.first.height <= DECODE_BUDGET
    if cheap and (name != "avi" or short or packets.corrupt):
        found = _by_decoding(path, stream.index, shown)
    if sound and sound_order and found and found.known and (np.diff(found.packets) > 0).all():
        return _by_timestamps(shown, pts, packets.first)
    found = found or _by_parts(shown, pts, dts, timed and not missing)
    found.guessed, found.sound = not timed, sound
    return found


def _by_timestamps(shown: Numbers, pts: Numbers, first: Any) -> _Order:
    order = np.argsort(pts, kind="stable")
    if first.pts is not None:
        # What is shown before the first frame that decodes refers to frames that are not in the file.
        order = order[pts[order] >= min(first.pts, int(pts.max()))]
    return _Order(shown[order], len(order), True, sorted=True, lost=len(shown) - len(order))


def _by_parts(shown: Numbers, pts: Numbers, dts: Numbers, timed: bool) -> _Order:
    """Parts that were joined, each by its own timestamps; or, without them, only the number of frames."""
    if not timed or (dts == MISSING).any():
        return _Order(shown, len(shown), False)
    part = np.concatenate([[0], np.cumsum(np.diff(dts) < 0)])
    return _Order(shown[np.lexsort((pts, part))], len(shown), True)


def _by_decoding(path: str, stream_index: int, shown: Numbers) -> _Order | None:
    """The order in which frames leave the decoder; None where not one does."""
    with open_container(path) as container:
        stream = container.streams[stream_index]
        packets = enumerate(payloads(container, stream))
        numbers = [frame.pts for frame in decode(stream, packets, lambda: None)]
    if not numbers:
        return None
    known = None not in numbers and len(set(numbers)) == len(numbers)
    return _Order(np.array(numbers, np.int64) if known else shown, len(numbers), known)


def _make_index(path: str, container: Any, stream: Any, packets: Packets, order: _Order) -> Index:
    first, name = packets.first, container.format.name
    stamps = _stamps(packets, order)
    declared = [float(rate or 0) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)]
    base = stream.time_base or Fraction(1, 1000)
    decoded = packets.dts[packets.shown & (packets.dts != MISSING)]
    guessed = order.guessed and bool((stamps == MISSING).any())
    timing = frame_times(stamps, base, declared, name, guessed, joins=int((np.diff(decoded) < 0).sum()))
    place = None
    if order.known:
        place = np.full(len(packets.sizes), -1, np.int64)
        place[order.packets] = np.arange(order.count)
    keyframes, key_packets = _keyframes(place, packets)
    return Index(
        path=path,
        stream=stream.index,
        place=place,
        sizes=packets.sizes,
        starts=packets.starts,
        keyframes=keyframes,
        key_packets=key_packets,
        seek_times=np.where(packets.dts == MISSING, packets.pts, packets.dts),
        timestamps=timing.seconds,
        guessed=order.guessed,
        sorted=order.sorted,
        repaired=timing.repaired,
        open_gop=place is not None and _has_leading_pictures(place, packets.starts),
        false_keys=packets.false_keys,
        resized=packets.parameter_sets > 1,
        corrupt=packets.corrupt,
        finished=container.duration is not None and stream.frames <= MAX_FRAMES,
        plain=safe_for_decord(path, read_head(path)),
        height=first.height,
        width=first.width,
        orientation=orientation_of(first),
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=first.format.name,
        container=name,
        fps=timing.fps,
        variable_frame_rate=timing.variable,
        duration=timing.duration,
        warnings=packets.warnings + _warnings(path, container, stream, packets, order) + timing.warnings,
    )


def _stamps(packets: Packets, order: _Order) -> Numbers:
    """Timestamps of the frames in the order in which they are shown, or `MISSING` (n,)."""
    stamps = packets.pts[order.packets] if order.known else np.full(order.count, MISSING, np.int64)
    if order.guessed and ((stamps == MISSING).any() or not (np.diff(stamps) > 0).all()):
        dts = packets.dts[packets.shown]
        # Frame by frame, the times of decoding are those of presentation, a little earlier.
        complete = len(dts) == order.count and not (dts == MISSING).any()
        stamps = dts if complete and (np.diff(dts) > 0).all() else np.full(order.count, MISSING, np.int64)
    elif order.sound:
        stamps = np.sort(stamps)  # given to the wrong frames, but to all of them
    return stamps


def _keyframes(place: Numbers | None, packets: Packets) -> tuple[Numbers, list[int]]:
    """Frames that decoding may start from, sorted, and their packets; the first is the file's start, packet 0."""
    pairs = {0: 0}
    if place is not None:
        pairs |= {int(place[n]): n for n in packets.starts if place[n] > 0}
    frames = sorted(pairs)
    return np.array(frames, np.int64), [pairs[frame] for frame in frames]


def _has_leading_pictures(place: Numbers, starts: Iterable[int]) -> bool:
    """Whether frames that are shown before a key frame come after it in the file."""
    shown = np.where(place < 0, len(place), place)
    later = np.minimum.accumulate(shown[::-1])[::-1]  # the earliest frame among this packet and all after it
    return any(place[n] >= 0 and later[n] < place[n] for n in starts)


def _warnings(path: str, container: Any, stream: Any, packets: Packets, order: _Order) -> list[str]:
    notes = _early_end(path, container, stream, packets)
    if order.lost:
        notes.append(f"{order.lost} frames at the start cannot be decoded and were left out")
    if container.format.name.endswith("_pipe") and order.count == 1 and picture_demuxer(read_head(path)):
        notes.append("it is a picture, not a video: read as a clip of one frame")
    curve = _HDR.get(int(getattr(packets.first, "color_trc", 0) or stream.codec_context.color_trc or 0))
    if curve:
        notes.append(f"it is HDR ({curve}): tones are not mapped to standard range, so that colors look flat")
    return notes


def _early_end(path: str, container: Any, stream: Any, packets: Packets) -> list[str]:
    """A warning where the file's header promises more than the file holds."""
    count, promised = len(packets.sizes), stream.frames
    fewer = promised > 1.02 * count + 1
    if is_cut_short(path):
        return [
            f"the file ends early: {f'{count} of {promised} frames are there' if fewer else 'it was cut off'}"
        ]
    if fewer and container.format.name.startswith("mov") and not has_edit_list(path):
        return [f"the file ends early: {count} of {promised} frames are there"]
    return []
