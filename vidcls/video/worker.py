"""The process that decodes: it may hang, grow or crash, and only it is lost then.

Requests come in on stdin as length-prefixed pickles (the parent is trusted); answers go out on stdout as a JSON
header and raw bytes, never as pickles, since this process handles files that come from strangers. It imports
neither torch nor the command line.

Messages, header length and body length first (`HEADER`):
    ready                                 once, after start
    index {…}, body: timestamps           answer to ``index``
    using {decoder, title, more}          before each decoder's attempt; whether there would be another one
    frames {indices, shape, dtype}, body  some frames of one shape; a later one for the same index replaces it
    done {decoder, warnings}              answer to ``read``
    sound {rate, start, shape}, body      some of the answer to ``sound``, which ends with ``done``
    error {kind, problem, remedy} | bug {text}
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

HEADER = struct.Struct(">IQ")
LENGTH = struct.Struct(">Q")
BATCH = 1 << 20  # bytes of frames in one message; of larger frames, one
HELD = 0.5  # seconds that a frame may wait for others
GRACE = 30.0  # seconds beyond the timeout after which a worker that nobody killed ends itself

Transform = Callable[[np.ndarray], np.ndarray]


def main(alive: int | None, max_memory: int, server: type[Server] | None = None) -> None:
    """Serves requests until stdin ends.

    Args:
        alive: Read end of a pipe whose other end only the parent holds; None where the system has no such.
        max_memory: Bytes that this process may come to hold.
        server: What answers; by default `Server`.
    """
    out = _claim_stdout()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both may reach every process of a job; ours ends when its parent closes the pipe.
        signal.signal(number, signal.SIG_IGN)
    if alive is not None:
        _die_with_parent(alive)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    try:
        answering = (server or Server)(out)
    except ImportError as error:
        send(out, {"type": "bug", "text": f"the decode worker cannot start: {error}"})
        return
    _limit(max_memory)
    send(out, {"type": "ready"})
    while True:
        request = requests.get()
        set_alarm(request)
        answering.answer(request)
        faulthandler.cancel_dump_traceback_later()


def set_alarm(request: dict[str, Any]) -> None:
    """Have a C thread end this process, even if a decoder holds the interpreter's lock and the parent is gone."""
    faulthandler.dump_traceback_later(request["timeout"] + GRACE, exit=True)


def hold_alarm() -> None:
    """Let this process live however long the parent takes for what it has."""
    faulthandler.cancel_dump_traceback_later()


def _claim_stdout() -> BinaryIO:
    """The stream for answers; whatever a C library prints to stdout goes to stderr instead."""
    out = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)
    return out


def _die_with_parent(alive: int) -> None:
    """Has the kernel end this process when the parent's end of a pipe closes, however busy it is."""
    if sys.platform == "linux":
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            if os.read(alive, 1) == b"":
                os._exit(1)


def _limit(max_memory: int) -> None:
    """Hard bounds behind the parent's watch: address space, and no large files written."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        if sys.platform == "linux":
            # Address space is more than memory: stacks, arenas and mapped libraries count too.
            space = max_memory * 3 // 2 + (4 << 30)
            resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _receive(stream: BinaryIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    while True:
        head = stream.read(LENGTH.size)
        if len(head) < LENGTH.size:
            os._exit(0)  # the parent is gone or has closed its reader
        requests.put(pickle.loads(stream.read(LENGTH.unpack(head)[0])))


def send(out: BinaryIO, header: dict[str, Any], *body: memoryview) -> None:
    """Write one message."""
    text = json.dumps(header).encode()
    out.write(HEADER.pack(len(text), sum(part.nbytes for part in body)))
    out.write(text)
    for part in body:
        out.write(part)
    out.flush()


class _TransformError(Exception):
    """The caller's own function failed on a frame."""


class Server:
    """Answers requests for files: their index, and frames of them."""

    def __init__(self, out: BinaryIO) -> None:
        import av

        from vidcls.video import decoders, index

        av.logging.set_level(None)
        self._out = out
        self._decoders = decoders
        self._build_index = index.build_index
        self._index: tuple[tuple[str, int, int], Any] | None = None

    def answer(self, request: dict[str, Any]) -> None:
        from vidcls.errors import DependencyError, VideoError

        try:
            if request["op"] == "index":
                self._answer_index(request)
            elif request["op"] == "sound":
                self._answer_sound(request)
            else:
                self._answer_read(request)
        except (VideoError, DependencyError) as error:
            message = {"type": "error", "kind": error.kind, "problem": error.problem, "remedy": error.remedy}
            send(self._out, message)
        except MemoryError:
            send(
                self._out,
                {"type": "error", "kind": "memory", "problem": "needs too much memory", "remedy": ""},
            )
        except BrokenPipeError:
            os._exit(1)
        except _TransformError:
            send(self._out, {"type": "bug", "text": traceback.format_exc()})
        except Exception as error:  # whatever a damaged file provokes must stay this file's own error
            problem = f"cannot be decoded ({type(error).__name__}: {str(error)[:200]})"
            send(self._out, {"type": "error", "kind": "unreadable", "problem": problem, "remedy": ""})

    def _index_of(self, path: str) -> Any:
        from vidcls.errors import VideoError

        try:
            stat = os.stat(path)
        except OSError as error:
            raise VideoError(
                path, f"vanished while it was read ({error.strerror})", kind="not_found"
            ) from None
        key = (path, stat.st_size, stat.st_mtime_ns)
        if self._index is None or self._index[0] != key:
            self._index = key, self._build_index(path)
        return self._index[1]

    def _answer_index(self, request: dict[str, Any]) -> None:
        index = self._index_of(request["path"])
        height, width = index.shown_size
        header = {
            "type": "index",
            "fps": index.fps,
            "duration": index.duration,
            "width": width,
            "height": height,
            "rotation": index.orientation.turn or index.orientation.angle,
            "mirrored": index.orientation.mirrored,
            "codec": index.codec,
            "decoder": self._decoders.choose(index, request["decoder"])[0],
            "variable_frame_rate": index.variable_frame_rate,
            "warnings": index.warnings,
        }
        send(self._out, header, index.timestamps.data)

    def _answer_read(self, request: dict[str, Any]) -> None:
        index = self._index_of(request["path"])
        warnings: list[str] = []
        transform = request["transform"]
        scaling = transform.scaling(*index.shown_size) if hasattr(transform, "scaling") else None
        names = self._decoders.choose(index, request["decoder"], request["without"])
        decoders = [self._decoders.decoder_class(name)(index, request["threads"]) for name in names]
        for name, decoder, following in zip(names, decoders, [*decoders[1:], None], strict=True):
            more = following is not None
            send(self._out, {"type": "using", "decoder": name, "title": decoder.title, "more": more})
            batch = _Batch(self._out, request)
            try:
                for position, picture in decoder.read(request["indices"], scaling):
                    batch.add(position, _transformed(picture, transform))
                batch.send()
            except self._decoders.DecodeError as error:
                if following is None:
                    raise self._failure(index.path, name, error) from error
                warnings.append(f"{decoder.title} could not read it ({error}): read with {following.title}")
                continue
            send(self._out, {"type": "done", "decoder": name, "warnings": warnings + decoder.warnings})
            return

    def _answer_sound(self, request: dict[str, Any]) -> None:
        from vidcls.video.sound import read_sound

        for facts, samples in read_sound(request["path"], self._index_of(request["path"]).stream):
            hold_alarm()
            data = np.ascontiguousarray(samples, np.float32)
            send(
                self._out,
                {"type": "sound", **facts, "shape": data.shape},
                data.reshape(-1).view(np.uint8).data,
            )
            set_alarm(request)
        send(self._out, {"type": "done"})

    def _failure(self, path: str, name: str, error: Exception) -> Exception:
        from vidcls.errors import VideoError

        return VideoError(path, f"{name} could not read it ({error})", "use decoder=auto")


def _transformed(picture: np.ndarray, transform: Transform | None) -> np.ndarray:
    try:
        return np.ascontiguousarray(transform(picture) if transform else picture)
    except Exception as error:
        raise _TransformError from error


class _Batch:
    """Frames on their way out: many small ones go in one message."""

    def __init__(self, out: BinaryIO, request: dict[str, Any]) -> None:
        self._out = out
        self._request = request
        self._frames: list[np.ndarray] = []
        self._positions: list[int] = []
        self._sent = time.monotonic()

    def add(self, position: int, frame: np.ndarray) -> None:
        if self._frames and (frame.shape, frame.dtype) != (self._frames[0].shape, self._frames[0].dtype):
            self.send()
        self._frames.append(frame)
        self._positions.append(position)
        if len(self._frames) * frame.nbytes >= BATCH or time.monotonic() - self._sent > HELD:
            self.send()

    def send(self) -> None:
        if not self._frames:
            return
        shape, kind = self._frames[0].shape, self._frames[0].dtype.str
        header = {"type": "frames", "indices": self._positions, "shape": shape, "dtype": kind}
        if self._request.get("stream"):  # however long the parent takes for what it has
            hold_alarm()
        send(self._out, header, *(frame.reshape(-1).view(np.uint8).data for frame in self._frames))
        if self._request.get("stream"):
            set_alarm(self._request)
        self._frames, self._positions, self._sent = [], [], time.monotonic()
