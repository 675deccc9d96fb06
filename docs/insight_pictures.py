"""Make the pictures of docs/embed.md and docs/explain.md: ``PYTHONPATH=. python docs/insight_pictures.py``.

Clips of the synthetic camera-motion task are embedded by the bundled model, and three of them are searched for; the
example clip is explained by each method.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidcls.explain.explanation import METHODS
from vidcls.inference.load import load
from vidcls.search.cosine import nearest
from vidcls.search.vectors import open_vectors
from vidcls.video.reader import VideoReader

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MOST = 150_000  # bytes of a picture
CLIPS, SHOWN = 40, 5


def save(picture: Image.Image, name: str) -> None:
    """Write a picture with a small palette."""
    path = DOCS / name
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size <= MOST, f"{name}: {path.stat().st_size:,} bytes"


def found(folder: Path) -> Image.Image:
    """A row for each of three queries: the query, and what is nearest to it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (
        ("synthesize", "camera-motion", str(folder / "clips"), "--clips", str(CLIPS), "--seed", "9", "-q"),
        ("embed", str(folder / "clips"), "-o", str(folder / "clips.parquet"), "-q"),
    ):
        subprocess.run([sys.executable, "-m", "vidcls", *arguments], env=environment, check=True)
    files = open_vectors([str(folder / "clips.parquet")])
    clips = sorted(str(path) for path in (folder / "clips").glob("*.mp4"))
    width, height, gap, line = 128, 96, 8, 34
    sheet = Image.new("RGB", ((SHOWN + 1) * (width + gap) + gap, 3 * (height + line) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    with VideoReader() as reader:
        for row, query in enumerate((clips[1], clips[4], clips[8])):
            vector = files[0].find(query)
            assert vector is not None
            for place, hit in enumerate(nearest(vector, files, SHOWN + 1)):
                info = reader.open(hit.place.path)
                frame = reader.read(np.array([info.num_frames // 2])).frames[0]
                left, top = gap + place * (width + gap), gap + row * (height + line)
                sheet.paste(Image.fromarray(frame).resize((width, height)), (left, top))
                name = Path(hit.place.path).stem.partition("-")[2].replace("-", " ")
                text = "query" if place == 0 else f"{hit.score:.3f}"
                draw.text((left, top + height + 2), f"{text}\n{name}", "black", font, spacing=1)
    return sheet


def main() -> None:
    """Write docs/search.png and docs/explain-METHOD.png."""
    with tempfile.TemporaryDirectory() as folder:
        save(found(Path(folder)), "search.png")
    os.chdir(ROOT)
    with load("camera-motion", num_views=2) as model:
        for method in METHODS:
            save(model.explain("examples/pan-left.mp4", method=method).plot(), f"explain-{method}.png")


if __name__ == "__main__":
    main()
