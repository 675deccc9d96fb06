"""Make the pictures of docs/timeline.md: ``PYTHONPATH=. python docs/timeline_pictures.py`` (needs the extra ``train``).

A film of 36 seconds is synthesized whose camera does six things one after the other; its plot, and one annotated
frame of each of its scenes side by side.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.timeline.films import make_film
from vidcls.inference.load import load
from vidcls.timeline.annotate import annotate
from vidcls.video.reader import VideoReader

ROOT = Path(__file__).parents[1]
SECTIONS = [
    ("pan left", 6.3), ("static", 5.0), ("zoom in", 5.5), ("tilt up", 6.1), ("roll clockwise", 5.4), ("shake", 7.0),
]  # fmt: skip
GAP = 6  # pixels between the frames


def main() -> None:
    """Write ``docs/timeline.png`` and ``docs/timeline-annotated.jpg``."""
    with tempfile.TemporaryDirectory() as folder, load("camera-motion") as model, VideoReader() as reader:
        film = make_film(Path(folder) / "film.mp4", SECTIONS, size=(216, 384), seed=4, preset="veryfast")
        timeline = model.timeline(film)
        figure = timeline.plot()
        figure.axes[0].set_title("film.mp4", loc="left", fontsize=10)
        figure.savefig(ROOT / "docs" / "timeline.png", dpi=100)
        with VideoReader() as sound:
            annotate(timeline, Path(folder) / "labeled.mp4", reader, sound)
        info = reader.open(Path(folder) / "labeled.mp4")
        ends = np.cumsum([seconds for _, seconds in SECTIONS])
        middles = [end - seconds / 2 for end, (_, seconds) in zip(ends, SECTIONS, strict=True)]
        places = [int(np.searchsorted(info.timestamps, middle)) for middle in middles]
        frames = reader.read(places).frames
    height, width = frames.shape[1:3]
    sheet = np.full((2 * height + GAP, 3 * width + 2 * GAP, 3), 255, np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // 3 * (height + GAP), number % 3 * (width + GAP)
        sheet[top : top + height, left : left + width] = frame
    Image.fromarray(sheet).save(ROOT / "docs" / "timeline-annotated.jpg", quality=80)


if __name__ == "__main__":
    main()
