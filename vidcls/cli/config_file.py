"""Defaults of options from files: ``config.toml`` of the user, and ``vidcls.toml`` in the current folder.

Each has a table for a command, with the options as its keys::

    [predict]
    model = "vivit-b-16x2-k400-hf"
    top-k = 3

    [bench.models]
    seconds = 5

The command line wins over the environment, that over ``vidcls.toml``, and that over ``config.toml``. ``vidcls.toml``
may have come with a stranger's folder: it may set only what ``LOCAL`` names, and that it is used is said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidcls.cli import print_message
from vidcls.cli.groups import WORDS
from vidcls.errors import ConfigError, UsageError, nearest, printable

LOCAL_FILE, USER_FILE = "vidcls.toml", "config.toml"
MAX_BYTES = 1 << 16  # of a file
NEVER = frozenset(("output", "overwrite"))  # what is replaced is said by whoever starts the command
# Parameters that neither name a file or an address nor write, delete or hide anything: how clips are looked at.
LOCAL = frozenset(
    (
        "model num_views num_crops num_frames stride fps average top_k offline device precision engine decoder "
        "decode_timeout workers batch_size recursive path_column format wide json verbose all_scores seconds spread "
        "by window step min_length threshold method cells layer per every hold"
    ).split()
)


@dataclass(frozen=True)
class Setting:
    """One option's default, as a file has it.

    Attributes:
        path: The file.
        command: Words of the command, such as ``("bench", "models")``.
        name: The option's parameter.
        flag: The option.
        value: Its value, of the option's type.
    """

    path: Path
    command: tuple[str, ...]
    name: str
    flag: str
    value: Any

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return self.flag if self.value else f"--no-{self.flag[2:]}"
        values = self.value if isinstance(self.value, list) else [self.value]
        return printable(" ".join(f"{self.flag} {value}" for value in values))


def config_files() -> list[Path]:
    """Return the files that exist, the strongest last."""
    from vidcls.paths import user_config_dir

    user = user_config_dir() / USER_FILE
    return [path for path in (user, Path(LOCAL_FILE)) if path.is_file()]


def read_settings(root: Any, paths: list[Path] | None = None) -> list[Setting]:
    """Read the files.

    Args:
        root: The app's group of commands.
        paths: By default all files that exist.

    Raises:
        ConfigError: A file is not valid; its subject is the file, and the problem names the key.
    """
    paths = config_files() if paths is None else paths
    return [setting for path in paths for setting in _settings(path, _load(path), root, ())]


def default_map(settings: list[Setting]) -> dict[str, Any]:
    """Return the settings by command and parameter, as Typer looks defaults up."""
    found: dict[str, Any] = {}
    for setting in settings:
        table = found
        for word in setting.command:
            table = table.setdefault(word, {})
        table[setting.name] = setting.value
    return found


def apply(context: Any) -> None:
    """Give the options of the command that was called their defaults, and say what the current folder's file sets.

    Raises:
        ConfigError: A file is not valid, and neither a help page nor `vidcls doctor` was asked for, which say so.
    """
    words = context.meta.get(WORDS, ())
    name = context.invoked_subcommand
    try:
        settings = read_settings(context.command)
    except ConfigError:
        if name == "doctor" or {"-h", "--help"} & set(words):
            return
        raise
    context.default_map = default_map(settings)
    local = [str(one) for one in settings if one.path == Path(LOCAL_FILE) and one.command[0] == name]
    if local and not {"-q", "--quiet"} & set(words):
        print_message(f"vidcls: defaults from ./{LOCAL_FILE}: {' '.join(local)}")


def _load(path: Path) -> Mapping[str, Any]:
    # Neither is imported unless there is such a file.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _error(path, f"cannot be read ({error.strerror or error})", "check its permissions") from None
    if len(data) > MAX_BYTES:
        raise _error(path, f"is larger than {MAX_BYTES >> 10} KiB", "keep only the options to change")
    try:
        found: dict[str, Any] = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _error(path, f"is not valid TOML ({error})", "fix that line") from None
    return found


def _settings(path: Path, table: Mapping[str, Any], group: Any, words: tuple[str, ...]) -> Iterator[Setting]:
    """Yield the settings of a table whose keys are commands."""
    for key, value in table.items():
        where = ".".join((*words, key))
        if key not in group.commands:
            if not isinstance(value, dict):
                raise _error(
                    path, f"{where} is not in a table", f"put it below [{words[0] if words else 'predict'}]"
                )
            raise _error(
                path, f"[{where}]: no such command{nearest(key, group.commands)}", "fix or delete the table"
            )
        if not isinstance(value, dict):
            raise _error(path, f"{where} is a command, not an option", f"write a table: [{where}]")
        command = group.commands[key]
        if hasattr(command, "commands"):
            yield from _settings(path, value, command, (*words, key))
        else:
            for option, given in value.items():
                yield _setting(path, (*words, key), command, option, given)


def _setting(path: Path, words: tuple[str, ...], command: Any, key: str, value: Any) -> Setting:
    where = f"[{'.'.join(words)}] {key}"
    options = {p.opts[0].lstrip("-"): p for p in command.params if p.param_type_name == "option"}
    name = key.replace("_", "-")
    if name not in options:
        hint = nearest(name, options)
        raise _error(path, f"{where}: no such option{hint}", f"see `vidcls {' '.join(words)} --help`")
    option = options[name]
    local = path == Path(LOCAL_FILE)
    if option.name in NEVER or (local and option.name not in LOCAL):
        remedy = "give it on the command line" + (
            "" if option.name in NEVER else f", or in your own {USER_FILE}"
        )
        raise _error(path, f"{where}: cannot be set {'here' if local else 'in a file'}", remedy)
    found = _value(path, where, command, option, value)
    if local and option.name == "model":
        _check_model(path, where, found)
    return Setting(path, words, option.name, option.opts[0], found)


def _value(path: Path, where: str, command: Any, option: Any, value: Any) -> Any:
    """Return a value of the option's type, checked as the command line's is."""
    if option.is_flag != isinstance(value, bool) or isinstance(value, dict):
        problem = "takes true or false" if option.is_flag else "is not a switch"
        raise _error(path, f"{where}: {problem}", "fix its value")
    if not option.is_flag:
        many = option.multiple and isinstance(value, list)
        value = [str(one) for one in value] if many else [str(value)] if option.multiple else str(value)
    from typer import BadParameter

    context = command.make_context(where, [], resilient_parsing=True)
    try:
        option.process_value(context, value)
        choices = command.flags.choices.get(option.name)
        if choices is not None:
            choices.check(option.opts[0], value)
    except BadParameter as error:
        raise _error(path, f"{where}: {error.message}", "fix its value") from None
    except UsageError as error:
        raise _error(path, f"{where}: {error.problem}", error.remedy) from None
    return value


def _check_model(path: Path, where: str, name: str) -> None:
    """Refuse a path or an address: a stranger's file may choose a model that is known, and no file of weights."""
    from vidcls.config import load_registry

    known = load_registry()
    if name not in known:
        problem = f"{where}: {name!r} is not a model of the registry{nearest(name, known)}"
        raise _error(path, problem, f"give it on the command line, or in your own {USER_FILE}")


def _error(path: Path, problem: str, remedy: str) -> ConfigError:
    name = f".{os.sep}{path}" if path == Path(LOCAL_FILE) else str(path)
    return ConfigError(printable(name), printable(problem), remedy)
