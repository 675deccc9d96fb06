"""Files written whole or not at all: the one place that does so for every command."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

LONGEST = 200  # characters of a name that are kept in that of its temporary file; most file systems take 255


@contextlib.contextmanager
def replacing(target: Path, *, alone: bool = False) -> Iterator[Path]:
    """Give a path to write to; what was written there takes the place of ``target`` when the block ends well.

    Nobody ever sees half a file under the name of ``target``, and after a loss of power it is the old or the new one.
    A link's target is replaced, not the link; permissions stay as they were.

    Args:
        target: The file to write; its folder exists.
        alone: The caller holds a lock: the temporary file has a fixed name, so that one which a killed process left
            behind is written over and can be found.

    Raises:
        OSError: It cannot be written; what was at ``target`` is untouched.
    """
    target = target.resolve() if target.is_symlink() else target
    temporary = temporary_path(target, alone=alone)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def temporary_path(target: Path, *, alone: bool = False) -> Path:
    """Return the name under which ``target`` is written before it is whole: hidden, and in the same folder."""
    writer = "" if alone else f".{os.getpid()}-{threading.get_ident():x}"
    return target.with_name(f".{target.name[:LONGEST]}{writer}.tmp")


def write_text(target: Path, text: str) -> None:
    """Write a small file whole or not at all, as UTF-8; what is not valid Unicode becomes an escape.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def sync_folder(folder: Path) -> None:
    """Make a new, replaced or removed name in ``folder`` durable; only POSIX systems can, and need to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
