"""What people write in options → values."""

from __future__ import annotations

from typing import Literal

from vidcls.errors import UsageError

MAX_FRAMES = 65536  # of one view


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
    """Return a number of temporal views, ``auto`` or ``auto:N``, or None where nothing was given.

    Raises:
        UsageError: It is none of these.
    """
    if text is None:
        return None
    from vidcls.inference.auto_views import MAX_VIEWS, parse_views

    if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_VIEWS:
        return int(text)
    parse_views(text)
    return text


def parse_frames(text: str | None) -> int | None:
    """Return the number of frames in a view, or None where nothing was given.

    Raises:
        UsageError: It is no number from 1 to `MAX_FRAMES`.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_FRAMES):
        raise UsageError(
            "num_frames", f"{text!r} is not a valid number of frames", f"give 1 to {MAX_FRAMES}, or all"
        )
    return int(text)
