"""All commands in one app. Nothing heavy is imported here: ``vidcls --help`` must answer at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from vidcls.cli import EXIT_INTERRUPTED, guard, print_error, print_message
from vidcls.cli.groups import Command, Group
from vidcls.errors import ConfigError

# name → first sentence of its help: the list of commands imports none of them.
# `vidcls.cli.NAME` holds the function NAME, or COMMANDS, the functions of a group.
COMMANDS = {
    "predict": "Classify clips: print the top labels of each and their scores.",
    "score": "Classify folders of clips, from a handful to millions, into one row per clip.",
    "timeline": "Find what happens when in long videos: segments with a label, start, end and score.",
    "watch": "Print a line whenever the label of a camera or a stream changes, until Ctrl-C or its end.",
    "merge": "Merge the outputs of `vidcls score --shard I/N` into one file, each clip once.",
    "embed": "Turn clips into vectors (embeddings) for search, clustering or a classifier.",
    "search": "Find the clips nearest to a clip, or near duplicates, in the vectors that `vidcls embed` wrote.",
    "explain": "Show where and when a model looked in a clip: heat over its frames, and the weight of each moment.",
    "models": "List the models that vidcls knows, or show one in detail; those that can run immediately come first.",
    "train": "Train or fine-tune a model; several GPUs with ``accelerate launch -m vidcls train …``.",
    "split": "Split a labeled set into training and validation lists, stratified by class and reproducible.",
    "evaluate": "Measure a model's accuracy on a labeled set.",
    "calibrate": "Find out when `--views auto` may stop looking at a clip.",
    "report": "Write a report page: one HTML file that opens offline in any browser.",
    "synthesize": "Generate labeled mp4 clips whose camera motion is known exactly.",
    "export": "Write a model for another runtime, or a checkpoint of any published format as one safetensors file.",
    "doctor": "Check versions, decoders, devices and caches; report what is missing and how to install it.",
    "bench": "Measure how fast models, decoders, the whole command and the batch pipeline are on this machine.",
}
LIKE_A_SOURCE = frozenset("./\\*?[@:")  # in a path, a glob, a list or a URL, and in no command's name
HELP = {"help_option_names": ["-h", "--help"]}


class Commands(Group):
    """The commands of vidcls; a clip in place of a command's name is classified."""

    default = "predict"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": Built()})

    def takes(self, args: list[str]) -> bool:
        """Whether the first argument is a source of clips and not a command's name."""
        if not args or args[0] in self.commands:
            return False
        first = args[0]
        return first == "-" or (
            first[:1] != "-" and (bool(LIKE_A_SOURCE & set(first)) or os.path.exists(first))
        )

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page, for which no command is built."""
        listing = copy(self)
        listing.commands = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}
        super(Commands, listing).format_help(ctx, formatter)


class Built(Mapping[str, Any]):
    """The commands by name, each imported and built when it is asked for."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            if name not in COMMANDS:
                raise KeyError(name)
            self._built[name] = build(name)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS


def functions(name: str) -> tuple[Callable[..., Any], ...]:
    """Import the function of a command, or those of a group."""
    module = import_module(f"vidcls.cli.{name}")
    return getattr(module, "COMMANDS", ()) or (getattr(module, name),)


def build(name: str) -> Any:
    """Import a command, or a group of which the first is the default, and build what parses its arguments."""
    found = functions(name)
    one = typer.Typer(add_completion=False, rich_markup_mode="markdown", context_settings=HELP)
    if len(found) > 1:
        one.info.cls = type("Group", (Group,), {"default": found[0].__name__})
        one.info.help = COMMANDS[name]
    for function in found:
        guarded: Any = guard(function)
        one.command(cls=type("Command", (Command,), {"flags": guarded.flags}))(guarded)
    built = typer.main.get_command(one)
    built.name = name
    return built


app = typer.Typer(
    name="vidcls",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    context_settings=HELP,
    help="Classify videos with pure-transformer models: `vidcls clip.mp4` names what is in a clip.",
    epilog="Every option reads an environment variable (`--decode-timeout` reads VIDCLS_DECODE_TIMEOUT), and its "
    "default may stand in `config.toml` or `./vidcls.toml`; `vidcls doctor` shows what is set.",
)


def _version(value: bool) -> None:
    if value:
        from vidcls import __version__

        typer.echo(f"vidcls {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        return
    from vidcls.cli.config_file import apply

    try:
        apply(context)
    except ConfigError as error:
        print_error(error)
        raise typer.Exit(error.exit_code) from None


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
