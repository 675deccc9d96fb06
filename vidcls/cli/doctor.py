"""``vidcls doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Any

import typer

from vidcls.cli import options as o
from vidcls.errors import ConfigError, printable

if TYPE_CHECKING:
    from vidcls.doctor.report import Report, Row

STYLES = {"ok": "", "note": "yellow", "missing": "red", "broken": "red"}
EXIT_CANNOT_PREDICT = 3


def doctor(context: typer.Context, json: o.JsonOption = False) -> int:
    """Check versions, decoders, devices and caches; report what is missing and how to install it.

    Exit code 0 when clips can be classified here, 3 when they cannot.

    Examples:
    - `vidcls doctor`
    - `vidcls doctor --json`
    """
    from vidcls.doctor.report import report

    root = context.find_root().command
    found = report(_variables_of_options(root), _configuration(root))
    if json:
        print(json_module.dumps(found.as_dict(), indent=2))
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        print(_plain(found))
    return 0 if found.ok else EXIT_CANNOT_PREDICT


def _configuration(root: Any) -> list[tuple[str, str, ConfigError | None]]:
    """Return each file of defaults, what it sets, and why it cannot be read."""
    from vidcls.cli.config_file import config_files, read_settings

    found: list[tuple[str, str, ConfigError | None]] = []
    for path in config_files():
        try:
            settings = read_settings(root, [path])
        except ConfigError as error:
            found.append((str(path), "", error))
        else:
            found.append((str(path), ", ".join(f"{' '.join(s.command)} {s}" for s in settings), None))
    return found


def _variables_of_options(command: Any) -> set[str]:
    """Environment variables that any option of a command, or of those below it, reads."""
    found = {name for parameter in command.params for name in _names(parameter.envvar)}
    return found.union(*map(_variables_of_options, getattr(command, "commands", {}).values()))


def _names(variable: str | list[str] | None) -> list[str]:
    return [variable] if isinstance(variable, str) else variable or []


def verdict(found: Report) -> str:
    """One line: whether clips can be classified here, and if not, why."""
    if found.ok:
        return "Clips can be classified here."
    return f"No clip can be classified here: see {', '.join(row.name for row in found.problems)}."


def _cells(row: Row) -> tuple[str, str, str]:
    remedy = f"{row.status}: {row.remedy}" if row.remedy else "" if row.status == "ok" else row.status
    return printable(row.name), printable(row.value), printable(remedy)


def _plain(found: Report) -> str:
    """One finding a line: section, name, value and what to do, with tabs between them."""
    lines = [
        "\t".join((section.title, *_cells(row))).rstrip("\t")
        for section in found.sections
        for row in section.rows
    ]
    return "\n".join([*lines, verdict(found)])


def _print_table(found: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    width = max(len(row.name) for section in found.sections for row in section.rows)
    for section in found.sections:
        if not section.rows:
            continue
        table = Table(box=None, show_header=False, pad_edge=False, title=section.title, title_justify="left")
        table.title_style = "bold"
        table.add_column(width=width + 1, no_wrap=True)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for row in section.rows:
            # Text, not markup: a path may hold square brackets.
            name, value, remedy = (Text(cell) for cell in _cells(row))
            remedy.stylize(STYLES[row.status])
            table.add_row(name, value, remedy)
        console.print(table)
        console.print()
    console.print(verdict(found), style="bold" if found.ok else "bold red")
