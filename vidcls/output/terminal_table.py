"""Tables of figures that fit a terminal: what is needed least gives way, and one row is printed as a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GAP = 2  # blanks between columns


def print_columns(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[str],
    dispensable: Sequence[str],
    as_list: bool = True,
) -> list[str]:
    """Print rows to a terminal.

    Args:
        headings: Names of the columns.
        rows: Their cells.
        left: Columns of text; figures stand at the right.
        dispensable: Columns that a narrow terminal goes without, in this order.
        as_list: Print a single row that does not fit as one line for each of its cells.

    Returns:
        The columns that were left out.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    width = {name: max(len(row[n]) for row in (headings, *rows)) for n, name in enumerate(headings)}
    if as_list and len(rows) == 1 and _room(width.values()) > console.width:
        for name, cell in zip(headings, rows[0], strict=True):
            console.print(Text(f"{name:<{max(map(len, headings))}}  {cell}"))
        return []
    shown = list(headings)
    for name in filter(headings.__contains__, dispensable):
        if _room(width[other] for other in shown) <= console.width:
            break
        shown.remove(name)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in shown:
        table.add_column(Text(name), justify="left" if name in left else "right", no_wrap=True)
    for row in rows:
        # Text, not markup: a name of the person's own may hold square brackets.
        table.add_row(*(Text(cell) for name, cell in zip(headings, row, strict=True) if name in shown))
    console.print(table)
    return [name for name in headings if name not in shown]


def _room(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) - GAP
