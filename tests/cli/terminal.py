"""What a person sees: the command on a terminal of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Shown:
    """What a command printed; colors are taken out of stdout, and nothing else."""

    stdout: str
    stderr: str
    returncode: int


def on_terminal(*arguments: str, columns: int = 80, cwd: Path | None = None, both: bool = False) -> Shown:
    """Run the command with stdout on a terminal of so many columns, with ``both`` stderr too."""
    pty = pytest.importorskip("pty")  # not on Windows
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vidcls", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs if both else subprocess.PIPE,
        cwd=cwd,
        env={
            **os.environ,
            "COLUMNS": str(columns),
            "TERM": "xterm",
            "NO_COLOR": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    errors = b"" if process.stderr is None else process.stderr.read()
    if process.stderr is not None:
        process.stderr.close()
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")
    return Shown(text, errors.decode(), process.wait())
