"""The tour of the documentation: every command runs, or at least parses, and the captures are what commands print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


tour = load_script("docs/tour.py")
PAGES = [page for page in tour.pages() if list(tour.commands(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if page.name == "own-classes.md":
        pytest.skip("test_guides.py runs it")
    pytest.importorskip("sklearn")
    for name, value in {**tour.SHORT, "VIDCLS_CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for line, code, printed in tour.visit(page):
        assert code == 0, (line, printed)
        assert "Traceback" not in printed


def test_most_commands_run_here() -> None:
    lines = [line for page in PAGES for line in tour.commands(page)]
    assert len(lines) > 40
    assert sum(not line.elsewhere for line in lines) > 25


def test_mistyped_commands_do_not_parse() -> None:
    for text in (
        "vidcls predict a.mp4 --vievs 3 --model k400",
        "vidcls predict a.mp4 --top-k 0",
        "vidcls score a",
    ):
        with pytest.raises(Exception, match=r"vievs|greater than or equal to 1|output"):
            tour.parse(tour.Line("x.md", text))


def test_what_stays_on_a_screen() -> None:
    assert tour.screen("\x1b[?25lbar 1\r\x1b[2Kbar 2\nend\n") == "bar 2\nend\n"
    assert tour.screen("a\nbar\n\x1b[1A\x1b[2Kdone\n\x1b[1mb\x1b[0m\n") == "a\ndone\nb\n"


@pytest.mark.parametrize("columns", tour.WIDTHS)
def test_the_captures_fit_and_are_of_the_commands(columns: int) -> None:
    for name, command in tour.CAPTURES.items():
        text = (tour.CAPTURED / f"{name}-{columns}.txt").read_text(encoding="utf-8")
        first, *lines = text.splitlines()
        assert first == f"$ {command}"
        assert lines
        assert max(map(len, lines)) <= columns, name
        assert "Traceback" not in text
