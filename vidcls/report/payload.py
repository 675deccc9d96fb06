"""What the page's script is given: one JSON text that cannot end the element it stands in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vidcls.errors import printable
from vidcls.output.pictures import data_uri
from vidcls.report.films import Film
from vidcls.report.items import Item
from vidcls.report.pictures import Strip
from vidcls.report.source import Several, Source
from vidcls.video.sources import is_local

_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


def script_json(value: Any) -> str:
    """Write JSON for a script element: neither ``</script>`` nor ``<!--`` can be in it, and all of it is ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_IN_SCRIPT)


def payload(source: Source, pictures: Mapping[int, Sequence[Strip]], folder: Path) -> dict[str, Any]:
    """Return everything that the script shows.

    Args:
        source: What the page shows.
        pictures: Strips of frames by the clip's or film's number.
        folder: Where the page will lie, from which videos are linked.
    """
    labels = _Labels()
    for label in source.labels:  # those of an evaluation keep their numbers
        labels[label]
    clips = [_clip(item, labels, folder) for item in source.items]
    films = [_film(film, labels, folder) for film in source.films]
    for number, strips in pictures.items():
        (films or clips)[number]["v"] = [
            {"j": data_uri(strip.jpeg), "t": strip.times, "w": strip.width} for strip in strips
        ]
    return {"clips": clips, "films": films, "evaluation": _evaluation(source), "labels": labels.names()}


class _Labels(dict[str, int]):
    """Labels and their numbers, in the order in which they come."""

    def __missing__(self, label: str) -> int:
        self[label] = len(self)
        return self[label]

    def names(self) -> list[str]:
        return [printable(label) for label in self]


def _clip(item: Item, labels: _Labels, folder: Path) -> dict[str, Any]:
    """Return a clip; what is not known is left out, and scores are in tenths of a per mille."""
    found = {
        "p": printable(item.path),
        "h": link(item.path, folder),
        "d": item.duration and round(item.duration, 2),
        "f": item.fps and round(item.fps, 3),
        "t": _ranked(item.top, labels),
        "y": None if item.truth is None else [labels[label] for label in item.truth],
        "e": item.error and printable(item.error),
        "k": item.error_kind and printable(item.error_kind),
        "w": [printable(text) for text in item.warnings],
        "s": item.seconds and round(item.seconds, 3),
        "x": {printable(name): printable(value) for name, value in item.extra.items()},
    }
    kept = {name: value for name, value in found.items() if name == "p" or value not in (None, [], {}, "")}
    return kept if item.truth is None else {**kept, "y": found["y"]}  # also of a clip with no label


def _ranked(top: Iterable[tuple[str, float]], labels: _Labels) -> list[list[int]]:
    return [[labels[label], round(score * 10_000)] for label, score in top]


def _film(film: Film, labels: _Labels, folder: Path) -> dict[str, Any]:
    found = {
        "p": printable(film.path),
        "h": link(film.path, folder),
        "d": round(film.duration, 3),
        "e": film.error and printable(film.error),
        "c": [round(cut, 3) for cut in film.cuts],
        "s": [[round(one.start, 3), round(one.end, 3), _ranked(one.top, labels)] for one in film.stretches],
    }
    return {name: value for name, value in found.items() if name == "p" or value not in (None, "")}


def link(path: str, folder: Path) -> str | None:
    """Return the address of a clip relative to the page, or None where it is no file of this machine.

    It starts with ``./`` or ``../`` whatever the file is called, and everything but plain letters is escaped.
    """
    if not is_local(path) or not os.path.isfile(path):
        return None
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # on another drive of Windows
        return None
    escaped = quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")
    return escaped if escaped.startswith("../") else f"./{escaped}"


def _evaluation(source: Source) -> dict[str, Any] | None:
    report = source.evaluation
    if report is None:
        return None
    if isinstance(report, Several):
        return {
            "several": True, "classes": report.classes, "means": {}, "thresholds": report.thresholds,
        }  # fmt: skip
    return {
        "confusion": report.confusion.tolist(),
        "classes": [[c.clips, c.recall, c.precision, c.f1] for c in report.classes],
        "means": report.means(),
        "bins": [bin if bin[0] else (0, 0.0, 0.0) for bin in report.bins],
    }
