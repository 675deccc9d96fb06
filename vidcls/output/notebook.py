"""One clip's result as notebooks show it: some frames, and its labels as bars. All text is escaped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import VidclsError, printable
from vidcls.output.pictures import data_uri, jpeg_of, png_of, shrink_for
from vidcls.output.terminal import footer
from vidcls.video.reader import VideoReader
from vidcls.video.sources import is_local

FRAMES = 6
SECONDS = 5.0  # that reading them may take

_BOX = "font:14px/1.5 system-ui,sans-serif;max-width:640px"
_LINE = "display:grid;grid-template-columns:minmax(0,1fr) 200px 56px;gap:12px;align-items:center"
_TRACK = "height:8px;border-radius:4px;background:rgba(127,127,127,.25);overflow:hidden"
_BAR = "height:100%;background:#5b83d8"
_SOFT = "opacity:.7;font-size:13px"


def prediction_html(row: Mapping[str, Any], frames: NDArray[np.uint8] | None = None) -> str:
    """Return a piece of HTML about one clip.

    Args:
        row: As `vidcls predict` writes it.
        frames: (n, h, w, 3) of it; None reads some of the file, where the clip is one.
    """
    if frames is None and row.get("error") is None:
        frames = _frames(str(row["path"]))
    picture = ""
    if frames is not None:
        style = "display:block;max-width:100%;height:auto;margin:6px 0;border-radius:4px"
        picture = (
            f'<img src="{data_uri(jpeg_of(frames))}" alt="{len(frames)} frames of the clip" style="{style}">'
        )
    notes = [str(row["error"])] if row.get("error") is not None else map(str, row.get("warnings") or ())
    return (
        f'<div style="{_BOX}"><div style="font-weight:600;overflow-wrap:anywhere">{safe(str(row["path"]))}</div>'
        f"{picture}{''.join(map(_line, row['predictions']))}"
        f"{''.join(f'<div>{safe(note)}</div>' for note in notes)}"
        f'<div style="{_SOFT}">{safe(footer(row))}</div></div>'
    )


def picture_html(path: str, picture: Any, note: str) -> str:
    """Return a piece of HTML with one picture (of PIL) about a clip: its name above, a note below."""
    return (
        f'<div style="{_BOX}"><div style="font-weight:600;overflow-wrap:anywhere">{safe(path)}</div>'
        f'<img src="{data_uri(png_of(picture), "png")}" alt="{safe(note)}" '
        'style="display:block;max-width:100%;margin:6px 0">'
        f'<div style="{_SOFT}">{safe(note)}</div></div>'
    )


def _line(prediction: Mapping[str, Any]) -> str:
    share = 100 * min(max(float(prediction["score"]), 0.0), 1.0)
    weight = "font-weight:600;" if prediction["rank"] == 1 else ""
    return (
        f'<div style="{weight}{_LINE}"><span style="overflow-wrap:anywhere">{safe(str(prediction["label"]))}</span>'
        f'<div style="{_TRACK}" aria-hidden="true"><div style="{_BAR};width:{share:.1f}%"></div></div>'
        f'<span style="text-align:right;font-variant-numeric:tabular-nums">{share:.1f}%</span></div>'
    )


def _frames(path: str) -> NDArray[np.uint8] | None:
    """Read some frames of a file, small; None where that cannot be done at once."""
    if not is_local(path) or not os.path.isfile(path):
        return None
    with contextlib.suppress(VidclsError), VideoReader(timeout=SECONDS) as reader:
        info = reader.open(path)
        places = np.linspace(0, info.num_frames - 1, min(FRAMES, info.num_frames)).round().astype(np.int64)
        return reader.read(places, shrink_for(info)).frames
    return None


def safe(text: str) -> str:
    """Escape what a piece of HTML shows of others' text."""
    return escape(printable(text), quote=True)
