"""Names of classes: one per line of a text file, in the order of their ids. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vidcls.errors import ConfigError, nearest

MAX_BYTES = 16 * 1024**2
MAX_LABELS = 1_000_000
MAX_LENGTH = 500
"""Bounds for a stranger's file: bytes in all, lines, characters of one label."""

_FOLDER = Path(__file__).parent


def known_lists() -> list[str]:
    """Return the names of the lists that ship with vidcls."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


def load_labels(name_or_path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a list of labels.

    Args:
        name_or_path: Name of a list that ships with vidcls, such as ``kinetics400``, or a UTF-8 text file with one
            label per line; where a number before each counts them, from 0 or 1, it is left out.

    Returns:
        The labels; the position is the class.

    Raises:
        ConfigError: There is no such list or file, or it is not a list of distinct, non-empty labels.
    """
    name = os.fspath(name_or_path)
    path = _FOLDER / f"{name}.txt"
    if name not in known_lists():
        path = Path(name)
        # A bare word that is not a file was meant as the name of a list.
        if not path.exists() and path.name == name and not path.suffix:
            lists = ", ".join(known_lists())
            raise ConfigError(
                name, f"no such list of labels{nearest(name, known_lists())}", f"known are {lists}"
            )
    labels = _without_numbers(_lines(_read(path), str(path)))
    _check_distinct(labels, str(path))
    return labels


def _without_numbers(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of ``classInd.txt`` and the like, whose lines have a number in front that counts them.

    Such are ``1 ApplyEyeMakeup`` (UCF-101) and ``0,archery`` below ``id,name``, from 0 or from 1 on.
    """
    rows = [re.fullmatch(r"([0-9]{1,7})(?:\s*[,;\t]\s*|\s+)(\S.*)", line) for line in lines]
    first = 1 if re.fullmatch(r"(?i)(id|index|label_id|class_id)\s*[,;\t]\s*\w+", lines[0]) else 0
    found = [row for row in rows[first:] if row is not None]
    if len(found) < 2 or len(found) < len(rows) - first:
        return lines
    start = int(found[0][1])
    if start > 1 or any(int(row[1]) != start + i for i, row in enumerate(found)):
        return lines
    return tuple(row[2].strip('"') for row in found)


def check_labels(labels: Sequence[str], num_classes: int, subject: str) -> None:
    """Make sure that there is one label for each class.

    Args:
        labels: The names.
        num_classes: What the model's head gives.
        subject: Whose labels they are, for the message.

    Raises:
        ConfigError: There are more or fewer.
    """
    if len(labels) != num_classes:
        raise ConfigError(
            subject,
            f"has {len(labels)} labels for a model of {num_classes} classes",
            "give the list that the model was trained with (labels=FILE)",
        )


def _read(path: Path) -> str:
    subject = str(path)
    try:
        if path.is_dir():
            raise ConfigError(subject, "is a folder", "name a text file with one label per line")
        if path.exists() and not path.is_file():
            # Opening a FIFO would wait for a writer.
            raise ConfigError(subject, "is not an ordinary file", "name a text file with one label per line")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise ConfigError(subject, f"cannot be read ({reason})", "check the path") from None
    except ValueError as error:  # a path with a NUL
        raise ConfigError(repr(subject), f"is not a valid path ({error})", "check the path") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(subject, f"larger than {MAX_BYTES >> 20} MiB", "is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(subject, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None


def _lines(text: str, subject: str) -> tuple[str, ...]:
    """Split at line ends only: splitlines() would also cut at characters such as U+2028 within a label."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ConfigError(subject, "is empty", "write one label per line")
    if len(lines) > MAX_LABELS:
        raise ConfigError(subject, f"has more than {MAX_LABELS} lines", "is it the right file?")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ConfigError(subject, f"line {number} is blank", "remove it, or name the class")
        if len(line) > MAX_LENGTH:
            raise ConfigError(
                subject, f"line {number} is longer than {MAX_LENGTH} characters", "is it the right file?"
            )
        if "\0" in line:
            raise ConfigError(subject, f"line {number} contains a NUL", "is it the right file?")
    return tuple(line.strip() for line in lines)


def _check_distinct(labels: Sequence[str], subject: str) -> None:
    seen: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        if label in seen:
            raise ConfigError(
                subject,
                f"{label!r} is on lines {seen[label]} and {number}",
                "give each class its own name",
            )
        seen[label] = number
