"""Rows → tables on a terminal, with bars and colors as far as it has them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vidcls.errors import printable
from vidcls.output.base import Values, Writer
from vidcls.output.sinks import Sink, write_error
from vidcls.output.table import Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BAR_WIDTH = 24  # columns of a full bar
LEAST_WIDTH = 28  # columns of a table without bars
NARROW = 56  # columns of a terminal below which bars give way to labels


class TerminalWriter(Writer):
    """A table per clip on a terminal, with bars and colors as far as it has them (NO_COLOR is heeded).

    Args:
        hint: One line printed under the last table.
        console: Another terminal than stdout, for tests.
    """

    def __init__(self, hint: str | None = None, console: Console | None = None) -> None:
        super().__init__(Sink(), Table())
        from rich.console import Console

        self._console = console or Console(highlight=False, markup=False, emoji=False)
        # A table needs this much; on a narrower terminal the lines wrap.
        if self._console.width < LEAST_WIDTH:
            self._console.width = LEAST_WIDTH
        self._hint = hint

    def write(self, row: Values, *, seconds: float | None = None) -> None:
        """Print one clip's table; a failed clip has none, its error stands on stderr."""
        if row.get("error") is not None:
            return
        from rich.text import Text

        self._print(Text(self._safe(row["path"]), style="bold", overflow="fold"))
        self._print(self._table(row["predictions"]))
        for warning in row.get("warnings") or ():
            self._print(Text(self._safe(f"warning: {warning}"), style="yellow", overflow="fold"))
        self._print(Text(self._safe(_footer(row, seconds)), style="dim", overflow="fold"))
        self._print("")
        self.rows += 1

    def _finish(self, keep: bool) -> None:
        self._open = False
        if self._hint and self.rows:
            from rich.text import Text

            self._print(Text(self._safe(self._hint), style="dim", overflow="fold"))

    def _print(self, line: RenderableType) -> None:
        try:
            self._console.print(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error("stdout", error) from None

    def _safe(self, text: str) -> str:
        """Escape what would steer the terminal, and what its encoding cannot show."""
        encoding = self._console.encoding
        return printable(text).encode(encoding, "backslashreplace").decode(encoding)

    def _table(self, predictions: list[dict[str, Any]]) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("rank", justify="right", no_wrap=True)
        table.add_column("label", overflow="fold", min_width=8)
        wide = self._console.width >= NARROW
        if wide:
            table.add_column("", no_wrap=True, width=BAR_WIDTH)
        table.add_column("score", justify="right", no_wrap=True, min_width=6)
        for p in predictions:
            label = Text(self._safe(p["label"]), style="bold" if p["rank"] == 1 else "")
            bar = [Text(self._bar(p["score"]), style="cyan")] if wide else []
            table.add_row(str(p["rank"]), label, *bar, f"{100 * p['score']:.1f}%")
        return table

    def _bar(self, score: float) -> str:
        share = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
        if not self._console.encoding.lower().startswith("utf"):
            return "#" * round(share * BAR_WIDTH)
        eighths = round(share * BAR_WIDTH * 8)
        return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _footer(row: Values, seconds: float | None) -> str:
    """One line under a table: model, views, frames used, decoder, seconds."""
    views = f"{row['views']} views" if row["views"] != 1 else "1 view"
    crops = f" x {row['crops']} crops" if row["crops"] != 1 else ""
    parts = [row["model"], f"{views}{crops} of {row['num_frames']} frames, stride {row['stride']}"]
    if row.get("decoder"):
        parts.append(row["decoder"])
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return " | ".join(parts)
