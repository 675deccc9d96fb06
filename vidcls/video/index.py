"""What one video file holds: which stream, when each frame is shown, where a decoder may start.

PyAV indexes every file, whichever library decodes it then. Frames are known by their index in order of
presentation. Runs in the decode worker only (`vidcls.video.worker`).

Files come from strangers. Only containers that hold their own pictures are opened (no playlists: those name
other files or hosts), only through FFmpeg's ``file`` protocol, and sizes are bounded.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from vidcls.errors import VideoError

MAX_SIDE = 16384  # pixels
LONG = 10_000  # frames; of 90,000, decord read 64 spread ones in 6.7 s and PyAV in 2.7 s
LARGE_AREA = 4096 * 2304  # pixels; beyond, decord held 1.1 to 1.4 GB where PyAV held 0.5 (8K H.264)
MAX_AREA = 16384 * 8640  # pixels; 16K UHD
MAX_FRAMES = 1 << 22  # 38 hours at 30 frames a second

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,m4v,av1,obu,"
    "ivf,vc1,mxf,nut,rm,wtv,dv,yuv4mpegpipe,mjpeg,mp3,wav,flac,aac,amr,aiff,caf,y4m,swf,nsv,vvc,h263,h261"
)
"""Containers that hold their own pictures or sound; hls, dash, concat, image sequences and devices are not here."""

_CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
_DECORD_FORMATS = frozenset("yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p rgb24 bgr24".split())


@dataclass
class Index:
    """What a file holds, in order of presentation.

    Attributes:
        pts: Presentation timestamp of each frame (n,) in units of the stream's time base, sorted; in a file
            without usable ones, the frames' numbers.
        timestamps: Seconds from the first frame (n,).
        keyframes: Indices of the frames that a decoder may start from, sorted; the first is 0.
        key_times: For each of them the timestamp to seek to.
        by_count: Frames have to be counted from the start, since their timestamps do not tell them apart.
        open_gop: Some frames shown before a key frame are decoded after it.
        height, width: Pixels, as stored, before rotation.
        rotation: Degrees clockwise by which the pictures are turned for display, a multiple of 90.
    """

    path: str
    stream: int
    pts: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.float64]
    keyframes: npt.NDArray[np.int64]
    key_times: list[int]
    by_count: bool
    open_gop: bool
    height: int
    width: int
    rotation: int
    codec: str
    pix_fmt: str
    container: str
    fps: float
    variable_frame_rate: bool
    duration: float
    warnings: list[str] = field(default_factory=list)

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) in pixels after rotation."""
        return (self.width, self.height) if self.rotation % 180 else (self.height, self.width)

    def decord_seeks(self) -> bool:
        """Whether decord 0.6 finds the right frame after a seek.

        Measured on clips whose frames carry numbers: it does in MP4, Matroska and FLV, and in AVI without
        reordered frames. It does not in MPEG transport streams, nor where pictures shown before a key frame come
        after it (open groups, as x265 writes them): it loses those and returns later frames.
        """
        known = any(name in self.container for name in ("mp4", "matroska", "flv", "avi"))
        return known and not self.open_gop and not self.by_count

    def decord_misfit(self) -> str:
        """Why decord 0.6 (FFmpeg 4.1) would not deliver this file's pictures exactly, or only slowly.

        Empty where it does deliver them. Where its plain 8-bit converter does not apply, its scaler interpolates
        the rows of 4:2:0 chroma otherwise than current FFmpeg: 0.6 to 3.4 gray levels on average for more than 8
        bits, 0.5 for odd heights, none for 4:2:2 and 4:4:4.
        """
        if self.codec == "av1":
            return "decord has no AV1 decoder"
        if self.pix_fmt not in _DECORD_FORMATS:
            return f"decord does not convert {self.pix_fmt} exactly"
        if "420" in self.pix_fmt and self.height % 2:
            return "decord does not convert odd heights exactly"
        if self.height * self.width > LARGE_AREA:
            return "decord holds several frames at a time, too much at this size"
        if len(self.pts) > LONG:
            return "decord would go through the whole of a long file once more"
        if not self.decord_seeks():
            return "decord does not seek reliably in it"
        return ""


def build_index(path: str) -> Index:
    """Reads a file's packets once and decodes its first frame.

    Raises:
        VideoError: The file is no video, holds no video stream or no frame, or is too large.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        check_size(path, stream.codec_context.width, stream.codec_context.height)
        scan = _scan(container, stream, path)
        return _make_index(path, container, stream, *scan)


def open_container(path: str) -> Any:
    """Opens a file for demuxing; closed by ``with``.

    Raises:
        VideoError: It is no video, or cannot be read.
    """
    # An absolute path cannot be taken for a protocol ("concat:…") or an option.
    try:
        return av.open(os.path.abspath(path), container_options=dict(_CONTAINER_OPTIONS))
    except FileNotFoundError:
        raise VideoError(path, "no such file", "check the path", kind="not_found") from None
    except PermissionError:
        raise VideoError(path, "permission denied", "make it readable for you", kind="permission") from None
    except MemoryError:
        raise VideoError(path, "its header asks for too much memory", kind="memory") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        if _looks_like_video(path):
            raise VideoError(
                path,
                f"is damaged or cut off: its header or index cannot be read ({reason(error)})",
                "copy or download it again",
            ) from None
        raise VideoError(
            path, "is not a video that vidcls knows", "convert it, for example to MP4", kind="not_a_video"
        ) from None


def _looks_like_video(path: str) -> bool:
    with Path(path).open("rb") as file:
        head = file.read(16)
    box = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    return box or head[:4] in (
        b"\x1aE\xdf\xa3",
        b"RIFF",
        b"OggS",
        b"FLV\x01",
        b"\x00\x00\x01\xba",
        b"0&\xb2u",
    )


def reason(error: BaseException) -> str:
    """What an error of FFmpeg or the system says, on one line."""
    return (
        (getattr(error, "strerror", None) or str(error) or type(error).__name__)
        .strip()
        .splitlines()[0][:200]
        .rstrip(".")
    )


def _video_stream(container: Any, path: str) -> Any:
    """FFmpeg's best video stream, which is the one that decord takes too; never a cover picture."""
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        if container.streams.video:
            raise VideoError(path, "holds sound and a cover picture, no video stream", kind="no_video_stream")
        hint = "is it an audio file?" if container.streams.audio else "is the file complete?"
        raise VideoError(path, "no video stream", hint, kind="no_video_stream")
    best = container.streams.best("video")
    chosen = best if best in pictures else pictures[0]
    if chosen.codec_context is None:
        raise VideoError(path, "its codec is unknown to this FFmpeg", "convert it, for example to H.264")
    return chosen


def check_size(path: str, width: int, height: int) -> None:
    """Raises a VideoError where frames of so many pixels are too large."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_AREA:
        raise VideoError(
            path, f"its frames are too large ({width}×{height})", "scale it down first", kind="too_large"
        )


class _Packets(NamedTuple):
    pts: npt.NDArray[np.int64]
    dts: npt.NDArray[np.int64]
    key: npt.NDArray[np.bool_]


_MISSING = -(1 << 63)


def _scan(container: Any, stream: Any, path: str) -> tuple[_Packets, Any, list[str]]:
    """Timestamps of all packets in the order of decoding, the first decoded frame, and warnings."""
    pts, dts, key = array("q"), array("q"), array("b")
    first = None
    warnings: list[str] = []
    try:
        for packet in container.demux(stream):
            if first is None:
                first = _first_frame(packet)
            if packet.size == 0 or packet.is_discard:  # the flush at the end; what an edit list cuts away
                continue
            pts.append(_MISSING if packet.pts is None else packet.pts)
            dts.append(_MISSING if packet.dts is None else packet.dts)
            key.append(packet.is_keyframe)
            if len(pts) > MAX_FRAMES:
                raise VideoError(
                    path, f"has more than {MAX_FRAMES} frames", "cut it up first", kind="too_large"
                )
    except IndexError:
        pass  # PyAV's own, at the very end, where a stream turned up that the header does not name
    except (av.FFmpegError, OSError) as error:
        warnings.append(f"the file is damaged: reading stopped after {len(pts)} frames ({reason(error)})")
    if not pts:
        raise VideoError(path, "its video stream has no frames", "is the file complete?", kind="no_frames")
    if first is None:
        raise VideoError(path, "none of its frames can be decoded", "the file is damaged: copy it again")
    packets = _Packets(np.array(pts, np.int64), np.array(dts, np.int64), np.array(key, bool))
    return packets, first, warnings


def _first_frame(packet: Any) -> Any:
    try:
        frames = packet.decode()
    except (av.FFmpegError, OSError):
        return None
    return frames[0] if frames else None


def _make_index(
    path: str, container: Any, stream: Any, packets: _Packets, first: Any, warnings: list[str]
) -> Index:
    check_size(path, first.width, first.height)
    base = stream.time_base or Fraction(1, 1000)
    pts = packets.pts
    reordering = bool(stream.codec_context.has_b_frames)
    if (pts == _MISSING).any() and not reordering and not (packets.dts == _MISSING).any():
        pts = packets.dts
    # AVI stores no presentation times; where frames are reordered, what FFmpeg makes of them is a guess.
    guessed = container.format.name == "avi" and reordering
    by_count = guessed or bool((pts == _MISSING).any()) or len(np.unique(pts)) < len(pts)
    keys = np.flatnonzero(packets.key)
    if by_count:
        pts, order = _countable_times(pts, packets.dts), np.arange(len(pts))
        open_gop = False
    else:
        order = np.argsort(pts, kind="stable")
        open_gop = _has_leading_pictures(pts, keys)
        if first.pts is not None:
            # What is shown before the first frame that decodes refers to frames that are not in the file.
            order = order[pts[order] >= min(first.pts, int(pts.max()))]
    place = np.full(len(pts), -1, np.int64)
    place[order] = np.arange(len(order))
    keys = keys[np.argsort(place[keys])]
    keys = keys[place[keys] >= 0]
    seek_to = np.where(packets.dts == _MISSING, pts, packets.dts)
    keyframes, key_times = place[keys], [int(t) for t in seek_to[keys]]
    if by_count or not len(keyframes) or keyframes[0] != 0:
        keep = slice(0, 0) if by_count else slice(None)
        keyframes = np.concatenate([np.zeros(1, np.int64), keyframes[keep]])
        key_times = [int(seek_to[order[0]]), *key_times[keep]]
    shown = np.sort(pts)[len(pts) - len(order) :]
    warnings += _early_end(container, stream, len(pts))
    timing = _timing(shown, base, stream, guessed=by_count and bool((packets.pts == _MISSING).any()))
    warnings += timing.warnings
    rotation = round(-first.rotation / 90) * 90 % 360
    if first.rotation % 90:
        warnings.append(f"turned by {-first.rotation} degrees: rounded to {rotation}")
    if len(order) < len(pts):
        warnings.append(f"{len(pts) - len(order)} frames at the start cannot be decoded and were left out")
    return Index(
        path=path,
        stream=stream.index,
        pts=shown,
        timestamps=timing.seconds,
        keyframes=keyframes,
        key_times=key_times,
        by_count=by_count,
        open_gop=open_gop,
        height=first.height,
        width=first.width,
        rotation=rotation,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=first.format.name,
        container=container.format.name,
        fps=timing.fps,
        variable_frame_rate=timing.variable,
        duration=timing.duration,
        warnings=warnings,
    )


def _countable_times(pts: npt.NDArray[np.int64], dts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Times for frames that are told apart by counting: whichever stamps are all there and all different."""
    for stamps in (pts, dts):
        if not (stamps == _MISSING).any() and len(np.unique(stamps)) == len(stamps):
            return np.sort(stamps)
    return np.arange(len(pts), dtype=np.int64)


def _has_leading_pictures(pts: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> bool:
    later = np.minimum.accumulate(pts[::-1])[::-1]  # earliest time among this packet and all after it
    return bool((later[keys] < pts[keys]).any())


def _early_end(container: Any, stream: Any, count: int) -> list[str]:
    """A warning where the file's header promises more than the file holds."""
    if container.format.name.startswith("mov") and stream.frames > 1.02 * count + 1:
        return [f"the file ends early: {count} of {stream.frames} frames are there"]
    return []


class _Timing(NamedTuple):
    seconds: npt.NDArray[np.float64]
    fps: float
    variable: bool
    duration: float
    warnings: list[str]


def _timing(pts: npt.NDArray[np.int64], base: Fraction, stream: Any, guessed: bool) -> _Timing:
    """Seconds of each frame from the first, and the frame rate that they or the file's header tell."""
    count = len(pts)
    warnings: list[str] = []
    declared = float(stream.average_rate or stream.guessed_rate or 0)
    if guessed:
        if declared <= 0:
            declared = 25.0
            warnings.append("no frame times and no frame rate: 25 frames a second assumed")
        return _Timing(np.arange(count) / declared, declared, False, count / declared, warnings)
    tick = float(base)
    seconds = (pts - pts[0]).astype(np.float64) * tick
    if count == 1:
        fps = declared if declared > 0 else 25.0
        return _Timing(seconds, fps, False, 1 / fps, warnings)
    steps = np.diff(seconds)
    middle = float(np.median(steps))
    variable = bool((np.abs(steps - middle) > max(0.1 * middle, 1.5 * tick)).any())
    fps = float((count - 1) / seconds[-1])
    # Containers that round times (Matroska: to milliseconds) still declare the exact rate.
    if not variable and declared > 0 and abs(declared - fps) < 0.01 * fps:
        fps = declared
    return _Timing(seconds, fps, variable, float(seconds[-1]) + middle, warnings)
