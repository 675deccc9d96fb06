"""The decode worker as its parent sees it: start, ask, watch, kill."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from vidcls.errors import DependencyError, VideoError
from vidcls.video.worker import HEADER, LENGTH

START_TIMEOUT = 60.0  # seconds until a new worker must have answered
PIPE = 1 << 20  # bytes that the worker may be ahead; what systems let anybody have
_POLL = 0.05  # seconds between looks at a busy worker's memory
_KILLED = -9  # return code after SIGKILL, which no fault of a file's brings about

T = TypeVar("T")
Answer = tuple[dict[str, Any], bytearray]


class AnsweredError(Exception):
    """The worker answered with an error, and goes on."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class KilledError(VideoError):
    """The worker was killed by somebody else, such as a system that is short of memory."""


class Worker:
    """The worker process as seen from here."""

    def __init__(self, entry: str, max_memory: int) -> None:
        posix = os.name == "posix"
        alive: int | None = None
        self._held: int | None = None
        if posix:
            alive, self._held = os.pipe()
        # Not -m: that would put the current folder, which may be a stranger's, before the installed modules.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {entry} import main; main({alive!r}, {max_memory!r})"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=PIPE,
            stderr=self._errors,
            pass_fds=() if alive is None else (alive,),
            # Its own session: Ctrl-C is the parent's business.
            start_new_session=posix,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        if alive is not None:
            os.close(alive)
        self._answers: queue.Queue[Answer | None] = queue.Queue(maxsize=4)
        self._closing = threading.Event()
        self._aborted = False
        self._ready = False
        self._thread = threading.Thread(target=self._receive, args=(self._process.stdout,), daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self,
        name: str,
        request: dict[str, Any],
        take: Callable[[dict[str, Any], bytearray], T | None],
        timeout: float,
        max_memory: int,
    ) -> T:
        """One request and its answers. On any exception but `AnsweredError` the worker must be killed."""
        self._send(name, request, timeout, max_memory)
        deadline = time.monotonic() + timeout
        while True:
            result = take(*self._next(name, deadline, timeout, max_memory))
            if result is not None:
                return result

    def stream(self, name: str, request: dict[str, Any], timeout: float, max_memory: int) -> Iterator[Answer]:
        """Yields the answers to one request as they are taken; ``timeout`` is for each of them.

        As in `ask`, the worker must be killed on any exception but `AnsweredError`, and where not all are taken.
        """
        self._send(name, {**request, "stream": True}, timeout, max_memory)
        while True:
            yield self._next(name, time.monotonic() + timeout, timeout, max_memory)

    def _send(self, name: str, request: dict[str, Any], timeout: float, max_memory: int) -> None:
        if not self._ready:
            # The worker's own start does not count against the clip.
            self._next(name, time.monotonic() + START_TIMEOUT, START_TIMEOUT, max_memory)
            self._ready = True
        data = pickle.dumps({**request, "timeout": timeout}, protocol=5)
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: _next says how
            stdin.write(LENGTH.pack(len(data)) + data)
            stdin.flush()

    def _next(self, name: str, deadline: float, timeout: float, max_memory: int) -> Answer:
        while True:
            if self._resident() > max_memory:
                problem = f"decoding it needs more than {max_memory / 2**30:.1f} GiB of memory"
                raise VideoError(name, problem, "scale it down, or allow more memory", kind="memory")
            if time.monotonic() > deadline:
                problem = f"was not decoded within {timeout:g} s"
                hint = "the file may be damaged; or allow more time"
                raise VideoError(name, problem, hint, kind="timeout")
            try:
                answer = self._answers.get(timeout=_POLL)
            except queue.Empty:
                continue
            if answer is None:
                raise self._crash(name)
            return self._checked(name, *answer)

    def _checked(self, name: str, header: dict[str, Any], body: bytearray) -> Answer:
        if header["type"] == "error":
            if header["kind"] == DependencyError.kind:
                raise AnsweredError(DependencyError("decord", header["problem"], header["remedy"]))
            raise AnsweredError(VideoError(name, header["problem"], header["remedy"], kind=header["kind"]))
        if header["type"] == "bug":
            raise RuntimeError(f"{name}: the decode worker failed\n{header['text']}")
        return header, body

    def _crash(self, name: str) -> VideoError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if code == _KILLED and not self._aborted:
            problem = f"its decoder was killed twice from outside ({how}), perhaps for lack of memory"
            return KilledError(name, problem, "free memory or use fewer workers", kind="crashed")
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        detail = f": {said[-1][:200]}" if said else ""
        return VideoError(
            name, f"the decoder crashed on it ({how}{detail})", "the file may be damaged", kind="crashed"
        )

    def _resident(self) -> int:
        """Bytes that the worker holds in memory; 0 where that cannot be told."""
        try:
            with open(f"/proc/{self._process.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return _resident_by_psutil(self._process.pid)

    def _receive(self, stream: BinaryIO) -> None:
        with contextlib.suppress(OSError, ValueError):  # the pipe was closed under us by kill()
            while len(head := stream.read(HEADER.size)) == HEADER.size:
                lengths = HEADER.unpack(head)
                header = json.loads(stream.read(lengths[0]))
                body = bytearray(lengths[1])
                view = memoryview(body)
                got = 0
                while got < len(body) and (step := stream.readinto(view[got:])):  # type: ignore[attr-defined]
                    got += step
                if got < len(body):
                    break
                self._put((header, body))
        self._put(None)

    def _put(self, answer: Answer | None) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._answers.put(answer, timeout=0.1)
                return

    def abort(self) -> None:
        """Ends the process from another thread than the one that asks; that one then cleans up."""
        self._aborted = True
        self._process.kill()

    def kill(self) -> None:
        """Ends the process, whatever it is doing, and frees all that belongs to it."""
        self._closing.set()
        self._process.kill()
        self._process.wait()
        # The thread sees the end of the pipe now; its stream must not be closed while it reads.
        self._thread.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None
        self._errors.close()

    def abandon(self) -> None:
        """In a child process after a fork: lets go of the worker, which stays the parent's."""
        null = os.open(os.devnull, os.O_RDWR)
        held = [] if self._held is None else [self._held]
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            held.append(stream.fileno())
        for number in held:
            os.dup2(null, number, inheritable=False)  # what buffers still hold must not reach the worker
        os.close(null)
        self._process.returncode = 0  # not this process's child: never to be waited for


def _resident_by_psutil(pid: int) -> int:
    try:
        import psutil

        return int(psutil.Process(pid).memory_info().rss)
    except ImportError:
        return 0
    except psutil.Error:
        return 0
