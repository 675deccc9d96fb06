"""Rows → tables on a terminal, with bars and colors as far as it has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        console: Another terminal than stdout, for tests.
    """

    shown = True

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(Sink(), Table())
        from rich.console import Console

        self._console = console or Console(highlight=False, markup=False, emoji=False)
        # A table needs this much; on a narrower terminal the lines wrap.
        if self._console.width < LEAST_WIDTH:
            self._console.width = LEAST_WIDTH

    def write(self, row: Values, *, seconds: float | None = None) -> None:
        """Print one clip's table; a failed clip has none, its error stands on stderr."""
        if row.get("error") is not None:
            return
        from rich.text import Text

        self._print(Text(self._safe(row["path"]), style="bold", overflow="fold"))
        self._print(self._table(row["predictions"]))
        for warning in row.get("warnings") or ():
            self._print(Text(self._safe(f"warning: {warning}"), style="yellow", overflow="fold"))
        self._print(Text(self._safe(footer(row, seconds)), style="dim", overflow="fold"))
        self._print("")
        self.rows += 1

    def _finish(self, keep: bool) -> None:
        self._open = False

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

    def _is_unicode(self) -> bool:
        return self._console.encoding.lower().startswith("utf")

    def _bar(self, score: float) -> str:
        share = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
        if not self._is_unicode():
            return "#" * round(share * BAR_WIDTH)
        eighths = round(share * BAR_WIDTH * 8)
        return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


class LinesWriter(TerminalWriter):
    """One line a clip on a terminal: name, score and label, and the runner-up; or why it could not be read.

    Args:
        names: Of the clips, as far as they are known, which the first column is made for.
        console: Another terminal than stdout, for tests.
    """

    def __init__(self, names: Sequence[str], console: Console | None = None) -> None:
        super().__init__(console)
        from rich.cells import cell_len

        longest = max((cell_len(self._safe(name)) for name in names), default=0)
        self._width = min(longest, max(8, self._console.width * 2 // 5))

    def write(self, row: Values, *, seconds: float | None = None) -> None:
        """Print one clip's line."""
        from rich.text import Text

        line = Text(f"{self._name(row['path'])}  ", no_wrap=True)
        if row.get("error") is not None:
            problem = str(row["error"]).removeprefix(f"{row['path']}: ")
            line.append(self._safe(f" error  {problem}"), style="red")
        else:
            best, *others = row["predictions"]
            line.append(f"{100 * best['score']:5.1f}%  ")
            line.append(self._safe(best["label"]), style="bold")
            for other in others[:1]:
                line.append(self._safe(f"  ({100 * other['score']:.1f}% {other['label']})"), style="dim")
        line.truncate(self._console.width, overflow="ellipsis" if self._is_unicode() else "crop")
        self._print(line)
        self.rows += 1

    def _name(self, path: str) -> str:
        """Fit a clip's name into its column; the end of a long path says more than its start."""
        from rich.cells import cell_len, set_cell_size

        name = self._safe(path)
        if cell_len(name) > self._width:
            mark = "…" if self._is_unicode() else ""
            name = name[-self._width :]
            while cell_len(name) > self._width - len(mark):
                name = name[1:]
            name = mark + name
        return set_cell_size(name, self._width)


def footer(row: Values, seconds: float | None = None) -> str:
    """One line under a table: model, views, frames used, decoder, seconds."""
    views = f"{row['views']} views" if row["views"] != 1 else "1 view"
    if row.get("views_used"):
        views = f"{row['views_used']} views scored of {views}"
    crops = f" x {row['crops']} crops" if row["crops"] != 1 else ""
    parts = [row["model"], f"{views}{crops} of {row['frames']} frames, stride {row['stride']}"]
    if row.get("decoder"):
        parts.append(row["decoder"])
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return " | ".join(parts)
