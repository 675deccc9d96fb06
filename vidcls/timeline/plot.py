"""A timeline as a picture, by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidcls.errors import printable
from vidcls.output.plots import new_figure

if TYPE_CHECKING:
    from vidcls.timeline.result import Timeline

MAX_LABELS = 20  # lines; further labels share the last one


def draw(timeline: Timeline) -> Any:
    """Return a figure: a bar for each segment, one line a label, above the scores of these labels."""
    labels = list(timeline.labels[:MAX_LABELS]) or ["no segment"]
    figure = new_figure("plot", 10, 3.2 + 0.28 * len(labels))
    heights = [0.28 * len(labels) + 0.6, 1.6]
    bars, curves = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    colors = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    for segment in timeline.segments:
        row = min(timeline.labels.index(segment.label), MAX_LABELS - 1)
        bars.barh(
            row,
            segment.end - segment.start,
            left=segment.start,
            height=0.7,
            color=colors.get(segment.label, "C7"),
            alpha=0.35 + 0.65 * min(1.0, segment.score),
        )
    bars.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    bars.invert_yaxis()
    bars.set_title(_plain(timeline.path), loc="left", fontsize=10)
    _draw_scores(curves, timeline, colors)
    for cut in timeline.cuts or ():
        bars.axvline(cut, color="0.6", linewidth=0.6)
    bars.set_xlim(0, timeline.duration or 1.0)
    curves.xaxis.set_major_formatter(lambda seconds, _: _clock(seconds))
    return figure


def _draw_scores(axes: Any, timeline: Timeline, colors: dict[str, str]) -> None:
    if timeline.cells:
        scores = np.stack([cell.scores for cell in timeline.cells])
        middles = [(cell.start + cell.end) / 2 for cell in timeline.cells]
        for label, index in {s.label: s.top[0].class_index for s in timeline.segments}.items():
            if label in colors:
                axes.plot(middles, scores[:, index], color=colors[label], linewidth=1)
    axes.axhline(timeline.facts.get("threshold", 0.5), color="0.5", linestyle=":", linewidth=1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("score")


def _clock(seconds: float) -> str:
    """Write a time as ``M:SS``, or ``H:MM:SS`` from an hour on."""
    whole = round(seconds)
    text = f"{whole // 60 % 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else text


def _plain(text: str) -> str:
    """Text without what matplotlib would take for mathematics."""
    return printable(text)[-80:].replace("$", r"\$")
