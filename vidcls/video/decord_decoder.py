"""decord 0.6: fast on the usual files, not exact on all; it holds FFmpeg 4.1."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from vidcls.errors import DependencyError
from vidcls.video.decoders import DecodeError, Picture, Scaling
from vidcls.video.index import Index

LONG = 10_000  # frames; of 90,000, decord read 64 spread ones in 6.7 s and PyAV in 2.7 s
LARGE_AREA = 4096 * 2304  # pixels; beyond, decord held 1.1 to 1.4 GB where PyAV held 0.5 (8K H.264)
_FORMATS = frozenset("yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p rgb24 bgr24".split())


class DecordDecoder:
    """Reads frames with decord, after it has shown that it sees the same frames in the file as the index."""

    title = "decord"

    def __init__(self, index: Index, threads: int | None = None) -> None:
        self.index = index
        self._threads = threads or min(4, os.cpu_count() or 1)
        self.warnings: list[str] = []

    @staticmethod
    def available() -> bool:
        """Whether decord is installed; it has no wheel for ARM and recent macOS."""
        return find_spec("decord") is not None

    @staticmethod
    def misfit(index: Index) -> str:
        """Why decord would not deliver this file's pictures exactly, or only slowly.

        Where its plain 8-bit converter does not apply, its scaler interpolates the rows of 4:2:0 chroma otherwise
        than current FFmpeg: 0.6 to 3.4 gray levels on average for more than 8 bits, 0.5 for odd heights, none for
        4:2:2 and 4:4:4.
        """
        if index.codec == "av1":
            return "it has no AV1 decoder"
        if index.pix_fmt not in _FORMATS:
            return f"it does not convert {index.pix_fmt} exactly"
        if "420" in index.pix_fmt and index.height % 2:
            return "it does not convert odd heights exactly"
        if index.height * index.width > LARGE_AREA:
            return "it holds several frames at a time, too much at this size"
        if index.num_frames > LONG:
            return "it would go through the whole of a long file once more"
        if not _seeks(index):
            return "it does not seek reliably in it"
        if index.place is not None and (index.place < 0).any():
            return "it counts frames that are not shown"
        if not index.finished:
            return "it needs a header that says how long the file is"
        return "it sees the file's own times" if index.repaired else _refusal(index)

    def read(self, wanted: Sequence[int], scaling: Scaling | None = None) -> Iterator[tuple[int, Picture]]:
        """See `Decoder.read`; pictures come in the file's size, as the scaler of FFmpeg 4.1 is not that of PyAV's.

        Raises:
            DecodeError: decord cannot read the file, or reads it differently.
            DependencyError: decord is not installed.
        """
        if not self.available():
            raise DependencyError("decord", "is not installed", "use decoder=auto or decoder=pyav")
        if refused := _refusal(self.index):
            raise DecodeError(refused)
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        try:
            # Opened for these frames only: left open, it goes on reading ahead into memory.
            reader = decord.VideoReader(self.index.path, num_threads=self._threads)
            self._check(reader)
            yield from self._pictures(reader, wanted)
        except (DecodeError, GeneratorExit):
            raise
        except Exception as error:  # decord raises C++ errors, assertions and StopIteration of many kinds
            raise DecodeError(_in_short(error)) from error

    def _pictures(self, reader: Any, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        seekable = _seeks(self.index)
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

    def _check(self, reader: Any) -> None:
        """Whether decord chose the same stream and counts the same frames (edit lists, two video streams)."""
        count = self.index.num_frames
        if len(reader) != count:
            raise DecodeError(f"it counts {len(reader)} frames instead of {count}")
        if self.index.guessed:
            return
        starts = reader.get_frame_timestamp(np.arange(count))[:, 0].astype(np.float64)
        if not np.allclose(starts - starts[0], self.index.timestamps, rtol=1e-5, atol=2e-3):
            raise DecodeError("it sees other frame times")


def _seeks(index: Index) -> bool:
    """Whether decord finds the right frame after a seek.

    Measured on clips whose frames carry numbers: it does in MP4 and Matroska, and in FLV and AVI without reordered
    frames, AVI with H.264 excepted. It does not in MPEG transport streams, nor where pictures shown before a key
    frame come after it (open groups, as x265 writes them): it loses those and returns later frames.
    """
    if index.open_gop or index.false_keys or index.guessed or not index.sorted:
        return False
    if index.container in ("flv", "avi"):
        return not index.reordered and (index.container, index.codec) != ("avi", "h264")
    return "mp4" in index.container or "matroska" in index.container


def _refusal(index: Index) -> str:
    """Why decord must not be given the file even if it is asked for; empty where it may."""
    shown = index.orientation
    if index.container in ("mpegts", "mpeg"):
        return "it loses the first frames of transport and program streams"
    if not index.plain:
        return "it might open other files that this one names"
    if shown.mirrored or shown.angle or shown.ignored:
        return "it does not read the display matrix"
    return "it scales frames of a new size otherwise" if index.resized else ""


def _in_short(error: Exception) -> str:
    """What decord's error means, without the source lines and C++ conditions that it quotes."""
    text = str(error)
    if "find video stream" in text:
        return "it has no decoder for this codec"
    if "sending packet" in text or "av_read_frame" in text or "send_packet" in text:
        return "it stops at damaged packets"
    lines = re.sub(r"\[[\d:]+\]\s*|\S+\.(cc|h):\d+:\s*|Check failed:\s*", "", text.strip()).splitlines()
    return (lines[0][:100].strip() if lines else "") or type(error).__name__
