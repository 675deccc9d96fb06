"""Write ``docs/reference/cli.md`` from the options of the commands, so that it cannot be out of date.

python docs/cli_reference.py && mkdocs build --strict
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from vidcls.cli.app import app
from vidcls.cli.groups import Command

PAGE = Path(__file__).with_name("reference") / "cli.md"


def cli_page() -> str:
    """All commands with their arguments and options, as Markdown."""
    root: Any = typer.main.get_command(app)
    lines = ["# Command line", "", str(root.help), ""]
    if root.epilog:
        lines += [str(root.epilog), ""]
    for name, command in sorted(root.commands.items()):
        lines += _command(command, f"vidcls {name}")
    return "\n".join(lines)


def _command(command: Any, name: str) -> Iterator[str]:
    if isinstance(command, Command):
        command.spell_out()
    context = command.make_context(name, [], resilient_parsing=True)
    yield from (f"## {name}", "", (command.help or "").strip(), "")
    yield from ("```", " ".join([name, *command.collect_usage_pieces(context)]), "```", "")
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [f"| `{_cell(names)}` | {_prose(text)} |" for names, text in filter(None, records)]
    if rows:
        yield from ("| argument or option | what it does |", "|---|---|", *rows, "")
    for other, child in sorted(getattr(command, "commands", {}).items()):
        yield from _command(child, f"{name} {other}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """A help text in which brackets, angles and stars are what they are, and no links or tags."""
    return re.sub(r"([\[\]<>*])", r"\\\1", _cell(text))


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
