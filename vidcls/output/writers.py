"""Rows → stdout or a file, one by one, each written at once. Imports no torch.

File names and labels come from strangers: what would steer a terminal is shown in its place as an escape, and what is
not valid Unicode never stops the output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vidcls.errors import UsageError
from vidcls.output.base import Writer
from vidcls.output.formats import FORMATS, check_wide, choose_format
from vidcls.output.row import Layout
from vidcls.output.sinks import File, Stdout, check_absent

__all__ = ["FORMATS", "check_output", "open_output"]

Path_ = str | os.PathLike[str] | None


def check_output(
    path: Path_, format: str | None = None, *, overwrite: bool = False, wide: bool = False
) -> str:
    """Return the key of the format in which rows go to ``path``; see ``open_output``, which begins with this.

    Raises:
        UsageError: There is no such format, it does not go with the suffix, or the file exists.
    """
    if _is_stdout(path):
        found = choose_format(None, format or ("table" if sys.stdout.isatty() else "tsv"))
        check_wide(found, wide)
        if not FORMATS[found].text and sys.stdout.isatty():
            raise UsageError("format", f"{found} is not for a terminal", "name a file with -o, or use a pipe")
        return found
    found = choose_format(path, format)
    check_wide(found, wide)
    check_absent(path, overwrite)
    return found


def open_output(
    path: Path_,
    format: str | None = None,
    *,
    overwrite: bool = False,
    names: Sequence[str] = (),
    layout: Layout | None = None,
) -> Writer:
    """Open a writer of rows; use it as a context manager.

    A file is written beside its place and moved there when it is whole, so that no reader ever sees half of it;
    JSON lines are whole at every line and go straight into the file. Where writing stops early, the rows so far
    still make a valid file.

    Args:
        path: Where to write; None or ``-`` is stdout.
        format: A key of ``FORMATS``; None goes by the suffix of ``path``, else ``table`` on a terminal and ``tsv`` in a
            pipe.
        overwrite: Replace a file that exists.
        names: Of the clips, as far as they are known; of several, each is one line on a terminal and not a table.
        layout: Which columns there are.

    Raises:
        UsageError: There is no such format, it does not go with the suffix, or the file exists.
        OutputError: The file cannot be written.
    """
    found = check_output(path, format, overwrite=overwrite)
    if _is_stdout(path):
        if found == "table" and sys.stdout.isatty():
            from vidcls.output.terminal import LinesWriter, TerminalWriter

            return LinesWriter(names) if len(names) > 1 else TerminalWriter()
        return Writer(Stdout(), FORMATS[found](layout))
    return Writer(File(Path(path or ""), at_once=FORMATS[found].at_once), FORMATS[found](layout))


def _is_stdout(path: Path_) -> bool:
    return path is None or os.fspath(path) == "-"
