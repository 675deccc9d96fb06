"""All commands in one app. Nothing heavy is imported here: ``vidcls --help`` must answer at once."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from vidcls.cli import EXIT_INTERRUPTED, guard, say
from vidcls.cli.bench import bench
from vidcls.cli.convert import convert
from vidcls.cli.doctor import doctor
from vidcls.cli.evaluate import evaluate
from vidcls.cli.merge import merge
from vidcls.cli.models import models
from vidcls.cli.predict import predict
from vidcls.cli.quantize import quantize
from vidcls.cli.score import score
from vidcls.cli.synthesize import synthesize
from vidcls.cli.train import train

app = typer.Typer(
    name="vidcls",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Say what is in a video, with the pure-transformer models of 2021.",
)


def _version(value: bool) -> None:
    if value:
        from vidcls import __version__

        typer.echo(f"vidcls {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


for command in (predict, score, merge, models, train, evaluate, synthesize, convert, bench, quantize, doctor):
    app.command()(guard(command))


def _terminate(number: int, frame: object) -> NoReturn:
    """End as Ctrl-C does, so that temporary files are deleted."""
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the ``vidcls`` command and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="vidcls")
    except KeyboardInterrupt:
        say("vidcls: interrupted")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)
