"""Several models on several devices: one process each, fed and heard by this one, which lists and writes.

A process that dies without a word is started again, and the clips it had are given out once more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from vidcls.errors import DeviceError, UsageError, VidclsError
from vidcls.score.rows import Result
from vidcls.score.setup import Setup
from vidcls.video.sources import Source

if TYPE_CHECKING:
    from vidcls.score.pipeline import Scorer

TICK = 0.25  # seconds between looks at Ctrl-C
IN_HAND = 64  # clips that a process has at most, so that it never waits for us
RESTARTS = 3  # deaths in a row, without a result between them, after which a device is given up


@dataclass
class _Member:
    """One process and what it was given."""

    device: str
    process: BaseProcess
    connection: Connection
    given: dict[str, Source] = field(default_factory=dict)
    deaths: int = 0
    told_end: bool = False
    stats: dict[str, Any] = field(default_factory=dict)


class Fleet:
    """Scores clips on several devices; a ``Scorer``.

    Args:
        setup: What each process runs.
        devices: Where each runs its model; the same one may be named twice.

    Raises:
        VidclsError: A model cannot be loaded.
    """

    def __init__(self, setup: Setup, devices: Sequence[str]) -> None:
        self._setup = setup
        # Not fork: CUDA and the threads of this process would not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._members = [self._start(device, len(devices)) for device in devices]
        self._leftovers: list[Result] = []
        try:
            found = [self._first_word(member) for member in self._members]
        except BaseException:
            self.close()
            raise
        self._settings, self._labels = found[0]
        if any(settings != self._settings for settings, _ in found[1:]):
            self.close()
            raise UsageError(
                "--device", "these devices do not score alike (precision)", "pass --precision fp32"
            )

    def _start(self, device: str, processes: int) -> _Member:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._setup, device, processes), name=f"vidcls {device}", daemon=True
        )
        process.start()
        theirs.close()
        return _Member(device, process, ours)

    def _first_word(self, member: _Member) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Wait for a process to be ready → its settings and labels."""
        try:
            word, content = member.connection.recv()
        except EOFError:
            raise _died(member) from None
        if word == "error":
            raise content
        ready: tuple[dict[str, Any], tuple[str, ...]] = content
        return ready

    def settings(self) -> dict[str, Any]:
        """Return all that the scores depend on."""
        return self._settings

    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return self._labels

    def leftovers(self) -> list[Result]:
        """Return what had arrived but not been handed out when ``run`` was closed."""
        return self._leftovers

    def stats(self) -> dict[str, Any]:
        """Return what all processes measured together, as far as they have told."""
        found = [member.stats for member in self._members if member.stats]
        if not found:
            return {}
        total: dict[str, Any] = {
            name: sum(stats[name] for stats in found)
            for name in ("waited_seconds", "forward_seconds", "decode_seconds", "clips", "views", "workers")
        }
        busy = total["waited_seconds"] + total["forward_seconds"]
        total["wait_share"] = round(total["waited_seconds"] / max(busy, 1e-9), 4)
        total["batch"] = max(stats["batch"] for stats in found)
        return total

    def run(self, items: Iterable[Source]) -> Iterator[Result | None]:
        """Score clips; see ``Scorer``.

        Raises:
            VidclsError: A model or a machine is not well.
        """
        ahead = _Ahead(items, len(self._members) * IN_HAND)
        arrived: list[Result] = []
        try:
            while True:
                self._hand_out(ahead)
                if ahead.ended and not any(member.given for member in self._members):
                    break
                connections: list[Any] = [member.connection for member in self._members]
                for ready in wait(connections, TICK):
                    member = next(m for m in self._members if m.connection is ready)
                    arrived += self._hear(member, ahead)
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
            while len(member.given) < IN_HAND and (item := ahead.next()) is not None:
                member.given[item.path] = item
                items.append(item)
            if items:
                with contextlib.suppress(OSError):  # it died: `_hear` takes them back
                    member.connection.send(items)

    def _hear(self, member: _Member, ahead: _Ahead) -> list[Result]:
        try:
            word, content = member.connection.recv()
        except (EOFError, OSError):
            self._revive(member, ahead)
            return []
        if word == "error":
            raise content
        results, member.stats = content
        member.deaths = 0
        return [result for result in results if member.given.pop(result.item.path, None) is not None]

    def _revive(self, member: _Member, ahead: _Ahead) -> None:
        member.deaths += 1
        if member.deaths > RESTARTS:
            raise _died(member)
        ahead.give_back(member.given.values())
        member.connection.close()
        member.process.join()
        fresh = self._start(member.device, len(self._members))
        member.process, member.connection, member.given = fresh.process, fresh.connection, {}
        if self._first_word(member)[0] != self._settings:
            raise UsageError("weights", "have changed while they were in use", "start the command again")

    def _finish(self) -> None:
        """Let all processes end by themselves, and hear their last figures."""
        for member in self._members:
            with contextlib.suppress(OSError):
                member.connection.send(None)
        for member in self._members:
            with contextlib.suppress(EOFError, OSError):
                while member.connection.poll(10):
                    word, content = member.connection.recv()
                    if word == "results":
                        member.stats = content[1]

    def close(self) -> None:
        """End all processes."""
        for member in self._members:
            member.connection.close()
        for member in self._members:
            member.process.join(1)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()


class _Ahead:
    """Takes clips from a list in a thread of its own: a slow disk or a pipe must not keep results waiting."""

    def __init__(self, items: Iterable[Source], size: int) -> None:
        self._queue: queue.Queue[Source | BaseException | None] = queue.Queue(maxsize=size)
        self._again: list[Source] = []
        self._stop = threading.Event()
        self._drained = False
        threading.Thread(target=self._fill, args=(items,), name="vidcls-list", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to give out."""
        return self._drained and not self._again

    def next(self) -> Source | None:
        """Return a clip, or None if there is none now."""
        if self._again:
            return self._again.pop()
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

    def give_back(self, items: Iterable[Source]) -> None:
        self._again += items

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
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=TICK)
                return True
            except queue.Full:
                continue
        return False


def serve(connection: Connection, setup: Setup, device: str, processes: int) -> None:
    """Score what comes over ``connection`` until the other side closes it; the main function of a process.

    Sends ``("ready", (settings, labels))``, then ``("results", ([Result], stats))`` as they come, or
    ``("error", error)``.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both reach the whole group, and ending in order is the parent's business: it closes the connection.
        signal.signal(number, signal.SIG_IGN)
    try:
        pipeline = setup.pipeline(device, processes)
    except VidclsError as error:
        connection.send(("error", error))
        return
    with contextlib.suppress(EOFError, OSError), contextlib.closing(pipeline):
        connection.send(("ready", (pipeline.settings(), pipeline.labels())))
        try:
            for result in pipeline.run(_received(connection)):
                if result is not None:
                    connection.send(("results", ([result], pipeline.stats())))
        except VidclsError as error:
            connection.send(("error", error))


def _received(connection: Connection) -> Iterator[Source]:
    while True:
        try:
            items = connection.recv()
        except (EOFError, OSError):
            return
        if items is None:
            return
        yield from items


def _died(member: _Member) -> DeviceError:
    member.process.join(5)
    code = member.process.exitcode
    return DeviceError(
        member.device,
        f"the process of this device died {member.deaths} times (exit code {code})",
        "use fewer devices",
    )


def local_scorer(setup: Setup) -> Scorer:
    """Make what scores on this machine: one pipeline here, or a process for each of several devices.

    Raises:
        VidclsError: A model cannot be loaded.
    """
    devices = [name.strip() for name in str(setup.load.get("device", "auto")).split(",")]
    if not all(devices):
        raise UsageError("--device", "a name is missing between commas", "use for example cuda:0,cuda:1")
    return setup.pipeline() if len(devices) == 1 else Fleet(setup, devices)
