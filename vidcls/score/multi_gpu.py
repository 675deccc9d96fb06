"""Several models on several devices: one process each, fed and heard by this one, which lists and writes.

A process that dies, falls silent (it was stopped) or is stuck in its model (a GPU hangs) is replaced, and the clips it
had are given out once more; the others go on meanwhile.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from vidcls.errors import DeviceError, UsageError
from vidcls.score.device_process import serve
from vidcls.score.rows import Result
from vidcls.score.scorer import TICK, Scorer, put_until
from vidcls.score.setup import Setup
from vidcls.video.sources import Source

IN_HAND = 64  # clips that a process has at most, so that it never waits for us
RESTARTS = 3  # deaths in a row, without a result between them, after which a device is given up
SILENT_SECONDS = 60.0  # without a heartbeat, after which a process is taken for stopped
LOADING_SILENT_SECONDS = 300.0  # the same while it imports and loads, which may keep its threads from running
STUCK_SECONDS = 900.0  # in one forward pass, after which the device is taken for stuck
FRAMES = ("frames", "frames_spared")  # in figures where clips have as many views as they need
END_SECONDS = 10.0  # that processes have to end by themselves

Ready = tuple[dict[str, Any], tuple[str, ...]]  # settings and labels
Message = tuple[str, Any]
ENDED: Message = ("ended", None)


class _Link:
    """A pipe to a process, served by two threads: one that is stopped in mid-message blocks nobody else."""

    def __init__(self, connection: Connection, arrived: queue.SimpleQueue[tuple[_Link, Message]]) -> None:
        self._connection = connection
        self._arrived = arrived
        self._leaving: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for target in (self._receive, self._send):
            threading.Thread(target=target, name="vidcls-link", daemon=True).start()

    def send(self, content: Any) -> None:
        """Send clips, or None: there are no more."""
        self._leaving.put((content,))

    def close(self) -> None:
        """End both threads; the process has been ended, so that neither waits for it."""
        self._leaving.put(None)
        with contextlib.suppress(OSError):
            self._connection.close()

    def _receive(self) -> None:
        while True:
            try:
                self._arrived.put((self, self._connection.recv()))
            except Exception:  # it died, maybe in mid-message
                self._arrived.put((self, ENDED))
                return

    def _send(self) -> None:
        while (packed := self._leaving.get()) is not None:
            try:
                self._connection.send(packed[0])
            except (OSError, ValueError):  # it died: what it was given is given out again
                return


@dataclass
class _Member:
    """One process and what it was given."""

    device: str
    process: BaseProcess
    link: _Link
    ready: Ready | None = None
    given: dict[str, Source] = field(default_factory=dict)
    deaths: int = 0
    silent: float = 0.0  # seconds of this process's own time
    stats: dict[str, Any] = field(default_factory=dict)


class Fleet(Scorer):
    """Scores clips on several devices.

    Args:
        setup: What each process runs.
        devices: Where each runs its model; the same one may be named twice.

    Raises:
        VidclsError: A model cannot be loaded.
    """

    def __init__(self, setup: Setup, devices: Sequence[str]) -> None:
        super().__init__()
        self._setup = setup
        # Not fork: CUDA and the threads of this process would not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._arrived: queue.SimpleQueue[tuple[_Link, Message]] = queue.SimpleQueue()
        self._again: list[Source] = []
        self._looked = time.monotonic()
        self._members: list[_Member] = []
        try:
            self._members = [_Member(device, *self._start(device, len(devices))) for device in devices]
            while not all(member.ready for member in self._members):
                self._hear()
        except BaseException:
            self.close()
            raise

    def _start(self, device: str, processes: int) -> tuple[BaseProcess, _Link]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._setup, device, processes), name=f"vidcls {device}", daemon=True
        )
        process.start()
        theirs.close()
        return process, _Link(ours, self._arrived)

    def stats(self) -> dict[str, Any]:
        """Return what all processes measured together, as far as they have told."""
        found = [member.stats for member in self._members if member.stats]
        if not found:
            return {}
        total: dict[str, Any] = {
            name: sum(stats[name] for stats in found)
            for name in ("waited_seconds", "forward_seconds", "decode_seconds", "clips", "views", "workers")
        }
        total |= {name: sum(stats.get(name, 0) for stats in found) for name in FRAMES if name in found[0]}
        busy = total["waited_seconds"] + total["forward_seconds"]
        total["wait_share"] = round(total["waited_seconds"] / max(busy, 1e-9), 4)
        total["batch"] = max(stats["batch"] for stats in found)
        return total

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        ahead = _Ahead(items, len(self._members) * IN_HAND)
        arrived: list[Result] = []
        try:
            while True:
                self._hand_out(ahead)
                if ahead.ended and not self._again and not any(member.given for member in self._members):
                    break
                arrived += self._hear()
                while arrived:
                    yield arrived.pop()
                yield None
            self._finish()
        finally:
            ahead.stop()
            self._leftovers = arrived

    def _hand_out(self, ahead: _Ahead) -> None:
        for member in self._members:
            items: list[Source] = []
            while member.ready and len(member.given) < IN_HAND:
                item = self._again.pop() if self._again else ahead.next()
                if item is None:
                    break
                member.given[item.path] = item
                items.append(item)
            if items:
                member.link.send(items)

    def _hear(self) -> list[Result]:
        """Wait a moment for messages, take all that are there, and replace who has fallen silent."""
        results: list[Result] = []
        with contextlib.suppress(queue.Empty):
            link, message = self._arrived.get(timeout=TICK)
            while True:
                # Nobody listens any more to a process that has been replaced.
                for member in self._members:
                    if member.link is link:
                        results += self._take(member, *message)
                link, message = self._arrived.get_nowait()
        now = time.monotonic()
        # What passes while this process is itself stopped counts as little as one look.
        passed, self._looked = min(now - self._looked, 4 * TICK), now
        for member in self._members:
            member.silent += passed
            if member.silent > (SILENT_SECONDS if member.ready else LOADING_SILENT_SECONDS):
                self._replace(member, f"has not been heard of for {member.silent:.0f} s")
        return results

    def _take(self, member: _Member, word: str, content: Any) -> list[Result]:
        member.silent = 0.0
        if word == "error":
            raise content
        if word == "ready":
            self._welcome(member, content)
        elif word == "ended":
            self._replace(member, "died")
        elif word == "alive" and content > STUCK_SECONDS:
            self._replace(member, f"has been in one forward pass for {content:.0f} s")
        elif word == "results":
            results, member.stats = content
            member.deaths = 0
            return [result for result in results if member.given.pop(result.item.path, None) is not None]
        return []

    def _welcome(self, member: _Member, ready: Ready) -> None:
        member.ready = ready
        if not self._settings:
            self._settings, self._labels = ready
        elif ready[0] == self._settings:
            return
        elif member.deaths:
            raise UsageError("weights", "have changed while they were in use", "start the command again")
        else:
            raise UsageError("device", "these do not score alike (precision)", 'pass precision="fp32"')

    def _replace(self, member: _Member, why: str) -> None:
        """End a process and start another in its place; what it had is given out again."""
        member.process.kill()  # one that is stopped too
        member.process.join(5)
        member.deaths += 1
        if member.deaths > RESTARTS or (not self._settings and why == "died"):
            problem = f"the process of this device {why} (exit code {member.process.exitcode})"
            raise DeviceError(
                member.device, f"{problem}, {member.deaths} times in a row", "use fewer devices"
            )
        self._again += member.given.values()
        member.link.close()
        member.given, member.ready, member.silent = {}, None, 0.0
        member.process, member.link = self._start(member.device, len(self._members))

    def _finish(self) -> None:
        """Let all processes end by themselves, and hear their last figures."""
        waiting = {member.link: member for member in self._members}
        for link in waiting:
            link.send(None)
        deadline = time.monotonic() + END_SECONDS
        while waiting and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                link, (word, content) = self._arrived.get(timeout=TICK)
                if word == "results" and link in waiting:
                    waiting[link].stats = content[1]
                elif word == "ended":
                    waiting.pop(link, None)

    def close(self) -> None:
        """End all processes."""
        for member in self._members:
            member.link.send(None)
        for member in self._members:
            member.process.join(1)
            if member.process.is_alive():
                member.process.kill()
                member.process.join(5)
            member.link.close()


class _Ahead:
    """Takes clips from a list in a thread of its own: a slow disk or a pipe must not keep results waiting."""

    def __init__(self, items: Iterable[Source], size: int) -> None:
        self._queue: queue.Queue[Source | BaseException | None] = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        self._drained = False
        threading.Thread(target=self._fill, args=(items,), name="vidcls-list", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more."""
        return self._drained

    def next(self) -> Source | None:
        """Return a clip, or None if there is none now."""
        if self._drained:
            return None
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        self._drained = item is None
        return item

    def stop(self) -> None:
        self._stop.set()

    def _fill(self, items: Iterable[Source]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)  # for the thread that waits

    def _put(self, item: Source | BaseException | None) -> bool:
        return put_until(self._stop, self._queue, item)


def local_scorer(setup: Setup) -> Scorer:
    """Make what scores on this machine: one pipeline here, or a process for each of several devices."""
    devices = [name.strip() for name in str(setup.load.get("device", "auto")).split(",")]
    if not all(devices):
        raise UsageError("device", "a name is missing between commas", "use for example cuda:0,cuda:1")
    return setup.pipeline() if len(devices) == 1 else Fleet(setup, devices)
