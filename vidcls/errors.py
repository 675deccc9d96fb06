"""Every error that vidcls raises on purpose, drawn as one tree.

The text of each reads *subject: what is wrong; what to do*, and each class knows the exit code of a command
that ends with it: 1 some inputs failed, 2 usage, 3 model or environment.

The library speaks of parameters, and ``cli/`` turns them into flags: a `UsageError`'s subject may be a parameter's
name, and any text may hold one with a value as Python writes it, such as ``engine="eager"`` or ``offline=True``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import ClassVar

MAX_WORD = 100  # characters that are compared with known names


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` for the known word nearest to ``word``, or an empty string."""
    import difflib

    names = [str(name) for name in known]
    matches = difflib.get_close_matches(str(word)[:MAX_WORD], names, n=1, cutoff=0.6)
    return f", did you mean {matches[0]!r}?" if matches else ""


def counted(number: int, noun: str) -> str:
    """Return ``1 clip``, ``2 clips`` or ``1,000 clips``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_line(error: object) -> str:
    """Return the first line of what an error says, at most 300 characters of it; its class where it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return line[:300] or type(error).__name__


def printable(text: str) -> str:
    r"""Show control, bidirectional and undecodable characters as escapes, such as ``\x1b``; leave the rest.

    Every text from outside (a file name, a label, a checkpoint's key) passes through here on its way to a terminal.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class VidclsError(Exception):
    """Base of all errors meant for people.

    Args:
        subject: The thing that is wrong: a path, a model's name, an option.
        problem: What is wrong with it.
        remedy: What to do about it; may be empty where nothing can be said.
    """

    exit_code: ClassVar[int] = 3
    kind: str = "error"

    def __init__(self, subject: str, problem: str, remedy: str = "") -> None:
        self.subject = str(subject) or "''"
        self.problem = problem
        self.remedy = remedy
        super().__init__(self.subject, problem, remedy)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.problem}"
        return f"{text}; {self.remedy}" if self.remedy else text


class UsageError(VidclsError):
    """The command was called in a way that cannot work."""

    exit_code = 2
    kind = "usage"


class ConfigError(VidclsError):
    """A registry, recipe or architecture configuration is wrong."""

    kind = "config"


class CheckpointError(VidclsError):
    """A checkpoint cannot be read, or its tensors do not fit the architecture."""

    kind = "checkpoint"


class WeightsError(VidclsError):
    """Weights are absent, could not be fetched, or fail their checksum."""

    kind = "weights"


class DependencyError(VidclsError):
    """An optional package is missing; the remedy names the extra that brings it."""

    kind = "dependency"


@contextlib.contextmanager
def needing(subject: str, problem: str, remedy: str) -> Iterator[None]:
    """Import optional packages within this context; a DependencyError about ``subject`` where one is not installed."""
    try:
        yield
    except ImportError:
        raise DependencyError(subject, problem, remedy) from None


class DeviceError(VidclsError):
    """The device or precision asked for does not exist here, or ran out of memory."""

    kind = "device"


@contextlib.contextmanager
def system_errors(
    kind: type[VidclsError], subject: object, problem: str, remedy: str, *more: type[Exception]
) -> Iterator[None]:
    """Turn what the operating system refuses within this context into an error about ``subject``.

    Args:
        kind: Class of the error.
        subject: See `VidclsError`.
        problem: What failed; what the system says follows in parentheses.
        remedy: See `VidclsError`.
        *more: Errors of libraries that mean the same.

    Raises:
        VidclsError: Of this kind.
    """
    refusals: tuple[type[Exception], ...] = (OSError, *more)
    try:
        yield
    except refusals as error:
        said = getattr(error, "strerror", None) or first_line(error)
        raise kind(str(subject), f"{problem} ({said})", remedy) from error


class OutputError(VidclsError):
    """Results cannot be written."""

    kind = "output"


class InputError(VidclsError):
    """One input is bad; the other inputs of the same call go on.

    Args:
        subject: The input's path or name.
        problem: What is wrong with it.
        remedy: What to do about it.
        kind: A short word by which failures are counted, such as ``not_found``.
    """

    exit_code = 1
    kind = "input"

    def __init__(self, subject: str, problem: str, remedy: str = "", *, kind: str = "input") -> None:
        super().__init__(subject, problem, remedy)
        self.kind = kind

    def __str__(self) -> str:
        return printable(super().__str__())  # it becomes a cell of a row: one line

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes; the keyword would be lost by the default of Exception.
        return _rebuild_input_error, (type(self), self.subject, self.problem, self.remedy, self.kind)


class VideoError(InputError):
    """A video cannot be read: see ``kind`` for which of the known ways it failed."""

    def __init__(self, subject: str, problem: str, remedy: str = "", *, kind: str = "unreadable") -> None:
        super().__init__(subject, problem, remedy, kind=kind)


def _rebuild_input_error(
    error: type[InputError], subject: str, problem: str, remedy: str, kind: str
) -> InputError:
    return error(subject, problem, remedy, kind=kind)
