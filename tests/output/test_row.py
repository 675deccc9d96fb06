"""One record says what columns there are; every format and the documentation follow it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.score.test_run import Stub, make_tree, rows_of, run
from vidcls.output.base import Format
from vidcls.output.csv import Csv
from vidcls.output.formats import BY_SUFFIX, FORMATS, choose_format, complete_format
from vidcls.output.jsonl import RowLines
from vidcls.output.parquet import schema
from vidcls.output.row import COLUMNS, PREDICT_NAMES, Layout, RankedLabel, Row, is_reserved
from vidcls.score.merge import merge

SCORED = Layout(scored=True, wide=2, all_scores=True, auto_views=True, carried={"group": "int"})


def full_row() -> dict[str, Any]:
    label = RankedLabel(rank=1, index=3, label="run", score=0.5)
    row = Row(path="a.mp4", model="m", weights="w", views=1, crops=1, frames=8, stride=2, predictions=[label])
    return {
        **row.to_dict(),
        "error_kind": None,
        "seconds": 0.5,
        "scores": [0.5, 0.25],
        "views_used": 1,
        "group": 7,
    }


def test_every_format_has_the_columns_of_the_row() -> None:
    pytest.importorskip("pyarrow")
    names = [field.name for field in dataclasses.fields(Row)]
    assert schema(SCORED).names == [*names, "group"]
    assert schema(Layout()).names == list(PREDICT_NAMES)
    assert SCORED.names() == names
    assert Layout(scored=True, wide=2).names() == names[:-2]
    assert names[-2:] == ["scores", "views_used"]
    flat = Csv(SCORED).names()
    assert [name for name in flat if name in COLUMNS] == [name for name in names if name != "predictions"]
    assert flat[1:7] == ["index_1", "label_1", "score_1", "index_2", "label_2", "score_2"]
    assert list(json.loads(RowLines(SCORED).row(full_row()))) == [*names, "group"]
    assert tuple(full_row())[: len(PREDICT_NAMES)] == PREDICT_NAMES


def markdown_table() -> str:
    lines = ["| column | type | what |", "|---|---|---|"]
    for name, column in COLUMNS.items():
        kind = str(column.type).replace(" | None", " or null").replace("RankedLabel", "object")
        about = column.metadata["about"] + (" (`score` only)" if column.metadata.get("scored") else "")
        lines.append(f"| `{name}` | {kind} | {about} |")
    return "\n".join(lines) + "\n"


def test_the_documentation_has_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
    assert markdown_table() in text
    assert all(field.metadata["about"] for field in dataclasses.fields(Row))


def test_names_that_a_manifest_must_not_use() -> None:
    taken = [*COLUMNS, "label_1", "score_12", "index_3"]
    assert all(map(is_reserved, taken))
    assert not any(
        map(
            is_reserved,
            ["label", "rank", "labels", "label_", "label_x", "label_1_", "my_label_1", "Path", ""],
        )
    )
    assert {name for name in Csv(Layout(scored=True, wide=3)).names() if not is_reserved(name)} == set()


def test_values_that_no_output_can_hold() -> None:
    layout = Layout(
        scored=True, wide=1, carried={"count": "int", "name": "str", "rate": "float", "on": "bool"}
    )
    row = full_row()
    assert layout.misfits({**row, "count": 1, "name": "x", "rate": float("nan"), "on": True}) == {}
    assert layout.misfits({**row, "count": None}) == {}
    for name, value in (
        ("count", 2**63), ("count", "7"), ("name", 7), ("rate", "x"), ("on", 1), ("frames", 2**31), ("path", 1),
    ):  # fmt: skip
        assert list(layout.misfits({**row, name: value})) == [name]


class Lines(Format):
    """A format that somebody adds: one class."""

    suffixes = (".paths",)
    appendable = True

    def row(self, row: Any) -> bytes:
        return f"{row['path']}\n".encode()


class Backwards(Lines):
    """One that cannot be appended to."""

    suffixes = (".back",)
    appendable = False

    def row(self, row: Any) -> bytes:
        self.lines = [super().row(row), *getattr(self, "lines", [])]
        return b""

    def end(self) -> bytes:
        return b"".join(self.lines)


@pytest.mark.parametrize("kind", [Lines, Backwards])
def test_a_new_format_is_a_class_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Format]
) -> None:
    """Predict, score and merge have it."""
    from vidcls.output.writers import open_output

    suffix = kind.suffixes[0]
    monkeypatch.setitem(FORMATS, "new", kind)
    monkeypatch.setitem(BY_SUFFIX, suffix, "new")
    assert choose_format(f"a{suffix}") == complete_format(f"a{suffix}") == "new"
    with open_output(tmp_path / f"predict{suffix}") as out:
        out.write(full_row())
    assert (tmp_path / f"predict{suffix}").read_text() == "a.mp4\n"
    paths = make_tree(tmp_path / "clips")
    for _ in range(2):  # and a second run finds all done
        run(tmp_path / f"score{suffix}", tmp_path / "clips", stub=Stub())
        assert sorted((tmp_path / f"score{suffix}").read_text().splitlines()) == paths
    run(tmp_path / "part.jsonl", tmp_path / "clips", stub=Stub())
    merge(str(tmp_path / f"all{suffix}"), [str(tmp_path / "part.jsonl")])
    assert sorted((tmp_path / f"all{suffix}").read_text().splitlines()) == paths


def test_score_writes_json(tmp_path: Path) -> None:
    paths = make_tree(tmp_path / "clips")
    run(tmp_path / "out.json", tmp_path / "clips")
    run(tmp_path / "out.jsonl", tmp_path / "clips")
    rows = json.loads((tmp_path / "out.json").read_text())
    assert sorted(row["path"] for row in rows) == paths
    assert sorted(rows, key=str) == sorted(rows_of(tmp_path / "out.jsonl"), key=str)
