"""Make the README's picture of a terminal: ``python docs/picture.py`` (not on Windows).

The command runs on a pseudo-terminal, as a person would see it, and what it prints becomes an SVG by rich.
"""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
ARGUMENTS = ["predict", "examples/pan-left.mp4"]
COLUMNS = 80


def capture(arguments: list[str]) -> str:
    """What ``vidcls`` prints on a terminal, with its colors."""
    chunks: list[bytes] = []

    def read(descriptor: int) -> bytes:
        chunk = os.read(descriptor, 4096)
        chunks.append(chunk)
        return chunk

    os.chdir(ROOT)
    os.environ.update(COLUMNS=str(COLUMNS), TERM="xterm-256color")
    status = pty.spawn([sys.executable, "-m", "vidcls", *arguments], read)
    if status:
        sys.exit(f"vidcls {' '.join(arguments)} failed")
    return b"".join(chunks).decode()


def main() -> None:
    """Write ``docs/predict.svg``."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text(f"$ vidcls {' '.join(ARGUMENTS)}", style="bold"))
    # Carriage returns draw bars; only what stays on the screen belongs in the picture.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in capture(ARGUMENTS).split("\n")]
    console.print(Text.from_ansi("\n".join(lines).strip("\n")))
    # rich's picture would fetch its font from elsewhere; the reader's own monospaced one does.
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="vidcls"), flags=re.DOTALL)
    (ROOT / "docs" / "predict.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
