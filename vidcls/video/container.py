"""Opens a file for demuxing, safely: only containers that hold their own pictures, only from this file.

Files come from strangers. A playlist names other files or hosts, and a file may be a playlist and a video at once:
what each decoder opens is decided here, by the file's first bytes, before any library sees it. Runs in the decode
worker only (`vidcls.video.worker`).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import av

from vidcls.errors import VideoError, system_errors
from vidcls.video.local_file import check_file

MAX_SIDE = 16384  # pixels
MAX_AREA = 16384 * 8640  # pixels; 16K UHD

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,m4v,av1,obu,"
    "ivf,vc1,mxf,nut,rm,wtv,dv,yuv4mpegpipe,mjpeg,mp3,wav,flac,aac,amr,aiff,caf,y4m,swf,nsv,vvc,h263,h261"
)
"""Containers that hold their own pictures or sound; hls, dash, concat, image sequences and devices are not here."""

PICTURES = {
    b"\xff\xd8\xff": "jpeg_pipe",
    b"\x89PNG\r\n\x1a\n": "png_pipe",
    b"BM": "bmp_pipe",
    b"II*\x00": "tiff_pipe",
    b"MM\x00*": "tiff_pipe",
    b"RIFF....WEBP": "webp_pipe",
}
"""First bytes of a picture (a dot is any byte) and FFmpeg's demuxer, which reads this file and no other."""

_CONTAINERS = (
    b"....ftyp", b"....moov", b"....mdat", b"....wide", b"....free", b"....skip",
    b"\x1aE\xdf\xa3", b"RIFF", b"OggS", b"FLV\x01", b"\x00\x00\x01\xba", b"0&\xb2u",
)  # fmt: skip
_DECORD_OPENS = (b"....ftyp", b"\x1aE\xdf\xa3", b"RIFF....AVI ", b"FLV\x01")
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"[Reference]", b"v=0\r", b"v=0\n")
# What makes FFmpeg take a file for a list of others wherever it stands in the first bytes.
_LIST_WORDS = (
    *_PLAYLISTS[:2],
    b"<MPD",
    b"c=IN IP",
    b"<SmoothStreaming",
    b"<smil",
    b"<ASX",
    b"<asx",
    b"RTSPtext",
)
_HEAD = 1 << 16  # bytes looked at; FFmpeg probes 2048 first, and more only where these do not tell


def read_head(path: str) -> bytes:
    """The file's first 64 KiB; a VideoError where it cannot be read."""
    with system_errors(VideoError, path, "cannot be read", "check the disk or the path"):
        try:
            with Path(path).open("rb") as file:
                return file.read(_HEAD)
        except OSError:
            check_file(path)
            raise


def _begins(head: bytes, magic: bytes) -> bool:
    return len(head) >= len(magic) and all(m in (46, h) for m, h in zip(magic, head, strict=False))


def picture_demuxer(head: bytes) -> str | None:
    """FFmpeg's demuxer for a file that is a picture, or None; a stream of JPEGs counts as a video."""
    found = next((name for magic, name in PICTURES.items() if _begins(head, magic)), None)
    animated = found == "png_pipe" and b"acTL" in head
    return None if animated or (found == "bmp_pipe" and head[6:10] != bytes(4)) else found


def safe_for_decord(path: str, head: bytes) -> bool:
    """Whether decord, which opens whatever its FFmpeg 4.1 takes a file for, can only take it for its container."""
    own = any(_begins(head, magic) for magic in _DECORD_OPENS)
    # A "%" in the name makes FFmpeg take it for the pattern of a sequence of pictures.
    return own and "%" not in path and not any(word in head for word in _LIST_WORDS)


def _is_playlist(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(_PLAYLISTS) or (text[:1] == b"<" and any(word in text for word in _LIST_WORDS))


# PyAV before 19 stops at text in a header that is not UTF-8, unless told; later ones replace it.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: str) -> Any:
    """Opens a file for demuxing; closed by ``with``.

    Raises:
        VideoError: It is not a video or cannot be read.
    """
    head = read_head(path)
    if _is_playlist(head):
        raise VideoError(
            path,
            "is not a video in a known format but a playlist, which may name any other file",
            "give the videos themselves",
            kind="not_a_video",
        )
    picture = picture_demuxer(head)
    whitelist = f"{DEMUXERS},{picture}" if picture else DEMUXERS
    try:
        return av.open(
            os.path.abspath(path),  # cannot be taken for a protocol ("concat:…") or an option
            format=picture,
            container_options={"protocol_whitelist": "file", "format_whitelist": whitelist},
            **_METADATA,
        )
    except MemoryError:
        raise VideoError(path, "its header asks for too much memory", kind="memory") from None
    except (av.FFmpegError, OSError, ValueError, UnicodeError) as error:
        # The file could be read just now: "permission denied" and the like are what FFmpeg says of damage.
        if picture or any(_begins(head, magic) for magic in _CONTAINERS):
            raise VideoError(
                path,
                f"is damaged or cut off: its header or index cannot be read ({reason(error)})",
                "copy or download it again",
            ) from None
        raise VideoError(
            path, "is not a video in a known format", "convert it, for example to MP4", kind="not_a_video"
        ) from None


def reason(error: BaseException) -> str:
    """What an error of FFmpeg or the system says, on one line."""
    if isinstance(error, PermissionError):
        return "invalid data"  # some demuxers answer damage with EPERM or EACCES
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0][:200].rstrip(".")


def check_size(path: str, width: int, height: int) -> None:
    """Raises a VideoError where frames of so many pixels are too large."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_AREA:
        raise VideoError(
            path, f"its frames are too large ({width}×{height})", "scale it down first", kind="too_large"
        )


# --- whether the whole file is there ------------------------------------------------------------------------------


def is_cut_short(path: str) -> bool:
    """Whether the file ends before its container's own sizes say; False where they say nothing."""
    size = os.path.getsize(path)
    with Path(path).open("rb") as file:
        head = file.read(64)
        if _begins(head, b"RIFF....AVI "):
            promised = struct.unpack("<I", head[4:8])[0]
            # Writers that cannot seek leave 0 or all ones.
            return promised not in (0, 0xFFFFFFFF) and promised + 8 > size
        if head[:4] == b"\x1aE\xdf\xa3":
            return _matroska_end(file) > size
        if head[:4] == b"0&\xb2u":
            return _asf_size(file) > size
        if any(_begins(head, magic) for magic in _CONTAINERS[:6]):
            return any(start + length > size for start, length, _ in _boxes(file, size))
    return False


def has_edit_list(path: str) -> bool:
    """Whether an MP4 says which parts of it are to be shown."""
    size = os.path.getsize(path)
    with Path(path).open("rb") as file:
        for start, length, kind in _boxes(file, size):
            if kind == b"moov":
                file.seek(start)
                return b"elst" in file.read(min(length, 1 << 26))
    return False


def _boxes(file: BinaryIO, size: int) -> list[tuple[int, int, bytes]]:
    """(start, length, kind) of an MP4's outermost boxes."""
    found: list[tuple[int, int, bytes]] = []
    start = 0
    while start + 8 <= size and len(found) < 100_000:
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - start
        if length < 8:
            break
        found.append((start, length, head[4:8]))
        start += length
    return found


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends; 0 where that is not said."""
    file.seek(4)
    header = _vint(file)
    if header is None:
        return 0
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _vint(file)
    return 0 if length is None else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """A length of Matroska's; None where it is left open, as in a live stream."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + file.read(extra), "big")
    return None if value == (1 << 7 * (extra + 1)) - 1 else value


def _asf_size(file: BinaryIO) -> int:
    """The file's size in bytes, as an ASF header has it; 0 where it is not said."""
    file.seek(0)
    head = file.read(_HEAD)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))  # the file properties object
    if at < 0 or len(head) < at + 104 or head[at + 88] & 1:  # a broadcast's flag: the size is not valid
        return 0
    return int.from_bytes(head[at + 40 : at + 48], "little")
