"""The outputs of a job array's parts → one output."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcls.errors import UsageError, printable
from vidcls.output.base import Format
from vidcls.output.formats import SCORED, RowKind, check_wide, complete_format, kind_of
from vidcls.output.sinks import check_absent
from vidcls.score.database import APPLICATION, VERSION
from vidcls.score.resume_log import key_of
from vidcls.score.row_file import write_whole

SHARD = "shard"


@dataclass(frozen=True)
class Part:
    """One part: its rows, and the settings under which they were made.

    Attributes:
        path: Its file.
        settings: As the journal has them, or a Parquet file itself.
        finished: Whether all its clips have their rows; None where only the journal could tell and there is none.
        length: Bytes of the file that the journal vouches for; None as above.
    """

    path: Path
    settings: dict[str, Any]
    finished: bool | None
    length: int | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield its rows."""
        return _format(self.path, kind_of(self.settings)).read(str(self.path), self.length)[1]


def merge(
    output: str,
    paths: Sequence[str],
    *,
    format: str | None = None,
    wide: bool = False,
    partial: bool = False,
    overwrite: bool = False,
) -> int:
    """Join the parts into one file and return how many rows it has.

    A clip that is in several parts keeps its first row without an error, and of one part its latest. Memory stays flat.

    Args:
        output: A path; its suffix tells the format, whatever the parts are.
        paths: JSON lines or Parquet files, each with its journal beside it if that is there.
        format: A key of ``FORMATS``; None goes by the suffix of ``output``.
        wide: One line for each clip in CSV and TSV, not for each prediction.
        partial: Join what there is, though parts are missing or not finished.
        overwrite: Replace ``output``.

    Raises:
        UsageError: The parts do not belong together, some are missing, or ``output`` exists.
        OutputError: It cannot be written.
    """
    target = Path(output)
    check_absent(target, overwrite)
    if target.resolve() in {Path(path).resolve() for path in paths}:
        raise UsageError(printable(output), "is one of the parts", "choose another output")
    parts = [open_part(path) for path in paths]
    settings = _common(parts)
    kind = kind_of(settings)
    name = complete_format(output, format, kind)
    check_wide(name, wide)
    made = kind.formats[name]
    made()  # what it needs is installed, or this says so
    if not partial:
        _check_complete(parts)
    with _chosen(parts) as choice:
        count = choice.count()
        write_whole(target, made(kind.layout(settings, wide)), choice.rows())
    return count


def open_part(path: str) -> Part:
    """Find out what a part is.

    Raises:
        UsageError: It is not there, is of a form that cannot be read back, or its settings are unknown.
    """
    place = Path(path)
    format = _format(place)
    if not format.keeps_types:
        problem = f"{place.suffix[1:].upper()} does not keep types"
        raise UsageError(printable(path), problem, "score the parts to .jsonl or .parquet, then merge them")
    if not place.is_file():
        raise UsageError(path, "no such file", "check that this part has been scored to its end")
    journal = Path(f"{path}.journal")
    facts = journal_facts(journal) if journal.exists() else {}
    settings = format.read(path)[0] or facts.get("settings")
    if settings is None:
        problem = "its journal is missing, and with it its settings"
        raise UsageError(printable(path), problem, f"put {printable(journal.name)} beside it")
    try:
        kind_of(settings).layout(settings, False)
    except (KeyError, TypeError):
        raise UsageError(printable(path), "was not written by vidcls score", "name what it wrote") from None
    return Part(place, settings, facts.get("finished"), facts.get("length") if format.appendable else None)


def journal_facts(journal: Path) -> dict[str, Any]:
    """Read what a part's journal says of it: its ``settings``, ``finished``, ``length``."""
    name = printable(str(journal))
    try:
        with (
            _readable(journal) as place,
            contextlib.closing(sqlite3.connect(place, timeout=0.2)) as connection,
        ):
            kind = [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version")
            ]
            if kind != [APPLICATION, VERSION]:
                raise ValueError("it is another program's, or of another version")
            found = dict(connection.execute("SELECT name, value FROM meta"))
        settings = json.loads(found["settings"])
        if not isinstance(settings, dict):
            raise ValueError("its settings are no mapping")
        kind_of(settings).layout(settings, False)  # it is what one needs to know of rows
        return {
            "settings": settings,
            "finished": found.get("finished") == "1",
            "length": int(found["length"]),
        }
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
        if "locked" in str(error):
            raise UsageError(name, "this part is still being scored", "wait for it") from None
        problem = f"is not a journal of vidcls, or is damaged ({error})"
        raise UsageError(name, problem, "score that part again with overwrite=True") from None


@contextlib.contextmanager
def _readable(journal: Path) -> Iterator[Path]:
    """Give a journal that SQLite can open: it writes beside what it reads, which read-only media do not allow."""
    if os.access(journal.parent, os.W_OK) and os.access(journal, os.W_OK):
        yield journal
        return
    with tempfile.TemporaryDirectory(prefix="vidcls-merge-") as folder:
        for suffix in ("", "-wal"):  # what a killed process had committed may be in the second one alone
            if Path(f"{journal}{suffix}").exists():
                shutil.copyfile(f"{journal}{suffix}", Path(folder) / f"journal{suffix}")
        yield Path(folder) / "journal"


def _common(parts: list[Part]) -> dict[str, Any]:
    """Return the settings of all parts, which must be the same but for the part's number."""
    first = parts[0]
    for part in parts[1:]:
        names = {*first.settings, *part.settings} - {SHARD}
        wrong = sorted(name for name in names if first.settings.get(name) != part.settings.get(name))
        if wrong:
            shown = ", ".join(f"{n} {part.settings.get(n)} not {first.settings.get(n)}" for n in wrong)
            raise UsageError(
                printable(str(part.path)),
                f"was scored with different settings than {printable(str(first.path))} ({shown})",
                "score all parts alike",
            )
    return {**first.settings, SHARD: "1/1"}


def _check_complete(parts: list[Part]) -> None:
    """Refuse parts that are not finished, and a set that lacks some."""
    for part in parts:
        if part.finished is False:
            raise UsageError(
                printable(str(part.path)), "is not finished", "run its command again, or pass partial=True"
            )
    numbers = [part.settings.get(SHARD, "1/1").split("/") for part in parts]
    if len({total for _, total in numbers}) > 1:
        raise UsageError("parts", "are of sets of different size", "score all with the same N in shard=I/N")
    total = int(numbers[0][1])
    missing = sorted({*range(1, total + 1)} - {int(number) for number, _ in numbers})
    if missing:
        shown = ", ".join(f"{number}/{total}" for number in missing[:8]) + (" …" if len(missing) > 8 else "")
        raise UsageError("parts", f"some are missing: {shown}", "name them too, or pass partial=True")


class _Choice:
    """Which part's row counts for each clip, in a table on the disk."""

    def __init__(self, parts: list[Part], place: str) -> None:
        self._parts = parts
        self._table = sqlite3.connect(place, isolation_level=None)
        self._table.execute("PRAGMA journal_mode=OFF")
        self._table.execute("PRAGMA synchronous=OFF")
        self._table.execute(
            "CREATE TABLE chosen (key BLOB PRIMARY KEY, part INTEGER, number INTEGER, failed INTEGER) WITHOUT ROWID"
        )
        self._table.execute("BEGIN")
        for index, part in enumerate(parts):
            for number, row in enumerate(part.rows()):
                failed = row.get("error") is not None
                self._table.execute(
                    "INSERT INTO chosen VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET part = excluded.part, "
                    "number = excluded.number, failed = excluded.failed "
                    "WHERE failed > excluded.failed OR part = excluded.part",
                    (key_of(row["path"]), index, number, failed),
                )
        self._table.execute("COMMIT")

    def count(self) -> int:
        return int(self._table.execute("SELECT COUNT(*) FROM chosen").fetchone()[0])

    def rows(self) -> Iterator[dict[str, Any]]:
        for index, part in enumerate(self._parts):
            for number, row in enumerate(part.rows()):
                found = self._table.execute(
                    "SELECT part, number FROM chosen WHERE key = ?", (key_of(row["path"]),)
                ).fetchone()
                if found == (index, number):
                    yield row

    def close(self) -> None:
        self._table.close()


@contextlib.contextmanager
def _chosen(parts: list[Part]) -> Iterator[_Choice]:
    with tempfile.TemporaryDirectory(prefix="vidcls-merge-") as folder:
        choice = _Choice(parts, f"{folder}/chosen")
        try:
            yield choice
        finally:
            choice.close()


def _format(path: Path, kind: RowKind = SCORED) -> type[Format]:
    """Return the format of a part: by its suffix, else by its first bytes."""
    if path.suffix or not path.is_file():
        return kind.formats[complete_format(str(path), kind=kind)]
    with path.open("rb") as file:
        return kind.formats["parquet" if file.read(4) == b"PAR1" else "jsonl"]
