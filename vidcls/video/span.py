"""Parts of a longer file, named as W3C's media fragments are: ``game.mp4#t=12.5,20``. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vidcls.errors import VideoError

if TYPE_CHECKING:
    from vidcls.video.collect import Sound
    from vidcls.video.reader import VideoInfo

_FRAGMENT = re.compile(r"(.+)#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?", re.S)
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Span:
    """Seconds of a file, from its first frame; ``end`` is left out, and None is the file's."""

    start: float
    end: float | None


def split_span(name: str) -> tuple[str, Span | None]:
    """Tell a file from the part of it that is meant; a file that is called so is itself."""
    found = _FRAGMENT.fullmatch(name)
    if found is None or (found[2] is None and found[3] is None) or os.path.lexists(name):
        return name, None
    return found[1], Span(float(found[2] or 0), None if found[3] is None else float(found[3]))


def fragment(start: str, end: str) -> str:
    """Write a part for the end of a file's name, of ``12.5`` or ``1:02:03.5``; both empty are the whole file.

    Raises:
        ValueError: One is no time, or the end does not come after the start.
    """
    first, last = (None if text == "" else _seconds(text) for text in (start, end))
    if first is None and last is None:
        return ""
    if last is not None and last <= (first or 0.0):
        raise ValueError(f"the part ends at {end} and starts at {start or 0}")
    return f"#t={first or 0.0:g}" + (f",{last:g}" if last is not None else "")


def _seconds(text: str) -> float:
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time in seconds or h:m:s")
    return 3600 * int(found[1] or 0) + 60 * int(found[2] or 0) + float(found[3])


def cut(info: VideoInfo, span: Span) -> tuple[VideoInfo, int]:
    """What is known of a part of a file, and how many frames come before it; a VideoError where it is empty."""
    times = info.timestamps
    first = int(times.searchsorted(span.start - 1e-6))
    end = len(times) if span.end is None else int(times.searchsorted(span.end - 1e-6))
    if first >= end:
        problem = f"no frame lies in this part of {info.duration:.2f} s"
        raise VideoError(info.path, problem, "check its start and end", kind="empty")
    last = info.duration if end == len(times) else float(times[end])
    known = {
        "num_frames": end - first,
        "timestamps": times[first:end] - times[first],
        "duration": last - float(times[first]),
    }
    return replace(info, **known), first


def cut_sound(sound: Sound, seconds: tuple[float, float] | None) -> Iterator[Sound]:
    """Yield what of a piece of sound lies between two times of the file, counted from the first; None is all of it."""
    if seconds is None:
        yield sound
        return
    first, last = (max(0, round((time - sound.start) * sound.rate)) for time in seconds)
    samples = sound.samples[:, first:last]
    if samples.shape[1]:
        yield replace(sound, start=sound.start + first / sound.rate - seconds[0], samples=samples)
