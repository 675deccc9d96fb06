"""A timeline as HTML: bars that stand for themselves, without script or network; all text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from vidcls.errors import printable

if TYPE_CHECKING:
    from vidcls.timeline.result import Segment, Timeline

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 2rem; }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; }
"""


def page(timelines: Sequence[Timeline]) -> str:
    """Return a whole page."""
    parts = "\n".join(fragment(timeline, table=True) for timeline in timelines)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Timeline</title><style>{_STYLE}</style></head>\n<body>\n{parts}\n</body></html>\n"
    )


def fragment(timeline: Timeline, table: bool = False) -> str:
    """Return one timeline: its bar, and the segments as a table where asked for."""
    title = f"<h2>{_safe(timeline.path)}</h2>"
    if timeline.error is not None:
        return f"<section>{title}<p>{_safe(str(timeline.error))}</p></section>"
    hues = {label: 137 * number % 360 for number, label in enumerate(timeline.labels)}
    duration = timeline.duration or 1.0
    bars = "".join(_bar(segment, duration, hues[segment.label]) for segment in timeline.segments)
    strip = (
        '<div style="position:relative;height:2.2em;background:#8882;overflow:hidden" '
        f'role="img" aria-label="{len(timeline.segments)} segments">{bars}</div>'
    )
    rows = "".join(_row(segment, hues[segment.label]) for segment in timeline.segments) if table else ""
    head = "<tr><th>start</th><th>end</th><th>label</th><th>score</th></tr>"
    return f"<section>{title}{strip}{f'<table>{head}{rows}</table>' if table else ''}</section>"


def _bar(segment: Segment, duration: float, hue: int) -> str:
    left, width = 100 * segment.start / duration, 100 * (segment.end - segment.start) / duration
    said = _safe(f"{clock(segment.start)} to {clock(segment.end)}: {segment.label} ({segment.score:.2f})")
    return (
        f'<div title="{said}" style="position:absolute;left:{left:.3f}%;width:{width:.3f}%;height:100%;'
        f"background:hsl({hue} 60% 60%);color:#000;overflow:hidden;white-space:nowrap;font-size:.8em;"
        f'border-left:1px solid #0006">{_safe(segment.label)}</div>'
    )


def _row(segment: Segment, hue: int) -> str:
    mark = f'<span style="color:hsl({hue} 60% 50%)" aria-hidden="true">■</span>'
    times = f"<td>{clock(segment.start)}</td><td>{clock(segment.end)}</td>"
    return f"<tr>{times}<td>{mark} {_safe(segment.label)}</td><td>{segment.score:.3f}</td></tr>"


def _safe(text: str) -> str:
    return escape(printable(text), quote=True)


def clock(seconds: float) -> str:
    """Write a time as ``H:MM:SS.ss``."""
    hundredths = round(100 * seconds)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 100:02}.{rest % 100:02}"
