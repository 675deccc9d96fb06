"""The command in this process, which has imported everything already: many calls in little time."""

from __future__ import annotations

from typer.testing import CliRunner

from tests.cli.terminal import Shown
from vidcls.cli.app import app


def run_cli(*arguments: str) -> Shown:
    """Run the command; an exception that it does not turn into a message is raised here."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Shown(done.stdout, done.stderr, done.exit_code)
