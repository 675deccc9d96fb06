"""Timelines → what players and editors load: SubRip, WebVTT, CMX 3600."""

from __future__ import annotations

import math
import ntpath
from fractions import Fraction
from typing import TYPE_CHECKING

from vidcls.errors import printable

if TYPE_CHECKING:
    from vidcls.timeline.result import Segment, Timeline

_DROP = (Fraction(30000, 1001), Fraction(60000, 1001))
_KNOWN = (Fraction(24000, 1001), *_DROP)
_MAX_COMMENT = 60  # characters: lines of an EDL are 80 at most
# SubRip has tags and no escapes for them: what could be one is shown by a sign like it.
_SRT = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")", "\\": "/"})
_VTT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def srt(timeline: Timeline) -> str:
    """Return SubRip: numbered cues, ``HH:MM:SS,mmm``, the label and its score in percent; UTF-8 when written."""
    cues = [
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{_text(segment).translate(_SRT)}\n"
        for number, segment in enumerate(timeline.segments, 1)
    ]
    return "\n".join(cues)


def vtt(timeline: Timeline) -> str:
    """Return WebVTT (W3C); text is escaped, so that nothing in a label is a tag or ends a cue."""
    cues = [
        f"\n{number}\n{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{_text(segment).translate(_VTT)}\n"
        for number, segment in enumerate(timeline.segments, 1)
    ]
    return "WEBVTT\n" + "".join(cues)


def edl(timeline: Timeline) -> str:
    """Return an edit decision list, CMX 3600: an event for each segment, cut from the video to where it is.

    Timecodes count from 00:00:00:00, the first frame. They are drop-frame at 29.97 and 59.94 frames a second, so that
    they run with the clock, and non-drop at every other rate, 23.976 too; a file of varying rate is counted at its
    mean rate. Names are in comments, in UTF-8.
    """
    code = Timecode(timeline.facts.get("fps") or 25.0)
    name = ntpath.basename(timeline.path).rpartition("/")[2]
    lines = [
        f"TITLE: {_comment(name)}",
        f"FCM: {'DROP FRAME' if code.drop else 'NON-DROP FRAME'}",
        "",
    ]
    number = 0
    for segment in timeline.segments:
        first, last = code.frame(segment.start), code.frame(segment.end)
        if last <= first:
            continue  # shorter than a frame
        number += 1
        start, end = code.text(first), code.text(last)
        lines += [
            f"{number:03}  AX       V     C        {start} {end} {start} {end}",
            f"* FROM CLIP NAME: {_comment(name)}",
            f"* COMMENT: {_comment(_text(segment))}",
            "",
        ]
    return "\n".join(lines)


class Timecode:
    """Numbers of frames → SMPTE timecode.

    Args:
        fps: Frames a second of the video.

    Attributes:
        rate: Frames a second, exactly.
        base: Frames that a second of timecode counts, 1 to 99.
        drop: Whether numbers are left out so that the code runs with the clock (SMPTE 12M drop-frame).
    """

    def __init__(self, fps: float) -> None:
        near = [rate for rate in _KNOWN if abs(fps / float(rate) - 1) < 2e-4]
        whole = round(fps) or 1
        even = abs(fps / whole - 1) < 0.01
        # Rates that no timecode has count up to the next whole number.
        self.base = min(whole if even else math.ceil(fps), 99)
        exact = Fraction(self.base) if even or fps > 99 else Fraction(fps).limit_denominator(10_000)
        self.rate = near[0] if near else exact
        self.drop = self.rate in _DROP

    def frame(self, seconds: float) -> int:
        """The frame on the screen's number, nearest to a moment."""
        return max(0, round(seconds * float(self.rate)))

    def text(self, frame: int) -> str:
        """Write ``HH:MM:SS:FF``, with a semicolon before the frames in drop-frame code."""
        if self.drop:
            left_out = self.base // 15  # numbers at each minute, but for every tenth
            minute = self.base * 60 - left_out
            ten, rest = divmod(frame, minute * 10 + left_out)
            frame += 9 * left_out * ten
            if rest >= self.base * 60:
                frame += left_out * (1 + (rest - self.base * 60) // minute)
        elif self.rate != self.base and self.rate not in _KNOWN:
            # A rate that no timecode has: seconds are the clock's, frames are counted within each.
            seconds = math.floor(frame / self.rate + Fraction(1, 10**9))
            frame = seconds * self.base + min(self.base - 1, frame - math.ceil(seconds * self.rate))
        seconds, frames = divmod(frame, self.base)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:02}:{minutes:02}:{seconds:02}{';' if self.drop else ':'}{frames:02}"


def _text(segment: Segment) -> str:
    label = " ".join(printable(segment.label).split()) or "?"
    return f"{label} ({100 * segment.score:.0f} %)"


def _comment(text: str) -> str:
    text = printable(text).encode("utf-8", "replace").decode()
    return text if len(text) <= _MAX_COMMENT else text[: _MAX_COMMENT - 1] + "…"


def _clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"
