"""Path to frames. Decoding itself happens in a worker process, so that a file can neither hang nor swell us.

    with VideoReader() as reader:
        info = reader.open("clip.mp4")
        frames = reader.read([0, 10, 20]).frames  # (3, h, w, 3) uint8 RGB

This module opens files and collects frames; `vidcls.video.process` starts, watches and kills the worker;
`vidcls.video.worker` is what runs there, with `vidcls.video.index` and the decoders of `vidcls.video.decoders`.
Nothing else in vidcls knows them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from vidcls.errors import UsageError, VideoError
from vidcls.video.decoders import DECODERS
from vidcls.video.process import Answer, AnsweredError, KilledError, Worker

DEFAULT_TIMEOUT = 60.0  # seconds for one request
MAX_TIMEOUT = 86_400.0  # seconds
DEFAULT_MAX_MEMORY = 4 << 30  # bytes, of the worker, and of the frames it hands over
MAX_STDIN = 2 << 30  # bytes of a clip that is given as bytes

T = TypeVar("T")
Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: As it was given; ``-`` for bytes.
        num_frames: Frames that the file holds. Frames of damaged files may turn out undecodable when read.
        fps: Frames a second; the mean where the rate varies.
        duration: Seconds from the first frame to the end of the last.
        width: Pixels, after rotation. Pixels that are not square stay as they are stored.
        height: Pixels, after rotation.
        rotation: Degrees clockwise by which the frames were turned; where no multiple of 90, within their frame.
        mirrored: Whether left and right of the frames were exchanged before that.
        codec: FFmpeg's name of the codec.
        decoder: Which decoder will be tried first, such as ``decord``; `Frames.decoder` says who did it.
        timestamps: Seconds at which each frame is shown, from the first one (num_frames,).
        variable_frame_rate: Whether the frames are spaced unevenly in time.
        warnings: Sentences for a person.
    """

    path: str
    num_frames: int
    fps: float
    duration: float
    width: int
    height: int
    rotation: int
    codec: str
    decoder: str
    timestamps: npt.NDArray[np.float64]
    variable_frame_rate: bool
    warnings: tuple[str, ...] = ()
    mirrored: bool = False


@dataclass(frozen=True)
class Frames:
    """Decoded frames, each once.

    Attributes:
        frames: (t, h, w, 3) uint8 RGB, or whatever the transform made of each.
        indices: Which frames of the file they are (t,), sorted, without duplicates.
        decoder: ``decord`` or ``pyav``.
        warnings: Sentences for a person.
    """

    frames: np.ndarray
    indices: npt.NDArray[np.int64]
    decoder: str
    warnings: tuple[str, ...] = ()


def check_file(path: str | os.PathLike[str]) -> None:
    """Finds the faults that can be told without decoding.

    Raises:
        VideoError: Of kind ``not_found``, ``not_a_file``, ``permission``, ``empty`` or ``unreadable``.
    """
    name = os.fspath(path)
    try:
        # Looked at before it is opened: to open a FIFO waits for a writer, and a device may do anything.
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            raise _not_a_file(name, mode)
        with open(name, "rb") as file:
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        hint = "fetch it first, or give the address to the command" if "://" in name else "check the path"
        raise VideoError(name, "no such file", hint, kind="not_found") from None
    except PermissionError:
        raise VideoError(name, "permission denied", "make the file readable", kind="permission") from None
    except ValueError:
        raise VideoError(repr(name), "is not a valid path", "check the path", kind="not_found") from None
    except OSError as error:
        raise VideoError(name, f"cannot be read ({error.strerror})", "check the disk or the path") from None
    if empty:
        raise VideoError(name, "is empty (0 bytes)", "copy or download it again", kind="empty")


def _not_a_file(name: str, mode: int) -> VideoError:
    if stat.S_ISDIR(mode):
        return VideoError(name, "is a directory", "give the files in it", kind="not_a_file")
    if stat.S_ISFIFO(mode):
        return VideoError(name, "is a named pipe (FIFO)", "pass its bytes on stdin with -", kind="not_a_file")
    what = "a socket" if stat.S_ISSOCK(mode) else "a device"
    return VideoError(name, f"is {what}, not a file", "give a video file", kind="not_a_file")


class VideoReader:
    """Reads videos through one worker process, which is replaced when it hangs, swells or crashes.

    Safe to use from several threads, one request after the other. After a fork, the child's reader starts a worker
    of its own and keeps the open clip.

    Args:
        decoder: ``auto``: decord, or PyAV where decord is missing, would not be exact, or fails;
            ``decord`` or ``pyav``: only this one.
        timeout: Seconds that one `open` or `read` may take.
        max_memory: Bytes that the worker may hold, and likewise the frames of one `read`; 4 GiB by default.
            The worker is watched through ``/proc``, or psutil where there is none.

    Raises:
        UsageError: No such decoder, or a bound that is not positive.
    """

    _entry: ClassVar[str] = "vidcls.video.worker"

    def __init__(
        self, decoder: str = "auto", timeout: float = DEFAULT_TIMEOUT, max_memory: int | None = None
    ) -> None:
        if decoder not in ("auto", *DECODERS):
            raise UsageError(
                "decoder", f"{decoder!r} does not exist", f"use one of {', '.join(('auto', *DECODERS))}"
            )
        if not 0 < timeout <= MAX_TIMEOUT:
            problem = f"{timeout:g} is not a number of seconds between 0 and {MAX_TIMEOUT:,.0f}"
            raise UsageError("decode_timeout", problem, "give a smaller one")
        if max_memory is not None and max_memory <= 0:
            raise UsageError("max_memory", f"{max_memory} is not a positive number of bytes")
        self._decoder = decoder
        self._timeout = timeout
        self._max_memory = max_memory or DEFAULT_MAX_MEMORY
        self._lock = threading.RLock()
        self._worker: Worker | None = None
        self._temporary: Path | None = None
        self._path = ""
        self._info: VideoInfo | None = None
        self._failed: dict[str, str] = {}  # decoders that failed on the open clip, and how
        _OPEN.add(self)

    def start(self) -> None:
        """Begins to start the worker and returns at once, so that its start overlaps with other work."""
        with self._lock:
            if self._worker is None or not self._worker.alive():
                self._kill()
                self._worker = Worker(self._entry, self._max_memory)

    def close(self) -> None:
        """Ends the worker and forgets the open clip."""
        with self._lock:
            self._kill()
            self._forget()

    def abort(self) -> None:
        """Kills the worker under a call of another thread, which then fails or tries its other decoder."""
        worker = self._worker
        if worker is not None:
            worker.abort()

    def __enter__(self) -> VideoReader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # At the interpreter's end, atexit has closed it already; the lock is missing if __init__ raised.
        if not sys.is_finalizing() and hasattr(self, "_lock"):
            self.close()

    def open(self, source: str | os.PathLike[str] | bytes) -> VideoInfo:
        """Makes a clip the one that `read` reads.

        Args:
            source: A path, or a clip's bytes.

        Raises:
            VideoError: It cannot be read; ``kind`` says how.
        """
        with self._lock:
            self._forget()
            if isinstance(source, bytes):
                name, self._path = "-", str(self._store(source))
            else:
                name = os.fspath(source)
                check_file(name)
                self._path = os.path.abspath(name)
            header, body = self._request(name, {"op": "index"}, _expect_index)
            times = np.frombuffer(body, np.float64)
            self._info = VideoInfo(
                path=name,
                num_frames=len(times),
                timestamps=times,
                warnings=tuple(header["warnings"]),
                **{key: header[key] for key in _INFO_KEYS},
            )
            return self._info

    def read(self, indices: Sequence[int] | np.ndarray, transform: Transform | None = None) -> Frames:
        """Decodes frames of the open clip, each once, and applies ``transform`` to each in the worker.

        Args:
            indices: Frames of the file, in any order, any number of times.
            transform: Picklable; (h, w, 3) uint8 to an array of one shape and type. Memory then depends on
                what it returns, not on the size of the frames.

        Raises:
            VideoError: It cannot be decoded; ``kind`` says how.
            IndexError: The clip has no such frame.
        """
        with self._lock:
            if self._info is None:
                raise RuntimeError("VideoReader.read before open")
            info = self._info
            wanted = np.unique(np.asarray(indices, np.int64))
            if not len(wanted):
                raise IndexError(f"{info.path}: no frames asked for")
            if wanted[0] < 0 or wanted[-1] >= info.num_frames:
                raise IndexError(f"{info.path}: frames {wanted[0]}…{wanted[-1]} of {info.num_frames}")
            while True:
                request = {
                    "op": "read",
                    "indices": wanted.tolist(),
                    "transform": transform,
                    "without": list(self._failed),
                }
                collect = _Collector(info.path, wanted, self._max_memory)
                try:
                    frames = self._request(info.path, request, collect)
                except VideoError as error:
                    if error.kind not in _RETRIED or not self._another_than(collect.decoder):
                        raise
                    self._failed[collect.decoder] = f"{collect.title} failed ({error.problem})"
                    continue
                failed = tuple(f"{why}: read with {collect.title}" for why in self._failed.values())
                return replace(frames, warnings=failed + frames.warnings)

    def _another_than(self, decoder: str) -> bool:
        """Whether there is a decoder to try after this one."""
        return self._decoder == "auto" and bool(decoder) and decoder != list(DECODERS)[-1]

    def _request(
        self, name: str, request: dict[str, Any], take: Callable[[dict[str, Any], bytearray], T | None]
    ) -> T:
        """Sends a request and hands each answer to ``take`` until that returns something.

        A worker that somebody else kills, as systems do that are short of memory, is replaced once.
        """
        try:
            return self._ask(name, request, take)
        except KilledError:
            return self._ask(name, request, take)

    def _ask(
        self, name: str, request: dict[str, Any], take: Callable[[dict[str, Any], bytearray], T | None]
    ) -> T:
        self.start()
        worker = self._worker
        assert worker is not None
        full = {**request, "path": self._path, "decoder": self._decoder}
        try:
            return worker.ask(name, full, take, self._timeout, self._max_memory)
        except AnsweredError as answered:
            raise answered.error from None  # the worker is well: it said no
        except BaseException:
            self._kill()
            raise

    def _store(self, data: bytes) -> Path:
        if not data:
            raise VideoError("-", "is empty (0 bytes)", "pipe a whole clip into it", kind="empty")
        if len(data) > MAX_STDIN:
            raise VideoError("-", "is larger than 2 GiB", "save it to a file first", kind="too_large")
        handle, path = tempfile.mkstemp(prefix="vidcls-", suffix=".video")
        self._temporary = Path(path)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return self._temporary

    def _forget(self) -> None:
        self._info = None
        self._failed = {}
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            self._temporary = None

    def _start_afresh(self) -> None:
        """In a child process after a fork: the worker and the temporary file stay the parent's."""
        self._lock = threading.RLock()
        worker, self._worker, self._temporary = self._worker, None, None
        if worker is not None:
            worker.abandon()

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


_OPEN: weakref.WeakSet[VideoReader] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for reader in list(_OPEN):
        reader.close()


def _after_fork() -> None:
    for reader in list(_OPEN):
        reader._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_INFO_KEYS = "fps duration width height rotation mirrored codec decoder variable_frame_rate".split()
_RETRIED = ("timeout", "crashed", "memory")


def _expect_index(header: dict[str, Any], body: bytearray) -> Answer | None:
    return (header, body) if header["type"] == "index" else None


class _Collector:
    """Puts the frames of one `read` in place as they come."""

    def __init__(self, name: str, wanted: npt.NDArray[np.int64], max_memory: int) -> None:
        self._name = name
        self._wanted = wanted
        self._max_memory = max_memory
        self._frames: np.ndarray | None = None
        self._seen: set[int] = set()
        self.decoder = ""
        self.title = ""

    def __call__(self, header: dict[str, Any], body: bytearray) -> Frames | None:
        if header["type"] == "using":
            self.decoder, self.title = header["decoder"], header["title"]
            self._seen.clear()
        elif header["type"] == "frame":
            self._place(header, body)
        elif header["type"] == "done":
            if self._frames is None or len(self._seen) < len(self._wanted):
                raise VideoError(self._name, "not all frames asked for were decoded", kind="unreadable")
            return Frames(self._frames, self._wanted, header["decoder"], tuple(header["warnings"]))
        return None

    def _place(self, header: dict[str, Any], body: bytearray) -> None:
        frame = np.frombuffer(body, np.dtype(header["dtype"])).reshape(header["shape"])
        if self._frames is None:
            size = frame.nbytes * len(self._wanted)
            if size > self._max_memory:
                problem = (
                    f"{len(self._wanted)} frames of {frame.nbytes:,} bytes are more than the memory bound"
                )
                raise VideoError(self._name, problem, "ask for fewer or smaller frames", kind="memory")
            self._frames = np.empty((len(self._wanted), *frame.shape), frame.dtype)
        at = int(np.searchsorted(self._wanted, header["index"]))
        self._frames[at] = frame
        self._seen.add(at)
