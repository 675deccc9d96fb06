"""An iterator run ahead in a thread of its own, a bounded number of items."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
AHEAD = 3  # items that wait


@contextlib.contextmanager
def ahead(make: Callable[[], Iterator[T]], abort: Callable[[], None]) -> Iterator[Iterator[T]]:
    """Run an iterator in a thread of its own; use as a context manager.

    Args:
        make: Makes the iterator, in the thread.
        abort: Ends what the iterator waits for, where the items are not all taken.
    """
    found: queue.Queue[Any] = queue.Queue(AHEAD)
    ended = threading.Event()

    def put(item: Any) -> bool:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                found.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            items = make()
            try:
                for item in items:
                    if not put((item, None)):
                        return
            finally:
                getattr(items, "close", bool)()  # a generator ends in the thread that ran it
            put((None, None))
        except BaseException as error:
            put((None, error))

    def take() -> Iterator[T]:
        while True:
            item, error = found.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    thread = threading.Thread(target=work, name="vidcls-read", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        ended.set()
        if thread.is_alive():
            # It may be in the middle of a piece that nobody wants any more.
            thread.join(0.05)
            if thread.is_alive():
                abort()
            thread.join()
