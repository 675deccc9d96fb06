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
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from vidcls.errors import UsageError, VideoError
from vidcls.video.collect import Collector, Flow, Frames, Sound, Transform
from vidcls.video.decoders import DECODERS
from vidcls.video.local_file import check_file
from vidcls.video.process import Answer, AnsweredError, KilledError, Worker
from vidcls.video.span import cut, cut_sound, split_span

__all__ = ["Frames", "VideoInfo", "VideoReader", "check_file"]

DEFAULT_TIMEOUT = 60.0  # seconds for one request
MAX_TIMEOUT = 86_400.0  # seconds
DEFAULT_MAX_MEMORY = 4 << 30  # bytes, of the worker, and of the frames it hands over
MAX_STDIN = 2 << 30  # bytes of a clip that is given as bytes

T = TypeVar("T")


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
        decoder: Which decoder will be tried first, such as ``pyav``; `Frames.decoder` says who did it.
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


class VideoReader:
    """Reads videos through one worker process, which is replaced when it hangs, swells or crashes.

    Safe to use from several threads, one request after the other. After a fork, the child's reader starts a worker
    of its own and keeps the open clip.

    Args:
        decoder: ``auto``: PyAV, and decord where that fails and decord is exact; ``pyav`` or ``decord``: only this one.
        timeout: Seconds that one `open` or `read` may take.
        max_memory: Bytes that the worker may hold, and likewise the frames of one `read`; 4 GiB by default.
            The worker is watched through ``/proc``, or psutil where there is none.
        threads: Threads that decode one clip: 1 where several readers work side by side; None for as many as make
            one clip fast.

    Raises:
        UsageError: No such decoder, or a bound that is not positive.
    """

    _entry: ClassVar[str] = "vidcls.video.worker"

    def __init__(
        self,
        decoder: str = "auto",
        timeout: float = DEFAULT_TIMEOUT,
        max_memory: int | None = None,
        threads: int | None = None,
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
        self._threads = threads
        self._lock = threading.RLock()
        self._worker: Worker | None = None
        self._temporary: Path | None = None
        self._path = ""
        self._info: VideoInfo | None = None
        self._first = 0  # frames of the file before the open clip's first one
        self._seconds: tuple[float, float] | None = None  # of the file, where the open clip is a part of it
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
            source: A path, one with a part of the file such as ``game.mp4#t=12.5,20``, or a clip's bytes.

        Raises:
            VideoError: It cannot be read; ``kind`` says how.
        """
        with self._lock:
            self._forget()
            span = None
            if isinstance(source, bytes):
                name, self._path = "-", str(self._store(source))
            else:
                name = os.fspath(source)
                file, span = split_span(name)
                check_file(file)
                self._path = os.path.abspath(file)
            header, body = self._request(name, {"op": "index"}, _expect_index)
            times = np.frombuffer(body, np.float64)
            info = VideoInfo(
                path=name,
                num_frames=len(times),
                timestamps=times,
                warnings=tuple(header["warnings"]),
                **{key: header[key] for key in _INFO_KEYS},
            )
            self._info, self._first = (info, 0) if span is None else cut(info, span)
            began = float(times[self._first]) if span else 0.0
            self._seconds = (began, began + self._info.duration) if span else None
            return self._info

    def read(self, indices: Sequence[int] | np.ndarray, transform: Transform | None = None) -> Frames:
        """Decodes frames of the open clip, each once, and applies ``transform`` to each in the worker.

        Args:
            indices: Frames of the file, in any order, any number of times.
            transform: Picklable; (h, w, 3) uint8 to an array of one shape and type. Memory then depends on
                what it returns, not on the size of the frames. Where it has a method ``scaling(height, width)`` that
                returns a `vidcls.video.decoders.Scaling`, pictures may come to it in that size.

        Raises:
            VideoError: It cannot be decoded; ``kind`` says how.
            IndexError: The clip has no such frame.
        """
        with self._lock:
            if self._info is None:
                raise RuntimeError("VideoReader.read before open")
            return self._read(self._info, self._wanted(self._info, indices), transform)

    def stream(
        self, indices: Sequence[int] | np.ndarray, transform: Transform | None = None, piece: int = 64
    ) -> Generator[Frames, None, None]:
        """Decodes frames of the open clip in one go, as they are taken: for files of any length, in flat memory.

        What fits in one piece is read as by `read`. The worker decodes some frames ahead. The timeout is for
        each of its messages. To be used up, or closed, in the thread that began it; until then the reader does nothing
        else.

        Args:
            indices: As for `read`.
            transform: As for `read`.
            piece: Frames that are handed over together.

        Raises:
            VideoError: It cannot be decoded any further; ``kind`` says how.
            IndexError: The clip has no such frame.
        """
        with self._lock:
            if self._info is None:
                raise RuntimeError("VideoReader.stream before open")
            wanted = self._wanted(self._info, indices)
            if len(wanted) <= piece:
                yield self._read(self._info, wanted, transform)
                return
            flow = Flow(self._info.path, wanted, piece)
            request = self._read_request(flow.wanted, transform)
            for answer in self._answers(request):
                for frames in flow.take(*answer):
                    yield replace(frames, indices=frames.indices - self._first)

    def sound(self) -> Iterator[Sound]:
        """Decodes the open clip's sound as it is taken, in the manner of `stream`; nothing where there is none.

        Raises:
            VideoError: It cannot be decoded any further.
        """
        with self._lock:
            if self._info is None:
                raise RuntimeError("VideoReader.sound before open")
            for header, body in self._answers({"op": "sound", "path": self._path}):
                if header["type"] == "sound":
                    samples = np.frombuffer(body, np.float32).reshape(header["shape"])
                    yield from cut_sound(Sound(header["rate"], header["start"], samples), self._seconds)

    def _read(self, info: VideoInfo, wanted: npt.NDArray[np.int64], transform: Transform | None) -> Frames:
        while True:
            collect = Collector(info.path, wanted, self._max_memory)
            try:
                frames = self._request(info.path, self._read_request(wanted, transform), collect)
            except VideoError as error:
                if error.kind not in _RETRIED or not collect.more:
                    raise
                self._failed[collect.decoder] = f"{collect.title} failed ({error.problem})"
                continue
            failed = tuple(f"{why}: read with {collect.title}" for why in self._failed.values())
            return replace(frames, indices=frames.indices - self._first, warnings=failed + frames.warnings)

    def _answers(self, request: dict[str, Any]) -> Iterator[Answer]:
        """Answers to one request as they are taken; where not all are, the worker is replaced."""
        assert self._info is not None
        with self._asked_worker() as worker:
            for answer in worker.stream(self._info.path, request, self._timeout, self._max_memory):
                yield answer
                if answer[0]["type"] == "done":
                    return

    def _wanted(self, info: VideoInfo, indices: Sequence[int] | np.ndarray) -> npt.NDArray[np.int64]:
        wanted = np.unique(np.asarray(indices, np.int64))
        if not len(wanted):
            raise IndexError(f"{info.path}: no frames asked for")
        if wanted[0] < 0 or wanted[-1] >= info.num_frames:
            raise IndexError(f"{info.path}: frames {wanted[0]}…{wanted[-1]} of {info.num_frames}")
        return wanted + self._first  # as the file counts them

    def _read_request(self, wanted: npt.NDArray[np.int64], transform: Transform | None) -> dict[str, Any]:
        return {
            "op": "read",
            "indices": wanted.tolist(),
            "transform": transform,
            "without": list(self._failed),
            "threads": self._threads,
            "path": self._path,
            "decoder": self._decoder,
        }

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
        full = {**request, "path": self._path, "decoder": self._decoder}
        with self._asked_worker() as worker:
            return worker.ask(name, full, take, self._timeout, self._max_memory)

    @contextlib.contextmanager
    def _asked_worker(self) -> Iterator[Worker]:
        """The worker, to be asked one thing; it is replaced where that ends in anything but its own answers."""
        self.start()
        worker = self._worker
        assert worker is not None
        try:
            yield worker
        except AnsweredError as answered:
            raise answered.error from None  # the worker is well: it said no
        except BaseException:
            self._kill()
            raise

    def _store(self, data: bytes) -> Path:
        if not data:
            raise VideoError("-", "is empty (0 bytes)", "give a whole clip", kind="empty")
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
