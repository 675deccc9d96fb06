"""What is done already: a SQLite file beside the output. It survives being killed, and keeps a second process out.

Rows themselves are text in a file of their own (`row_file`); the journal holds, for each clip, where its row is there,
the clip's size and time of change when it was scored, and why it failed if it did. Text comes to the disk first, then
the journal's commit that counts it, so what the journal names is always there, and text beyond the recorded length
is of a commit that never was.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from vidcls.errors import OutputError, UsageError, printable, system_errors
from vidcls.score.database import DamagedJournalError, Database
from vidcls.video import object_store
from vidcls.video.sources import Source

State = tuple[int | None, int | None]  # size in bytes, time of change in ns

INT64 = range(-(1 << 63), 1 << 63)


class Status(Enum):
    """What is to be done with a clip that was listed."""

    NEW = "new"  # to be scored
    DONE = "done"  # has its row from an earlier run
    DUPLICATE = "duplicate"  # was listed before in this run


@dataclass(frozen=True)
class Claim:
    """The journal's answer for one clip; ``kind`` is why it failed in an earlier run."""

    status: Status
    kind: str | None = None


@dataclass(frozen=True)
class Entry:
    """One row that has come to the disk: its clip, why it failed, where its text is (bytes)."""

    path: str
    kind: str | None
    start: int
    length: int


def key_of(path: str) -> bytes:
    """Return 16 bytes that stand for a clip; ``./a//b.mp4`` and ``a/b.mp4`` are one."""
    if "://" not in path and ".." not in path:
        path = os.path.normpath(path)
    try:
        data = os.fsencode(path)
    except UnicodeEncodeError:  # a name that no file has, as a manifest may hold it
        data = path.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


def in_shard(path: str, shard: tuple[int, int]) -> bool:
    """Whether a clip belongs to part I of N; it does so for every order and number of inputs."""
    return shard[1] == 1 or int.from_bytes(key_of(path)[:8], "big") % shard[1] == shard[0] - 1


class Journal:
    """The journal of one output, locked for this process until it is closed. Safe to use from several threads.

    Args:
        path: The SQLite file.
        output: What it belongs to, for messages.

    Raises:
        OutputError: Another process has it, or it cannot be written.
    """

    def __init__(self, path: Path, output: str) -> None:
        self.path = path
        self._output = output
        self._lock = threading.RLock()
        self._open: dict[bytes, State] = {}  # given out, not scored yet
        self._taken: dict[bytes, State] = {}  # scored, not on the disk yet
        self._database = Database(path, output)
        try:
            self.run = (self.number("run") or 0) + 1
        except OutputError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the lock."""
        self._database.close()

    # Facts about the whole output

    def get(self, name: str) -> str | None:
        """Return a fact, or None."""
        found = self._database.query("SELECT value FROM meta WHERE name = ?", (name,))
        return str(found[0][0]) if found else None

    def number(self, name: str) -> int | None:
        """Return a fact that is a number, or None.

        Raises:
            DamagedJournalError: It is none.
        """
        text = self.get(name)
        try:
            return None if text is None else int(text)
        except ValueError:
            raise self._database.damaged(f"its {name} is not a number") from None

    def put(self, **facts: Any) -> None:
        """Note facts durably."""
        with self._database.transaction() as connection:
            self._put(connection, facts)

    def _put(self, connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", [(name, str(value)) for name, value in facts.items()]
        )

    def settings(self) -> dict[str, Any] | None:
        """Return the settings under which the rows were made; None for a new journal."""
        try:
            settings = json.loads(self.get("settings") or "null")
        except ValueError:
            raise self._database.damaged("its settings are not JSON") from None
        if settings is not None and not isinstance(settings, dict):
            raise self._database.damaged("its settings are not a record")
        return settings

    def check(self, settings: dict[str, Any]) -> None:
        """Hold this run's settings to those of the rows that are there.

        Raises:
            UsageError: They differ; it names in what.
        """
        earlier = self.settings()
        if earlier is None:
            return
        names = sorted(name for name in {*earlier, *settings} if earlier.get(name) != settings.get(name))
        if names:
            shown = "; ".join(
                f"{name} was {_brief(earlier, name)}, is {_brief(settings, name)}" for name in names
            )
            raise UsageError(
                self._output,
                f"was written with different settings ({shown})",
                "choose another output, or pass overwrite=True",
            )

    def is_replacement_under_way(self, settings: dict[str, Any]) -> bool:
        """Whether an output was begun with ``reset`` under the same settings and is not finished yet."""
        unfinished = self.get("replaces") is not None and self.get("finished") == "0"
        try:
            return unfinished and self.settings() == settings
        except DamagedJournalError:
            return False

    def reset(self) -> None:
        """Forget everything, so that a new output can replace the one that is there."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM rows")
            connection.execute("DELETE FROM meta")
            self._put(connection, {"begun": 1, "replaces": 1})
        self.run = 1

    # Clips

    def claim(self, item: Source, retry_failed: bool = False) -> Claim:
        """Say whether a clip is to be scored, and if so take it: the same path is not given out again.

        A clip whose file has changed since is scored anew. One whose file is gone keeps the row it has.

        Args:
            item: The clip.
            retry_failed: Score clips anew that failed in an earlier run.
        """
        key = key_of(item.path)
        with self._lock:
            if key in self._open or key in self._taken:
                return Claim(Status.DUPLICATE)
            found = self._database.query("SELECT run, kind, size, changed FROM rows WHERE key = ?", (key,))
        if found and found[0][0] == self.run:
            return Claim(Status.DUPLICATE)
        state = (None, None) if item.error is not None else _state(item)
        if found:
            kind = found[0][1]
            unchanged = state == found[0][2:] or state[0] is None
            if unchanged and not (retry_failed and kind is not None):
                return Claim(Status.DONE, kind)
        with self._lock:
            self._open[key] = state
        return Claim(Status.NEW)

    def commit(self, entries: Iterable[Entry], length: int) -> None:
        """Note rows whose text is on the disk, which is ``length`` bytes long now."""
        rows = []
        for entry in entries:
            key = key_of(entry.path)
            rows.append((key, self.run, entry.kind, *self._taken[key], entry.start, entry.length))
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._put(connection, {"length": length, "run": self.run})
        with self._lock:
            for row in rows:
                del self._taken[row[0]]

    def accepts(self, path: str) -> bool:
        """Whether a result is welcome: its clip was claimed in this run and has none yet. It is asked only once."""
        key = key_of(path)
        with self._lock:
            if key not in self._open:
                return False
            self._taken[key] = self._open.pop(key)
            return True

    def counts(self) -> tuple[int, dict[str, int]]:
        """Return how many rows there are, and how many failed in which way."""
        total = self._database.query("SELECT COUNT(*) FROM rows")[0][0]
        failed = self._database.query(
            "SELECT kind, COUNT(*) FROM rows WHERE kind IS NOT NULL GROUP BY kind ORDER BY COUNT(*) DESC"
        )
        return total, dict(failed)

    # Where the rows are

    def live_bytes(self) -> int:
        """Return how long the text of all rows is that no later row has replaced."""
        return int(self._database.query("SELECT COALESCE(SUM(length), 0) FROM rows")[0][0])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield start and length (bytes) of each row's text, in the order of the file."""
        yield from self._database.stream("SELECT start, length FROM rows ORDER BY start")

    def packed(self, header: int, length: int) -> None:
        """Note that the text now has all rows in their order without gaps, after ``header`` bytes."""
        with self._database.transaction() as connection:
            connection.execute(
                "CREATE TEMP TABLE moved (key BLOB PRIMARY KEY, start INTEGER NOT NULL) WITHOUT ROWID"
            )
            connection.execute(
                "INSERT INTO moved SELECT key, ? + SUM(length) OVER (ORDER BY start) - length FROM rows",
                (header,),
            )
            connection.execute("UPDATE rows SET start = (SELECT start FROM moved WHERE moved.key = rows.key)")
            connection.execute("DROP TABLE moved")
            connection.execute("DELETE FROM meta WHERE name = 'packing'")
            self._put(connection, {"length": length})


def open_journal(path: Path, output: str, *, overwrite: bool) -> Journal:
    """Open an output's journal; with ``overwrite`` one that cannot be used is replaced.

    Raises:
        DamagedJournalError: It cannot be used.
        OutputError: Another process has it, or it cannot be written.
    """
    try:
        return Journal(path, output)
    except DamagedJournalError:
        if not overwrite:
            raise
    for suffix in ("", "-wal", "-shm"):
        with system_errors(OutputError, printable(str(path)), "cannot be replaced", "remove it yourself"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    return Journal(path, output)


def _state(item: Source) -> State:
    """Return a clip's size and time of change, as SQLite can hold them; nothing of a clip may end the run here."""
    try:
        size, changed = object_store.state(item.location)
    except Exception:  # reading the clip says what is wrong with it
        return None, None
    return _storable(size), _storable(changed)


def _storable(number: int | None) -> int | None:
    """Return a number as SQLite can hold it: a file may be dated in the year 3000, or before 1678."""
    return number if number is None or number in INT64 else number % (1 << 63)


def _brief(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name, "not set")
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 48 else str(value)
