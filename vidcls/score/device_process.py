"""One of several processes that score, each with a model on a device of its own."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from vidcls.errors import VidclsError
from vidcls.score.setup import Setup
from vidcls.video.sources import Source

if TYPE_CHECKING:
    from vidcls.score.pipeline import Pipeline

BEAT_SECONDS = 1.0


class _Voice:
    """What this process says to its parent, from several threads: messages, and a heartbeat between them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.pipeline: Pipeline | None = None
        threading.Thread(target=self._beat, name="vidcls-heartbeat", daemon=True).start()

    def say(self, word: str, content: Any) -> None:
        with self._lock:
            self._connection.send((word, content))

    def end(self) -> None:
        self._ended.set()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            busy = 0.0 if self.pipeline is None else self.pipeline.measured.busy_seconds()
            try:
                self.say("alive", busy)
            except OSError:  # the parent has gone, and the main thread will notice
                return


def serve(connection: Connection, setup: Setup, device: str, processes: int) -> None:
    """Score what comes over ``connection`` until the other side closes it; the main function of a process.

    Says ``("ready", (settings, labels))``, then ``("results", ([Result], stats))`` as they come, or
    ``("error", error)``; and ``("alive", SECONDS)`` once a second, with how long the present forward pass has taken.

    Args:
        connection: Clips come in lists; None ends them.
        setup: What to run.
        device: Where the model runs.
        processes: How many of these share the machine.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both reach the whole group, and ending in order is the parent's business: it closes the connection.
        signal.signal(number, signal.SIG_IGN)
    voice = _Voice(connection)
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        try:
            with contextlib.closing(setup.pipeline(device, processes)) as pipeline:
                voice.pipeline = pipeline
                voice.say("ready", (pipeline.settings(), pipeline.labels()))
                for result in pipeline.run(_received(connection)):
                    if result is not None:
                        voice.say("results", ([result], pipeline.stats()))
        except VidclsError as error:
            voice.say("error", error)
    voice.end()


def _received(connection: Connection) -> Iterator[Source]:
    while True:
        try:
            items = connection.recv()
        except (EOFError, OSError):
            return
        if items is None:
            return
        yield from items
