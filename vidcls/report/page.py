"""A source → one HTML file: nothing is fetched, and nothing of it can run that is not ours.

Text goes through Jinja2's escaping or, in the script, only ever into text nodes. A policy in the page's head forbids
all scripts and styles but the two whose checksums it names, and every connection.
"""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcls.errors import UsageError, printable
from vidcls.output import html
from vidcls.output.sinks import check_absent, open_error, writing
from vidcls.paths import write_text
from vidcls.report.films import film_of, summarize_films
from vidcls.report.payload import payload, script_json
from vidcls.report.pictures import Bounds, draw
from vidcls.report.source import Source, read_source
from vidcls.report.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Iterable

PARTS = Path(__file__).with_name("template")
SCRIPTS = ("base.js", "table.js", "dialog.js", "evaluation.js", "films.js", "start.js")
PAGE = "report.html"  # of an evaluation, in its folder
SUFFIXES = (".html", ".htm")


def make_page(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    thumbnails: int = Bounds.clips,
    seconds: float = Bounds.seconds,
    overwrite: bool = False,
    quiet: bool = True,
) -> Source:
    """Write a page about results and return what it shows.

    Args:
        source: See `vidcls.report.source.read_source`.
        output: An .html file.
        thumbnails: Clips whose frames are shown; 0 for none.
        seconds: Time for decoding them.
        overwrite: Replace a file that exists.
        quiet: No bar.

    Raises:
        UsageError: The source is not one, or the output exists.
        OutputError: The page cannot be written.
    """
    target = Path(output)
    check_target(target, overwrite)
    found = read_source(Path(source))
    items = found.items or [film.item for film in found.films]
    pictures = draw(items, found.settings, Bounds(thumbnails, seconds), quiet=quiet)
    save(target, render(found, payload(found, pictures, target.absolute().parent), len(pictures)))
    return found


def page_of_timelines(timelines: list[dict[str, Any]], name: str, folder: Path) -> str:
    """Return a page about timelines as plain data.

    Args:
        timelines: See `vidcls.timeline.result.Timeline.to_dict`.
        name: What the page is called.
        folder: Where it will lie: a video that lies there or below plays in it.
    """
    found = Source(name, films=[film_of(one) for one in timelines])
    pictures = draw([film.item for film in found.films], None, Bounds(), quiet=True)
    return render(found, payload(found, pictures, folder), len(pictures))


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a page that could not be written, before anything is done.

    Raises:
        UsageError: It has another suffix, or exists.
        OutputError: It is a folder, or there is no folder for it.
    """
    if target.suffix.lower() not in SUFFIXES:
        name = printable(str(target))
        raise UsageError(name, "its suffix is not that of a page", "end its name in .html")
    check_absent(target, overwrite)
    if target.is_dir():
        raise open_error(target, IsADirectoryError())
    if not target.absolute().parent.is_dir():
        raise open_error(target, FileNotFoundError())


def save(target: Path, text: str) -> None:
    """Write the page whole or not at all."""
    with writing(target):
        write_text(target, text)


def render(source: Source, data: dict[str, Any], pictured: int = 0) -> str:
    """Return the page.

    Args:
        source: What it shows.
        data: The same for its script.
        pictured: How many clips have pictures.
    """
    from markupsafe import Markup

    from vidcls import __version__

    script, style = _joined(SCRIPTS), _joined(["style.css"])
    return html.render(
        PARTS / "report.html",
        source=source,
        summary=summarize(source.items),
        films=summarize_films(source.films),
        model=source.items[0] if source.items else None,
        pictured=pictured,
        data=Markup(script_json(data)),
        script=Markup(script),
        style=Markup(style),
        hashes={"script": _hash(script), "style": _hash(style)},
        version=__version__,
        now=datetime.now(timezone.utc),
    )


def _joined(names: Iterable[str]) -> str:
    return "".join((PARTS / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    """Return the checksum by which a content security policy knows a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
