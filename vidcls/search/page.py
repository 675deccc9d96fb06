"""What was found as one HTML file that opens anywhere: no script, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from vidcls.errors import InputError, printable
from vidcls.output.pictures import data_uri, jpeg_of, shrink_for
from vidcls.search.cosine import Hit
from vidcls.search.vectors import Place
from vidcls.video.reader import VideoReader

MOST_PICTURES = 200  # rows that have one: each costs a decoded frame and some 5 kB

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }}
ol {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); padding: 0; }}
li {{ list-style: none; overflow-wrap: anywhere; }}
img, .none {{ aspect-ratio: 4 / 3; background: #8883; display: block; object-fit: contain; width: 100%; }}
small {{ opacity: .75; }}
</style></head><body>
<h1>{title}</h1>
<ol>
"""


def page(query: str, hits: Sequence[Hit], reader: VideoReader | None = None) -> str:
    """Return the page of a search.

    Args:
        query: What was searched for.
        hits: What was found, best first.
        reader: Decodes a picture of each clip that is on this machine; None shows none.
    """
    parts = [HEAD.format(title=f"Clips like {escape(printable(query))}")]
    for rank, hit in enumerate(hits, 1):
        picture = _picture(hit.place, reader) if reader is not None and rank <= MOST_PICTURES else None
        name = escape(printable(hit.place.path))
        shown = f'<img alt="{name}" src="{picture}">' if picture else '<div class="none"></div>'
        parts.append(
            f"<li>{shown}<b>{rank}. {hit.score:.4f}</b> <small>{escape(when(hit.place))}</small><br>{name}</li>\n"
        )
    return "".join(parts) + "</ol>\n</body></html>\n"


def when(place: Place) -> str:
    """Say which part of a clip a vector is of; nothing for a whole clip."""
    if place.view is None or place.begin is None or place.end is None:
        return ""
    return f"view {place.view}, {place.begin:.1f}–{place.end:.1f} s"


def _picture(place: Place, reader: VideoReader) -> str | None:
    """A frame from the middle of a place as an address that holds it; None where the clip cannot be read here."""
    try:
        info = reader.open(place.path)
        middle = ((place.begin or 0.0) + (place.end if place.end is not None else info.duration)) / 2
        number = min(int(np.searchsorted(info.timestamps, middle)), info.num_frames - 1)
        return data_uri(jpeg_of(reader.read(np.array([number]), shrink_for(info)).frames))
    except InputError:
        return None
