"""How busy the batch pipeline keeps the model: ``vidcls score`` on some clips, and what it says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidcls.errors import UsageError

HEADINGS = ("clips", "seconds", "clips/s", "failed", "model utilization")


def time_scoring(clips: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """Score clips once, in a process of its own.

    Args:
        clips: Files, folders, globs or lists, as ``vidcls score`` takes them.
        arguments: Options of ``vidcls score``.
    """
    with tempfile.TemporaryDirectory(prefix="vidcls-bench-") as folder:
        output = Path(folder, "scores.jsonl")
        command = [sys.executable, "-m", "vidcls", "score", *clips, "-o", str(output), "--log-json"]
        start = time.perf_counter()
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        took = time.perf_counter() - start
    last = _last_event(done.stderr)
    if last.get("event") != "finished":
        raise UsageError("vidcls score", done.stderr.strip()[-500:] or "failed", "see above")
    waited = last.get("wait_share")
    return {
        **last,
        "total_seconds": took,
        "total_clips_per_second": last["scored"] / took,
        "busy_share": None if waited is None else 1 - waited,
    }


def _last_event(log: str) -> dict[str, Any]:
    """The last line of a log that is a JSON object; empty where none is."""
    for line in reversed(log.splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        return event if isinstance(event, dict) else {}
    return {}


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the figures as text."""
    busy = row["busy_share"]
    return (
        str(row["scored"]),
        f"{row['total_seconds']:.2f}",
        f"{row['total_clips_per_second']:.3g}",
        str(sum(row["failed"].values())),
        "-" if busy is None else f"{100 * busy:.0f} %",
    )
