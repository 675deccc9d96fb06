"""The real command line on a machine where files whose names say so hang, are locked, or vanish when listed.

`break_reading` is also what Ray calls in each of its processes.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import signal
import time
from typing import Any

from vidcls.cli.app import main
from vidcls.score import batching
from vidcls.score import resume_log as journal
from vidcls.score import row_file as sink
from vidcls.video.reader import VideoReader

_open = builtins.open
_claim = journal.Journal.claim
_run = batching.Batcher.run


def open_unless_locked(file: Any, *arguments: Any, **keywords: Any) -> Any:
    # By name, not by mode bits: these mean nothing to root, who runs the tests in many containers.
    if isinstance(file, str) and os.path.basename(file).startswith("locked"):
        raise PermissionError(13, "Permission denied", file)
    if isinstance(file, str) and os.path.basename(file).startswith("killing"):
        kill_once(file)
    return _open(file, *arguments, **keywords)


def kill_once(file: str) -> None:
    """Kill this process when it reads a file for the first time."""
    try:
        os.close(os.open(f"{file}.killed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def claim_and_vanish(self: journal.Journal, item: Any, *arguments: Any) -> journal.Claim:
    answer = _claim(self, item, *arguments)
    if os.path.basename(item.path).startswith("vanishing"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(item.path)
    return answer


def run_slowly(self: batching.Batcher, *arguments: Any) -> Any:
    time.sleep(float(os.environ.get("VIDCLS_TEST_SLOW", "0")))
    return _run(self, *arguments)


def break_reading() -> None:
    """Let files hang and be locked in this process."""
    VideoReader._entry = "tests.score.hanging_worker"  # type: ignore[misc]
    builtins.open = open_unless_locked  # type: ignore[assignment]


if __name__ == "__main__":
    break_reading()
    journal.Journal.claim = claim_and_vanish  # type: ignore[method-assign]
    batching.Batcher.run = run_slowly  # type: ignore[method-assign]
    sink.COMMIT_SECONDS = 0.1
    main()
