"""Results of scoring, as they are handed on to be written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidcls.errors import InputError
from vidcls.video.sources import Source


@dataclass(frozen=True)
class Result:
    """One clip done.

    Attributes:
        item: The clip.
        row: What is written of it: the columns of `vidcls.output.row.Row`, and those that a manifest brought along.
        kind: Why it failed, in a word; None when it was scored.
        video_seconds: How much of video it was.
    """

    item: Source
    row: dict[str, Any]
    kind: str | None = None
    video_seconds: float = 0.0


def finish(
    item: Source,
    row: Mapping[str, Any],
    *,
    seconds: float,
    error: InputError | None = None,
) -> Result:
    """Complete a row of `vidcls predict` by what scoring adds to it."""
    full = {**row, "error_kind": None if error is None else error.kind, "seconds": round(seconds, 6)}
    full.update(item.columns)
    duration = row.get("duration") or 0.0
    return Result(item, full, full["error_kind"], duration if math.isfinite(duration) else 0.0)


def unforeseen(item: Source, error: Exception) -> InputError:
    """Return the failure of a clip: what is known of it as it is, else that something broke that nobody thought of."""
    if isinstance(error, InputError):
        return error
    problem = f"failed in an unforeseen way ({type(error).__name__}: {str(error)[:300]})"
    return InputError(item.path, problem, "please report it", kind="internal")


def unwritable(result: Result, misfits: Mapping[str, str]) -> Result:
    """Return the result of a clip whose row no output could hold: an error, without what does not fit.

    Args:
        result: What was to be written.
        misfits: Columns and what was wrong with them.
    """
    shown = ", ".join(f"{name} is {value}" for name, value in misfits.items())
    error = InputError(result.item.path, f"its row cannot be written ({shown})", kind="unwritable")
    row = {**result.row, **dict.fromkeys(misfits), "predictions": [], "error": str(error)}
    row.pop("scores", None)
    return Result(result.item, {**row, "error_kind": error.kind}, error.kind)
