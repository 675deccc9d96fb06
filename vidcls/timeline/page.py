"""A timeline as a bar in a notebook, and times for people; all text is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidcls.output.notebook import safe

if TYPE_CHECKING:
    from vidcls.timeline.result import Segment, Timeline


def fragment(timeline: Timeline) -> str:
    """Return one timeline as a bar, for notebooks."""
    title = f"<h4>{safe(timeline.path)}</h4>"
    if timeline.error is not None:
        return f"<section>{title}<p>{safe(str(timeline.error))}</p></section>"
    hues = {label: 137 * number % 360 for number, label in enumerate(timeline.labels)}
    duration = timeline.duration or 1.0
    bars = "".join(_bar(segment, duration, hues[segment.label]) for segment in timeline.segments)
    strip = (
        '<div style="position:relative;height:2.2em;background:#8882;overflow:hidden" '
        f'role="img" aria-label="{len(timeline.segments)} segments">{bars}</div>'
    )
    return f"<section>{title}{strip}</section>"


def _bar(segment: Segment, duration: float, hue: int) -> str:
    left, width = 100 * segment.start / duration, 100 * (segment.end - segment.start) / duration
    said = safe(f"{clock(segment.start)} to {clock(segment.end)}: {segment.label} ({segment.score:.2f})")
    return (
        f'<div title="{said}" style="position:absolute;left:{left:.3f}%;width:{width:.3f}%;height:100%;'
        f"background:hsl({hue} 60% 60%);color:#000;overflow:hidden;white-space:nowrap;font-size:.8em;"
        f'border-left:1px solid #0006">{safe(segment.label)}</div>'
    )


def clock(seconds: float) -> str:
    """Write a time as ``H:MM:SS.ss``."""
    hundredths = round(100 * seconds)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 100:02}.{rest % 100:02}"
