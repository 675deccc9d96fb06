"""What people write in options → values."""

from __future__ import annotations

from typing import Literal

from vidcls.errors import UsageError

MAX_FRAMES = 65536  # of one view


def whole_numbers(text: str, separator: str, most: int) -> tuple[int, ...]:
    """Return the numbers from 1 to ``most`` in a text; none where one of its parts is anything else."""
    parts = text.split(separator)
    sound = all(p.isascii() and p.isdigit() and 0 < int(p[:9]) <= most and len(p) <= 9 for p in parts)
    return tuple(map(int, parts)) if sound else ()


def parse_fps(text: str) -> Literal["auto", "native"] | float:
    """Return ``auto``, ``native`` or a rate in 1/s."""
    if text == "auto":
        return "auto"
    if text == "native":
        return "native"
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise UsageError(
            "fps", f"{text!r} is not a valid frame rate", "use auto, native or a number up to 1000"
        )
    return rate


def parse_views_option(text: str | None) -> int | str | None:
    """Return a number of temporal views, ``auto`` or ``auto:N``, or None where nothing was given."""
    if text is None:
        return None
    from vidcls.inference.auto_views import MAX_VIEWS, parse_views

    found = whole_numbers(text, ",", MAX_VIEWS)
    if len(found) == 1:
        return found[0]
    parse_views(text)
    return text


def parse_frames(text: str | None) -> int | None:
    """Return the number of frames in a view, 1 to `MAX_FRAMES`, or None where nothing was given."""
    if text is None:
        return None
    found = whole_numbers(text, ",", MAX_FRAMES)
    if len(found) != 1:
        raise UsageError(
            "num_frames", f"{text!r} is not a valid number of frames", f"give 1 to {MAX_FRAMES}, or all"
        )
    return found[0]
