"""Tables of figures fit the terminal, and what is left out is told."""

from __future__ import annotations

import pytest

from vidcls.bench import decode, predict, report, score
from vidcls.output.terminal_table import print_columns

HEADINGS = ("name", "a", "b", "c")
ROWS = [("first [x]", "1" * 10, "2" * 10, "3" * 10), ("second", "4", "5", "6")]


@pytest.mark.parametrize(
    ("columns", "hidden"), [(80, []), (45, []), (44, ["b"]), (33, ["b"]), (32, ["b", "a"]), (5, ["b", "a"])]
)
def test_what_is_needed_least_gives_way(
    columns: int, hidden: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = print_columns(HEADINGS, ROWS, left=("name",), dispensable=("other", "b", "a"))
    assert sorted(found) == sorted(hidden)
    lines = capsys.readouterr().out.splitlines()
    if columns >= 32:
        assert lines[0].split() == [name for name in HEADINGS if name not in hidden]
        assert lines[1].split() == [
            "first",
            "[x]",
            *(ROWS[0][HEADINGS.index(h)] for h in lines[0].split()[1:]),
        ]
        assert max(map(len, lines)) <= columns


def test_one_row_is_a_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert print_columns(HEADINGS, ROWS[:1], left=("name",), dispensable=("b",)) == []
    assert capsys.readouterr().out.split() == [
        "name",
        "first",
        "[x]",
        "a",
        "1" * 10,
        "b",
        "2" * 10,
        "c",
        "3" * 10,
    ]
    assert print_columns(HEADINGS, ROWS[1:], left=("name",), dispensable=("b",)) == []
    assert capsys.readouterr().out.splitlines()[0].split() == list(HEADINGS)


@pytest.mark.parametrize("columns", [80, 120])
def test_figures_of_bench_fit(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matter = {"model", "engine", "precision", "median s", "clips/s", "memory", "error"}
    usual = {
        "model": "vivit-l-16x2-fe-epic-kitchens", "engine": "openvino", "precision": "fp32", "median s": "12.34",
        "p90 s": "12.99", "±": "153 %", "memory": "12345 MiB", "decoder": "pyav, sequential", "run": "empty cache",
        "notes": "cannot read it", "params": "310.1M | 310.8M", "GMACs": "3980 | 3990",
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    for headings in (report.HEADINGS, decode.HEADINGS, predict.HEADINGS, score.HEADINGS):
        row = [usual.get(name, "12.3") for name in headings]
        hidden = set(report.print_table(headings, [row, row], terminal=True))
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns
        assert not hidden & matter
        assert len(lines) == 3
