"""How fast a page of 10,000 clips is written and opened, and how large it is.

    python benchmarks/report_page.py [CLIPS]

Needs Chromium and playwright. Rows are made up; the frames are those of one clip that is there many times. The time to
open is from the start of the navigation until the table is on the screen, in the browser's own clock, median of five.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.report.browser import CHROMIUM, chromium  # noqa: E402
from tests.report.rows import random_rows, write_rows  # noqa: E402
from vidcls.report.page import make_page  # noqa: E402

THUMBNAILS = 200
TIMES = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => {
  const start = performance.now();
  document.getElementById("tab-clips").click();
  document.body.getBoundingClientRect();
  const table = performance.now();
  document.querySelectorAll("#clips .sort")[2].click();
  document.body.getBoundingClientRect();
  const sorted = performance.now();
  const search = document.querySelector("#clips input");
  search.value = "0099";
  search.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  const found = performance.now();
  const loaded = performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd;
  done({ loaded, table: table - start, sorted: sorted - table, found: found - sorted,
         nodes: document.querySelectorAll("*").length });
})))"""


def measure(browser: Any, page: Path) -> dict[str, float]:
    """Open a page five times → medians, in milliseconds."""
    runs = []
    for _ in range(5):
        tab = browser.new_page()
        tab.goto(page.absolute().as_uri())
        runs.append(tab.evaluate(TIMES))
        tab.close()
    return {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}


def main() -> None:
    clips = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    results = []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        os.chdir(folder)
        Path("clips").mkdir()
        for number in range(THUMBNAILS):
            shutil.copy(ROOT / "examples" / "pan-left.mp4", f"clips/{number:05d}.mp4")
        labels = [f"label {number}" for number in range(400)]
        source = write_rows(Path("scores.jsonl"), random_rows(clips, labels))
        for thumbnails in (0, THUMBNAILS):
            started, used = time.perf_counter(), time.process_time()
            make_page(source, "page.html", thumbnails=thumbnails, overwrite=True)
            results.append(
                {
                    "clips": clips,
                    "thumbnails": thumbnails,
                    "written, s": round(time.perf_counter() - started, 2),
                    "processor s (without decoders)": round(time.process_time() - used, 2),
                    "MB": round(Path("page.html").stat().st_size / 1e6, 2),
                    **measure(browser, Path("page.html")),
                }
            )
        os.chdir(ROOT)
    print(json.dumps({"browser": CHROMIUM, "results": results}, indent=1))


if __name__ == "__main__":
    main()
