"""One bar: only on a terminal, of every kind, with foreign text shown as it is."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from vidcls.output.progress import BYTES, ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def become_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    for name, value in (("COLUMNS", "120"), ("TERM", "xterm-256color"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def draw(**options: Any) -> None:
    with ProgressBar("[b]a\x1b[31mb", **options) as bar:
        bar.update(1, 4, "half [i]", label="")
        bar.clear()
        bar.update(3, 4, "last\x07", label="next.mp4")


@pytest.mark.parametrize("unit", [None, BYTES, "frames"])
def test_every_kind(monkeypatch: pytest.MonkeyPatch, unit: str | None) -> None:
    terminal = become_terminal(monkeypatch)
    draw(unit=unit, transient=False)
    text = terminal.getvalue()
    assert "next.mp4" in text
    assert "\x07" not in text
    assert ("3/4" in text) == (unit is not None)
    assert ("last\\x07" in text) == (unit != BYTES)


def test_colors_only_where_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch)
    draw()
    assert "\x1b[38" in terminal.getvalue()
    terminal.truncate(0)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("NO_COLOR", "1")
    draw()
    assert "\x1b[38" not in terminal.getvalue()


def test_nothing_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "dumb")  # it could not move its cursor
        draw()
        assert terminal.getvalue() == ""
    draw(shown=False)
    assert terminal.getvalue() == ""
    terminal.isatty = lambda: False  # type: ignore[method-assign]
    draw()
    assert terminal.getvalue() == ""
