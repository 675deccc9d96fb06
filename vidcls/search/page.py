"""What was found as one HTML file that opens anywhere: no script, no network, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidcls.errors import InputError
from vidcls.output.html import render
from vidcls.output.pictures import data_uri, jpeg_of, shrink_for
from vidcls.search.cosine import Hit
from vidcls.search.vectors import Place
from vidcls.video.reader import VideoReader

MOST_PICTURES = 200  # rows that have one: each costs a decoded frame and some 5 kB


def page(query: str, hits: Sequence[Hit], reader: VideoReader | None = None) -> str:
    """Return the page of a search.

    Args:
        query: What was searched for.
        hits: What was found, best first.
        reader: Decodes a picture of each clip that is on this machine; None shows none.
    """
    places = [hit.place for hit in hits]
    pictures = [_picture(place, reader) for place in places[:MOST_PICTURES]] if reader is not None else []
    pictures += [None] * (len(hits) - len(pictures))
    template = Path(__file__).with_name("page.html")
    return render(template, query=query, hits=hits, pictures=pictures, when=when)


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
