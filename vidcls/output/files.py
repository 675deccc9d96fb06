"""A result saved under a name whose suffix says how."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vidcls.errors import UsageError, printable
from vidcls.output.sinks import writing
from vidcls.paths import replacing


def save_as(path: str | os.PathLike[str], writers: Mapping[str, Callable[[BinaryIO], Any]]) -> None:
    """Write a file whole or not at all, by what its suffix asks for.

    Args:
        path: Where to.
        writers: Suffix → what writes into a binary file.

    Raises:
        UsageError: The suffix is none of these.
        OutputError: It cannot be written.
    """
    target = Path(path)
    write = writers[check_suffix(path, writers)]
    with writing(target), replacing(target) as temporary, temporary.open("wb") as file:
        write(file)


def check_suffix(path: str | os.PathLike[str], known: Mapping[str, Any]) -> str:
    """Return the suffix of a name in lower case."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        name = printable(os.fspath(path))
        raise UsageError(name, "its format is unclear", f"end its name in {', '.join(known)}")
    return suffix
