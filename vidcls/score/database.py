"""The SQLite file under a journal: locked for one process, checked for whose it is, its errors in plain words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vidcls.errors import OutputError, printable

CACHE_KIB = 65536  # of SQLite's pages in memory: a million keys fit
APPLICATION = 0x76636C73  # what SQLite's header says of whose file it is: "vcls"
VERSION = 1  # of the tables
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    key BLOB PRIMARY KEY, run INTEGER NOT NULL, kind TEXT, size INTEGER, changed INTEGER,
    start INTEGER NOT NULL, length INTEGER NOT NULL
) WITHOUT ROWID;
"""


class DamagedJournalError(OutputError):
    """A journal that is damaged, another program's, or another version's: an output cannot go on with it."""


class Database:
    """A SQLite file, locked for this process until it is closed. Safe to use from several threads.

    Args:
        path: The file; it is made where there is none.
        output: What it belongs to, for messages.

    Raises:
        DamagedJournalError: It is damaged, another program's, or of another version.
        OutputError: Another process has it, or it cannot be written.
    """

    def __init__(self, path: Path, output: str) -> None:
        self.path = path
        self._output = output
        self._lock = threading.RLock()
        self._connection = self._connect()
        try:
            self._check_kind()
        except OutputError:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        if not self.path.parent.is_dir():
            folder = printable(str(self.path.parent))
            raise OutputError(self._output, f"the folder {folder} does not exist", "create it first")
        try:
            connection = sqlite3.connect(
                self.path, timeout=0.2, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except sqlite3.Error as error:
            raise self.failure(error) from None
        try:
            # The lock is the system's, on the file itself: it ends with this process, however that ends.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute("BEGIN EXCLUSIVE")
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.execute(f"PRAGMA application_id={APPLICATION}")
                connection.execute(f"PRAGMA user_version={VERSION}")
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _quietly(connection.close)
            raise self.failure(error) from None
        return connection

    def _check_kind(self) -> None:
        """Refuse what is not a whole journal of this version."""
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if application != APPLICATION:
            raise self.damaged("it is another program's database")
        if version != VERSION:
            raise self.damaged(f"its tables are of version {version}, not {VERSION}")
        self.query("SELECT name, value FROM meta LIMIT 1")
        self.query("SELECT key, run, kind, size, changed, start, length FROM rows LIMIT 1")
        found = self._pragma("quick_check(1)")
        if found != "ok":
            raise self.damaged(str(found))

    def _pragma(self, name: str) -> Any:
        return self.query(f"PRAGMA {name}")[0][0]

    def close(self) -> None:
        """Let go of the lock."""
        _quietly(self._connection.close)

    def query(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return all rows of a query."""
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self.failure(error) from None

    def stream(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one by one."""
        with self._lock:
            try:
                yield from self._connection.execute(statement)
            except sqlite3.Error as error:
                raise self.failure(error) from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on the disk when it ends.

        Raises:
            OutputError: The disk is full, or another error of SQLite.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self.failure(error) from None
            finally:
                if self._connection.in_transaction:
                    _quietly(self._connection.execute, "ROLLBACK")

    def failure(self, error: sqlite3.Error) -> OutputError:
        """Return the error that SQLite's means to a person."""
        text = str(error)
        name = printable(str(self.path))
        if "locked" in text:
            remedy = "wait for that one, or choose another output"
            return OutputError(self._output, "another process is writing it", remedy)
        if any(word in text for word in ("not a database", "malformed", "no such table", "no such column")):
            return self.damaged(text)
        folder = self.path.parent
        if "readonly" in text or ("unable to open" in text and not os.access(folder, os.W_OK)):
            place = printable(str(folder.resolve()))
            return OutputError(name, f"the folder {place} is read-only", "choose another output")
        return OutputError(name, f"cannot be written ({text})", "free some space or choose another place")

    def damaged(self, how: str) -> DamagedJournalError:
        """Return the error of a file that no output can go on with."""
        problem = f"is not a journal of vidcls, or is damaged ({' '.join(how.split())[:200]})"
        remedy = "move it and its output away, or pass overwrite=True to score all anew"
        return DamagedJournalError(printable(str(self.path)), problem, remedy)


def _quietly(call: Callable[..., Any], *values: Any) -> None:
    """Do what follows another error, of which there is more to say."""
    with contextlib.suppress(sqlite3.Error):
        call(*values)
