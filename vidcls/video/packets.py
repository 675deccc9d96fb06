"""The packets of a video stream, and which of them a decoder may start from. Decodes nothing but the first frame."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vidcls.errors import VideoError
from vidcls.video.container import reason

MAX_FRAMES = 1 << 22  # 38 hours at 30 frames a second
MISSING = -(1 << 63)  # of a timestamp

# Codecs whose key frames need nothing from before them. Where a container's flag is not enough, `_standalone` looks
# into the packet. Intra-only codecs need no entry; of the rest (palettes, codebooks, intra refresh) all is decoded.
_SEEKABLE = frozenset(
    "h264 hevc vvc mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4v3 wmv1 wmv2 wmv3 vc1 flv1 vp6 vp6f vp8 "
    "vp9 av1 theora".split()
)
_SHORTEST = (
    19  # bytes; in AVI, an MPEG-4 packet so short may only say that its frame came with the one before
)


@dataclass
class Packets:
    """What is known of each packet of the stream, in the order of the file (n,).

    Attributes:
        pts, dts: Timestamps in units of the stream's time base, or `MISSING`.
        sizes: Bytes.
        shown: Whether a frame comes of it: not of what an edit list cuts away, nor of VP8's hidden frames.
        starts: Packets from which a decoder may start → (CRC-32, position in the file or -1).
        false_keys: Whether the container flags other packets as key frames.
        parameter_sets: How many different headers of sequences key frames carry: more than one may change the size.
        corrupt: Whether some are known to be damaged or cut off.
        first: The first decoded frame.
        warnings: Sentences for a person.
    """

    pts: npt.NDArray[np.int64]
    dts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    shown: npt.NDArray[np.bool_]
    starts: dict[int, tuple[int, int]]
    false_keys: bool
    parameter_sets: int
    corrupt: bool
    first: Any
    warnings: list[str] = field(default_factory=list)

    def missing(self) -> bool:
        """Whether a shown packet has no presentation timestamp."""
        return bool((self.pts[self.shown] == MISSING).any())

    def may_hold_no_frame(self) -> bool:
        """Whether some packets are so short that they may stand for nothing."""
        return bool((self.sizes <= _SHORTEST).any())


def payloads(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, without empty ones; the decoder is to be flushed after them.

    Raises:
        av.FFmpegError, OSError: The file cannot be read on from here.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (
            IndexError
        ):  # PyAV's own, at the end, where the file holds a stream that its header does not name
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def decode(stream: Any, packets: Iterable[tuple[int, Any]], damage: Callable[[], None]) -> Iterator[Any]:
    """Frames as the decoder delivers them; a frame's ``pts`` is the number of its packet.

    Args:
        stream: The stream of ``packets``.
        packets: Numbers and packets; reading errors end them, and what the decoder still holds is delivered.
        damage: Called for each packet that cannot be decoded.
    """
    try:
        for number, packet in packets:
            packet.pts = packet.dts = number
            try:
                yield from packet.decode()
            except (av.FFmpegError, OSError):
                damage()
    except (av.FFmpegError, OSError):
        pass
    try:
        yield from stream.codec_context.decode(None)
    except (av.FFmpegError, OSError):
        damage()


def scan(container: Any, stream: Any, path: str) -> Packets:
    """Reads all packets, and decodes until the first frame comes.

    Raises:
        VideoError: There is no frame, none that can be decoded, or there are too many.
    """
    columns = _Columns(stream.codec_context)
    first = None
    warnings: list[str] = []
    try:
        for packet in payloads(container, stream):
            if first is None:
                first = _first_frame(packet)
            columns.add(packet)
            if len(columns.sizes) > MAX_FRAMES:
                problem = f"has more than {MAX_FRAMES:,} frames"
                raise VideoError(path, problem, "cut it into shorter files", kind="too_large")
    except (av.FFmpegError, OSError) as error:
        count = len(columns.sizes)
        warnings.append(f"the file is damaged: reading stopped after {count} frames ({reason(error)})")
    if not any(columns.shown):
        raise VideoError(path, "its video stream has no frames", "is the file complete?", kind="no_frames")
    first = first or _flushed_frame(stream)
    if first is None:
        raise VideoError(path, "none of its frames can be decoded", "the file is damaged: copy it again")
    return columns.packets(first, warnings)


def _first_frame(packet: Any) -> Any:
    try:
        frames = packet.decode()
    except (av.FFmpegError, OSError):
        return None
    return frames[0] if frames else None


def _flushed_frame(stream: Any) -> Any:
    try:
        frames = stream.codec_context.decode(None)
    except (av.FFmpegError, OSError):
        return None
    return frames[0] if frames else None


class _Columns:
    """What `Packets` has, packet by packet."""

    def __init__(self, codec_context: Any) -> None:
        codec = codec_context.codec
        self._name = codec.canonical_name
        palette = codec_context.pix_fmt == "pal8"
        self._seekable = not palette and (codec.intra_only or self._name in _SEEKABLE)
        extra = codec_context.extradata or b""
        at = {"h264": 4, "hevc": 21}.get(self._name, len(extra))
        self._length_size = (extra[at] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > at else 0
        self.pts, self.dts, self.sizes, self.shown = array("q"), array("q"), array("q"), array("b")
        self.starts: dict[int, tuple[int, int]] = {}
        self.false_keys = False
        self.corrupt = False
        self.headers: set[bytes] = set()

    def packets(self, first: Any, warnings: list[str]) -> Packets:
        return Packets(
            pts=np.array(self.pts, np.int64),
            dts=np.array(self.dts, np.int64),
            sizes=np.array(self.sizes, np.int64),
            shown=np.array(self.shown, bool),
            starts=self.starts,
            false_keys=self.false_keys,
            parameter_sets=len(self.headers),
            corrupt=self.corrupt,
            first=first,
            warnings=warnings,
        )

    def add(self, packet: Any) -> None:
        if packet.is_keyframe:
            if self._seekable and self._standalone(packet):
                self.starts[len(self.sizes)] = zlib.crc32(packet), -1 if packet.pos is None else packet.pos
            else:
                self.false_keys = True
        self.corrupt |= packet.is_corrupt
        hidden = self._name == "vp8" and not memoryview(packet)[0] & 0x10  # a frame that only serves others
        self.pts.append(MISSING if packet.pts is None else packet.pts)
        self.dts.append(MISSING if packet.dts is None else packet.dts)
        self.sizes.append(packet.size)
        self.shown.append(not packet.is_discard and not hidden)

    def _standalone(self, packet: Any) -> bool:
        if self._name in ("h264", "hevc"):
            units = list(_units(bytes(packet), self._length_size))
            return self._standalone_h264(units) if self._name == "h264" else self._standalone_hevc(units)
        head = bytes(memoryview(packet)[:4096])
        if self._name in ("mpeg1video", "mpeg2video"):
            if head.startswith(b"\0\0\1\xb3"):
                self.headers.add(head[:12])
            at = head.find(b"\0\0\1\0")
            return head[at + 5 : at + 6] != b"" and head[at + 5] >> 3 & 7 == 1  # picture_coding_type: I
        if self._name in ("vp8", "vp9"):
            self.headers.add(_vp9_size(head) if self._name == "vp9" else head[6:10])
        if self._name == "mpeg4":
            at = head.find(b"\0\0\1\xb6")
            return at >= 0 and head[at + 4 : at + 5] < b"\x40"  # vop_coding_type: I
        return True

    def _standalone_h264(self, units: list[bytes]) -> bool:
        """An IDR picture, or a recovery point that needs no frames to recover (open group)."""
        kinds = [unit[0] & 31 for unit in units]
        self.headers.update(unit for unit, kind in zip(units, kinds, strict=True) if kind == 7)
        return 5 in kinds or any(
            _recovers_at_once(u) for u, kind in zip(units, kinds, strict=True) if kind == 6
        )

    def _standalone_hevc(self, units: list[bytes]) -> bool:
        """A picture of the IRAP kinds: BLA, IDR or CRA."""
        kinds = [unit[0] >> 1 & 63 for unit in units]
        self.headers.update(unit for unit, kind in zip(units, kinds, strict=True) if kind == 33)
        return any(16 <= kind <= 23 for kind in kinds)


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an SEI unit of H.264 (7.3.2.3) has a recovery point whose recovery_frame_cnt is 0."""
    at = 1
    while at + 2 < len(unit):
        kind, at = _sei_number(unit, at)
        length, at = _sei_number(unit, at)
        if kind == 6 and at < len(unit):
            return bool(unit[at] & 0x80)  # ue(v) of zero is a single 1
        at += length
    return False


def _sei_number(unit: bytes, at: int) -> tuple[int, int]:
    value = 0
    while at < len(unit) and unit[at] == 255:
        value, at = value + 255, at + 1
    return value + (unit[at] if at < len(unit) else 0), at + 1


def _vp9_size(head: bytes) -> bytes:
    """The color configuration and size in the uncompressed header of a key frame of VP9 (6.2)."""
    profile = head[0] >> 5 & 1 | head[0] >> 3 & 2
    extra = (0, 3, 1, 5)[profile]  # bits: more of the color's, and those reserved
    bits = int.from_bytes(head[4:12].ljust(8, b"\0"), "big") >> (28 - extra)
    return bits.to_bytes(8, "big")


def _units(data: bytes, length_size: int) -> Iterator[bytes]:
    """NAL units of a packet, each cut to 256 bytes: with lengths before them, or between start codes."""
    at = 0
    if length_size:
        while at + length_size < len(data):
            length = int.from_bytes(data[at : at + length_size], "big")
            at += length_size
            if length:
                yield data[at : at + min(length, 256)]
            at += length
        return
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        end = data.find(b"\0\0\1", at + 3)
        stop = len(data) if end < 0 else end
        yield data[at + 3 : min(stop, at + 259)].rstrip(b"\0") or b"\0"
        at = end
