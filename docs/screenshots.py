"""Make the pictures of pages in the documentation: ``python docs/screenshots.py [FOLDER]``.

It needs Chromium and playwright. What the pages are about is made in FOLDER, and found there by the next call.

Clips of the synthetic camera-motion task are evaluated and scored by the bundled model, some of them are joined into a
film, and the pages about all this are photographed.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
MOST = 150_000  # bytes of a picture
WIDE, NARROW = (1280, 860), (400, 860)


def vidcls(*arguments: str) -> None:
    """Run a command; some clips are meant to fail."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "vidcls", *arguments], env=environment)
    if done.returncode not in (0, 1):
        sys.exit(f"vidcls {' '.join(arguments)} failed")


def make_results() -> None:
    """Write everything that is photographed into the current folder."""
    vidcls("synthesize", "camera-motion", "clips", "--clips", "60", "--seed", "5")
    vidcls("evaluate", "--data", "clips", "-o", "evaluation", "-q")
    Path("clips/cut-off.mp4").write_bytes(Path("clips/00000-static.mp4").read_bytes()[:2000])
    Path("clips/notes.mp4").write_text("This is text.")
    Path("clips/empty.mov").touch()
    vidcls("score", "clips", "-o", "scores.jsonl", "-q")
    vidcls("report", "scores.jsonl", "-o", "scores.html")
    join(sorted(Path("clips").glob("0002*.mp4")), Path("film.mp4"))
    vidcls("timeline", "film.mp4", "-o", "film.json", "-q")
    vidcls("report", "film.json", "-o", "film.html")


def join(clips: list[Path], film: Path) -> None:
    """Encode clips one after the other into one video of 340×256."""
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        count = 0
        for clip in clips:
            with av.open(str(clip)) as source:
                for frame in source.decode(video=0):
                    shown = frame.reformat(340, 256, "yuv420p")
                    shown.pts, shown.time_base = count, Fraction(1, 25)
                    count += 1
                    container.mux(stream.encode(shown))
        container.mux(stream.encode(None))


def photograph(
    browser: Any, page: str, name: str, size: tuple[int, int], scheme: str, act: Callable[[Any], object]
) -> None:
    """Take one picture of a page after something was done on it, in as many colors as its size allows."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(Path(page).absolute().as_uri())
    act(tab)
    tab.wait_for_timeout(800)
    picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    context.close()
    target = DOCS / name
    for colors in (None, 256, 128):
        shown = picture if colors is None else picture.quantize(colors, kmeans=2, dither=Image.Dither.NONE)
        shown.save(target, optimize=True)
        if target.stat().st_size <= MOST:
            break
    else:
        sys.exit(f"{name} is larger than {MOST} bytes")
    print(f"{name}: {target.stat().st_size:,} bytes, {colors or 'all'} colors")


def open_tab(title: str) -> Callable[[Any], object]:
    """Choose a part of the page."""
    return lambda page: page.get_by_role("tab", name=title).click()


def open_clip(page: Any) -> None:
    """Open a clip in the table."""
    open_tab("Clips")(page)
    page.locator("#clips tbody .name").nth(2).click()


def scrub(page: Any) -> None:
    """Go to a moment of a timeline."""
    open_tab("Timelines")(page)
    box = page.locator(".segments").bounding_box()
    page.mouse.click(box["x"] + 0.55 * box["width"], box["y"] + 20)


def main() -> None:
    """Write the pictures beside this script."""
    from tests.report.browser import chromium

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        if not Path("film.html").exists():
            make_results()
        with chromium() as browser:
            photograph(browser, "scores.html", "report-summary.png", WIDE, "light", open_tab("Summary"))
            photograph(browser, "scores.html", "report-clips.png", WIDE, "light", open_tab("Clips"))
            photograph(browser, "scores.html", "report-clip.png", WIDE, "light", open_clip)
            photograph(browser, "scores.html", "report-narrow.png", NARROW, "dark", open_tab("Clips"))
            page = "evaluation/report.html"
            photograph(browser, page, "report-confusion.png", WIDE, "light", open_tab("Confusion matrix"))
            photograph(browser, "film.html", "report-timeline.png", WIDE, "dark", scrub)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
