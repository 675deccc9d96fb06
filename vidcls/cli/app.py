"""All commands in one app. Nothing heavy is imported here: ``vidcls --help`` must answer at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from vidcls.cli import EXIT_INTERRUPTED, bench, guard, print_message
from vidcls.cli.doctor import doctor
from vidcls.cli.evaluate import evaluate
from vidcls.cli.export import export
from vidcls.cli.groups import Command, Group
from vidcls.cli.merge import merge
from vidcls.cli.models import models
from vidcls.cli.predict import predict
from vidcls.cli.score import score
from vidcls.cli.split import split
from vidcls.cli.synthesize import synthesize
from vidcls.cli.train import train

COMMANDS = (predict, score, merge, models, train, split, evaluate, synthesize, export, doctor)
LIKE_A_SOURCE = frozenset("./\\*?[@:")  # in a path, a glob, a list or a URL, and in no command's name
HELP = {"help_option_names": ["-h", "--help"]}


class Commands(Group):
    """The commands of vidcls; a clip in place of a command's name is classified."""

    default = "predict"

    def takes(self, args: list[str]) -> bool:
        """Whether the first argument is a source of clips and not a command's name."""
        if not args or args[0] in self.commands:
            return False
        first = args[0]
        return first == "-" or (
            first[:1] != "-" and (bool(LIKE_A_SOURCE & set(first)) or os.path.exists(first))
        )


class BenchCommands(Group):
    """The commands of ``vidcls bench``; without a name, the models' forward passes are measured."""

    default = "models"


def add(app: typer.Typer, *commands: Callable[..., Any]) -> None:
    """Add functions to an app as its commands."""
    for command in commands:
        guarded: Any = guard(command)
        app.command(cls=type("Command", (Command,), {"flags": guarded.flags}))(guarded)


app = typer.Typer(
    name="vidcls",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    context_settings=HELP,
    help="Classify videos with pure-transformer models: `vidcls clip.mp4` names what is in a clip.",
    epilog="Every option reads an environment variable: `--decode-timeout` reads VIDCLS_DECODE_TIMEOUT.",
)
add(app, *COMMANDS)
benchmarks = typer.Typer(cls=BenchCommands, context_settings=HELP, help=bench.__doc__)
add(benchmarks, bench.models, bench.decode, bench.predict, bench.score)
app.add_typer(benchmarks, name="bench")


def _version(value: bool) -> None:
    if value:
        from vidcls import __version__

        typer.echo(f"vidcls {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def _terminate(number: int, frame: object) -> NoReturn:
    """End as Ctrl-C does, so that temporary files are deleted."""
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the ``vidcls`` command and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="vidcls")
    except KeyboardInterrupt:
        print_message("vidcls: interrupted")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)
