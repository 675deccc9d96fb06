"""The command line: parse, call, print, exit code. Each command is one file here and imports what it needs late.

Exit codes: 0 ok, 1 some inputs failed, 2 usage, 3 model or environment, 130 interrupted. The commands come
together in ``vidcls.cli.app``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from vidcls.errors import VidclsError

EXIT_INTERRUPTED = 130


def guard(command: Callable[..., Any]) -> Callable[..., None]:
    """Wrap a command so that it ends with the right exit code and never with a traceback that helps nobody.

    The command may return its exit code; None is 0.
    """

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        code = 0
        try:
            result = command(*args, **kwargs)
            code = result if isinstance(result, int) else 0
            sys.stdout.flush()
        except VidclsError as error:
            say(f"vidcls: {error}")
            code = error.exit_code
        except KeyboardInterrupt:
            say("vidcls: interrupted")
            code = EXIT_INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has had enough; Python must not complain of it again while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code:
            import typer

            raise typer.Exit(code)

    return guarded


def say(text: str) -> None:
    """Print one line of talk on stderr; control characters of foreign names are shown, not obeyed."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    print(shown.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr, flush=True)
