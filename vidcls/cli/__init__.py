"""The command line: parse, call, print, exit code. Each command is one file here and imports what it needs late.

Exit codes: 0 ok, 1 some inputs failed, 2 usage, 3 model or environment, 130 interrupted. The commands come
together in ``vidcls.cli.app``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vidcls.errors import VidclsError, printable
from vidcls.output.progress import print_line, wording

if TYPE_CHECKING:
    from vidcls.cli.groups import Flags
    from vidcls.inference.classifier import Classifier

EXIT_INTERRUPTED = 130

_flags: Flags | None = None  # of the command that runs


def guard(command: Callable[..., Any]) -> Callable[..., None]:
    """Make a function a command of Typer: its options expanded, and any error a line on stderr and an exit code.

    The function may return its exit code; None is 0.
    """
    from vidcls.cli.groups import expand

    run, flags = expand(command)

    @functools.wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> None:
        global _flags
        _flags = flags
        code = 0
        try:
            with wording(flags.translate_text):
                result = run(*args, **kwargs)
            code = result if isinstance(result, int) else 0
            sys.stdout.flush()
        except VidclsError as error:
            print_error(error)
            code = error.exit_code
        except KeyboardInterrupt:
            print_message("vidcls: interrupted")
            code = EXIT_INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has had enough; Python must not complain of it again while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code:
            import typer

            raise typer.Exit(code)

    guarded.flags = flags  # type: ignore[attr-defined]
    return guarded


def print_message(text: str) -> None:
    """Print a message on stderr; parameters that the library names become flags of the command that runs.

    Control characters of foreign names are shown, not obeyed.
    """
    _print(text if _flags is None else _flags.translate_text(text))


def _print(text: str) -> None:
    print_line("\n".join(map(printable, text.split("\n"))))


def print_notes(classifier: Classifier, *, hint: bool = False) -> None:
    """Print the choices that the loader made; with ``hint``, since no model was named, what the default one is for."""
    for note in classifier.notes:
        print_message(f"{classifier.weights}: {note}")
    if hint and classifier.spec.hint:
        print_message(f"vidcls: {classifier.spec.hint}")


def print_error(error: VidclsError) -> None:
    """Print an error on stderr, as `print_message` does."""
    _print(f"vidcls: {error if _flags is None else _flags.translate(error)}")
