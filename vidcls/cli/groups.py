"""Options declared once: a command takes dataclasses, and each of their fields is an option on the command line.

A field is declared as Typer has it, ``name: Annotated[type, typer.Option(...)] = default``. Every option also reads
the environment variable that its flag names: ``--decode-timeout`` reads ``VIDCLS_DECODE_TIMEOUT``.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from vidcls.errors import DependencyError, UsageError, VidclsError, nearest

ENVIRONMENT = "VIDCLS_"
WORDS = "vidcls.words"  # under which a context keeps what stood on the command line
MAX_METAVAR = 20  # characters that fit beside a help text at 80 columns

Found = TypeVar("Found")


@dataclass(frozen=True)
class Choices:
    """The words that an option takes, as metadata of its field.

    Attributes:
        source: The words, or ``module:NAME`` of the dict whose keys they are, imported when they are needed.
        also: Words beside the dict's keys.
    """

    source: str | tuple[str, ...]
    also: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """Return the words, in the dict's order."""
        words = self.source
        if isinstance(words, str):
            module, name = words.split(":")
            words = tuple(getattr(import_module(module), name))
        return tuple(dict.fromkeys((*self.also, *words)))

    def complete(self, incomplete: str) -> list[str]:
        """Offer the words to the shell."""
        return [word for word in self.words() if word.startswith(incomplete)]

    def check(self, flag: str, value: Any) -> None:
        """Refuse what is not one of the words."""
        for word in value if isinstance(value, list) else [value]:
            if word is not None and word not in self.words():
                words = self.words()
                raise UsageError(
                    flag, f"unknown choice {word!r}{nearest(word, words)}", f"choose from {', '.join(words)}"
                )


class Options:
    """Base of the dataclasses that commands take."""

    def keywords(self) -> dict[str, Any]:
        """Return the fields as keywords for the library."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def keywords(*groups: Options) -> dict[str, Any]:
    """Return the fields of all groups together as keywords for the library."""
    return {name: value for group in groups for name, value in group.keywords().items()}


def arguments(*groups: Options) -> list[str]:
    """Write the options that are not at their default as arguments of another command."""
    found: list[str] = []
    for group in groups:
        for parameter in _fields(type(group)):
            value = getattr(group, parameter.name)
            if value != parameter.default:
                flag = _flag(parameter.name, _metadata(parameter.annotation, ParameterInfo)[0])
                switch = {True: [flag], False: [f"--no-{flag[2:]}"]} if isinstance(value, bool) else {}
                found += switch.get(value) or [flag, str(value)]
    return found


@dataclass(frozen=True)
class Flags:
    """What a command's parameters are called on the command line.

    Attributes:
        names: Parameter → flag, or the metavar of an argument.
        choices: Parameter → the words it takes.
    """

    names: Mapping[str, str]
    choices: Mapping[str, Choices]

    def translate(self, error: VidclsError) -> str:
        """Return an error's text with flags in place of parameters, one that is the subject included."""
        text = str(error)
        if isinstance(error, (UsageError, DependencyError)) and error.subject in self.names:
            text = self.names[error.subject] + text[len(error.subject) :]
        return self.translate_text(text)

    def translate_text(self, text: str) -> str:
        """Return a text with flags in place of parameters that have a value as Python writes it.

        ``num_frames=16`` becomes ``--frames 16``, and ``offline=True`` becomes ``--offline``.
        """
        if not self.names:
            return text
        names = "|".join(map(re.escape, self.names))
        return re.sub(rf"(?<![\w./\\-])({names})=('[^']*'|\"[^\"]*\"|[\w.:/|-]*[\w/|-])", self._flag, text)

    def _flag(self, match: re.Match[str]) -> str:
        value = match[2].strip("'\"")
        return self.names[match[1]] if value == "True" else f"{self.names[match[1]]} {value}"

    def check(self, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Refuse values that are not among the choices; a default is not looked up."""
        for name, choices in self.choices.items():
            if values[name] != defaults[name]:
                choices.check(self.names[name], values[name])


def expand(command: Callable[..., Any]) -> tuple[Callable[..., Any], Flags]:
    """Give Typer the fields of a command's dataclasses one by one, and the command its dataclasses.

    Returns:
        The command, called with one value for each option; and what its parameters are called.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters += _fields(hints[name])
        else:
            parameters.append(_parameter(name, hints[name], parameter.default))
    flags = Flags(
        {p.name: _flag(p.name, info) for p in parameters for info in _metadata(p.annotation, ParameterInfo)},
        {p.name: choices for p in parameters for choices in _metadata(p.annotation, Choices)},
    )
    defaults = {p.name: p.default for p in parameters}

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        flags.check(values, defaults)
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run, flags


def _fields(group: type[Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield _parameter(field.name, hints[field.name], default)


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    """Declare one parameter: an option reads its environment variable and completes its choices."""
    for info in _metadata(hint, OptionInfo):
        completed = copy.copy(info)
        completed.show_envvar = False
        if not info.is_eager:
            completed.envvar = ENVIRONMENT + _flag(name, info).removeprefix("--").replace("-", "_").upper()
        if info.metavar is None and not _metadata(hint, Choices):
            kind = get_args(hint)[0]
            completed.metavar = (
                "N" if {int, float} & {kind, *get_args(kind)} else "" if kind is bool else None
            )
        for choices in _metadata(hint, Choices):
            completed.autocompletion = choices.complete
        annotated: Any = Annotated
        hint = annotated[tuple(completed if one is info else one for one in get_args(hint))]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _metadata(hint: Any, kind: type[Found]) -> list[Found]:
    return (
        [one for one in get_args(hint)[1:] if isinstance(one, kind)] if get_origin(hint) is Annotated else []
    )


def _flag(name: str, info: ParameterInfo) -> str:
    if isinstance(info, ArgumentInfo):
        return (info.metavar or name.upper()).removesuffix("...")
    # Typer holds the first name of an annotated option as its default.
    spelled = [str(one) for one in (info.default, *(info.param_decls or ())) if str(one).startswith("--")]
    return spelled[0].split("/")[0] if spelled else "--" + name.replace("_", "-")


class Command(TyperCommand):
    """A command whose help spells the choices out; they are looked up only when the help is shown."""

    flags = Flags({}, {})

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        self.spell_out()
        super().format_help(ctx, formatter)

    def spell_out(self) -> None:
        """Name the words that each option takes; many of them stand in the text, where lines may break."""
        for parameter in self.params:
            choices = self.flags.choices.get(parameter.name or "")
            if choices is None or parameter.metavar is not None:
                continue
            parameter.metavar = "|".join(choices.words())
            if len(parameter.metavar) > MAX_METAVAR:
                parameter.metavar = (parameter.name or "").upper()
                parameter.help = f"{parameter.help}  [one of {', '.join(choices.words())}]"  # type: ignore[attr-defined]


class Group(TyperGroup):
    """Commands of which one runs where none is named; ``vidcls help NAME`` is ``vidcls NAME --help``."""

    default = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the default command where none is named."""
        ctx.meta.setdefault(WORDS, tuple(args))
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        elif self.takes(args):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def takes(self, args: list[str]) -> bool:
        """Whether these are arguments of the default command: options, or nothing at all."""
        return not args or (args[0].startswith("-") and args[0] not in ("-h", "--help"))
