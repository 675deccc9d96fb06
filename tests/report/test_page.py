"""A page is whole, says what the rows say, and holds no text of a stranger as markup."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.clips import make_clip, read_number
from tests.report.rows import LABELS, failed_row, random_rows, row_of, write_evaluation, write_rows
from vidcls.cli.app import app
from vidcls.errors import OutputError, UsageError
from vidcls.report import pictures
from vidcls.report.items import item_of
from vidcls.report.page import make_page
from vidcls.report.payload import link, payload, script_json
from vidcls.report.pictures import Bounds, choose, draw
from vidcls.report.source import Source, read_source
from vidcls.report.summary import summarize
from vidcls.video.sources import is_local

HOSTILE = [
    "</script><script>alert(1)</script>.mp4",
    "<!--<script>.mp4",
    "<img src=x onerror=alert(1)>.mp4",
    "javascript:alert(1)",
    "\"' onclick=alert(1) x='.mp4",
    "line\u2028para\u2029.mp4",
    "right\u202eleft\u2066.mp4",
    "{{ 7 * 7 }}{% raw %}.mp4",
    "nul\x00bel\x07esc\x1b[31m.mp4",
    "not unicode \udcff.mp4",
    "&amp;&lt;.mp4",
]


class Page(HTMLParser):
    """Elements of a page, and the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        self._open = f"{tag} {dict(attrs).get('type', '')}".strip()

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data


def page_of(source: Path, output: Path, **options: Any) -> tuple[Page, dict[str, Any], str]:
    make_page(source, output, **{"thumbnails": 0, **options})
    html = output.read_text(encoding="utf-8")
    page = Page(html)
    return page, json.loads(page.texts["script application/json"]), html


def test_rows_become_a_page(tmp_path: Path) -> None:
    rows = [*random_rows(40), failed_row("gone.mp4"), failed_row("empty.mp4", "empty", "is empty (0 bytes)")]
    page, data, html = page_of(write_rows(tmp_path / "scores.jsonl", rows), tmp_path / "page.html")
    assert [clip["p"] for clip in data["clips"]] == [row["path"] for row in rows]
    first = rows[0]["predictions"]
    labels = data["labels"]
    assert [labels[label] for label, _ in data["clips"][0]["t"]] == [one["label"] for one in first]
    assert [score / 1e4 for _, score in data["clips"][0]["t"]] == pytest.approx(
        [one["score"] for one in first], abs=1e-4
    )
    assert data["clips"][40] == {"p": "gone.mp4", "e": "gone.mp4: no such file", "k": "not_found"}
    assert data["evaluation"] is None
    assert "scores.jsonl" in html
    assert page.tags["dialog"] == 1


def test_the_summary_counts(tmp_path: Path) -> None:
    rows = [*random_rows(40), failed_row("a.mp4"), failed_row("b.mp4"), failed_row("c.mp4", "empty")]
    summary = summarize([item_of(row) for row in rows])
    assert (summary.clips, summary.scored) == (43, 40)
    assert summary.seconds == pytest.approx(100)
    assert summary.length == ("1.7", "min")
    assert {bar.name: bar.count for bar in summary.labels} == dict.fromkeys(LABELS, 10)
    assert [(bar.name, bar.count, bar.width) for bar in summary.errors] == [
        ("not_found", 2, 100),
        ("empty", 1, 50),
    ]
    assert sum(bar.count for bar in summary.scores) == 40
    best = sorted(row["predictions"][0]["score"] for row in rows[:40])
    assert [bar.count for bar in summary.scores] == np.histogram(best, 20, (0, 1))[0].tolist()
    assert summary.median == best[20]


def test_scores_at_and_beyond_the_ends_are_counted(tmp_path: Path) -> None:
    rows = [row_of(f"{score}.mp4", [score]) for score in (0.0, 1.0, 1.0000001)]
    assert [bar.count for bar in summarize([item_of(row) for row in rows]).scores] == [1, *[0] * 18, 2]


@pytest.mark.parametrize("where", ["path", "label", "error", "warnings", "column", "model"])
def test_no_text_of_a_stranger_becomes_markup(tmp_path: Path, where: str) -> None:
    rows = random_rows(len(HOSTILE))
    for row, text in zip(rows, HOSTILE, strict=True):
        if where == "label":
            row["predictions"][0]["label"] = text
        elif where == "column":
            row[text] = text
        else:
            row[where] = [text] if where == "warnings" else text
        if where == "error":
            row["predictions"] = []
            row["error_kind"] = text
    plain = random_rows(len(HOSTILE))
    if where == "error":
        for row in plain:
            row.update(error="x", error_kind=row["path"], predictions=[])
    if where == "label":
        for row in plain:
            row["predictions"][0]["label"] = row["path"]
    page, data, html = page_of(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "hostile.html")
    other, _, _ = page_of(write_rows(tmp_path / "rows.jsonl", plain), tmp_path / "plain.html")
    assert page.tags == other.tags  # not one element more
    assert {name for name, _ in page.attributes} == {name for name, _ in other.attributes}
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert not re.search("[\u2028\u2029\u202a-\u202e\u2066-\u2069\x00\x07\x1b]", html)
    text = json.dumps(data)
    assert "alert(1)" in text + html  # it is there, as text
    assert html.count("<script") == 2


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"</script>": ["<!--", "]]>", "\u2028", "\udc00", "&lt;"]}
    text = script_json(value)
    assert not re.search("[<>&]", text)
    assert text.isascii()
    assert json.loads(text) == value


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    rows = [row_of("https://example.org/a.mp4", [0.9, 0.1]), row_of("s3://bucket/b.mp4", [0.9, 0.1])]
    page, data, html = page_of(write_rows(tmp_path / "a.jsonl", rows), tmp_path / "a.html", thumbnails=5)
    assert not [value for name, value in page.attributes if name in ("src", "href") and value != "#main"]
    assert not any("h" in clip for clip in data["clips"])
    policy = next(value for _, value in page.attributes if value and value.startswith("default-src"))
    assert policy.split("; ")[0] == "default-src 'none'"
    assert "unsafe" not in policy
    for element in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[element].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", html)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".json"])
def test_all_forms_of_rows_are_read(tmp_path: Path, suffix: str) -> None:
    from vidcls.output.formats import FORMATS
    from vidcls.output.row import Layout

    rows = [*random_rows(5), failed_row("gone.mp4")]
    path = tmp_path / f"rows{suffix}"
    format = FORMATS[suffix[1:]](Layout(scored=True, all_scores=True))
    path.write_bytes(b"".join(format.stream(rows)))
    items = read_source(path).items
    assert [item.path for item in items] == [row["path"] for row in rows]
    assert [item.label for item in items[:5]] == [row["predictions"][0]["label"] for row in rows[:5]]
    assert items[5].error_kind == "not_found"


def test_any_json_is_a_row_or_said_not_to_be(tmp_path: Path) -> None:
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from vidcls.report.films import film_of, summarize_films

    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    names = st.sampled_from(
        "path predictions label score index duration fps segments start end cuts error x".split()
    )
    anything = st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6)
    )

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(names, anything, max_size=8))
    def check(row: dict[str, Any]) -> None:
        with contextlib.suppress(ValueError):
            item = item_of({"path": "x", **row})
            source = Source("x", [item])
            summarize(source.items)
            json.loads(script_json(payload(source, {}, tmp_path)))
        with contextlib.suppress(ValueError):
            film = film_of({"path": "x", **row})
            summarize_films([film])
            json.loads(script_json(payload(Source("x", films=[film]), {}, tmp_path)))

    check()


def test_settings_of_a_stranger_ask_for_nothing_large(tmp_path: Path) -> None:
    clip = str(make_clip(tmp_path / "clip.mp4", 10))
    from vidcls.config import InputSpec

    known = InputSpec().model_dump(mode="json")
    for settings in (
        {"num_frames": 1},
        {**known, "fps_option": [1]},
        {**known, "sampling": 5},
        {**known, "fps": "x"},
    ):
        assert draw([item_of(row_of(clip, [1.0]))], settings, Bounds())[0]
    huge = item_of(row_of(clip, [1.0], views=1024, frames=65536))
    assert len(draw([huge], known, Bounds())[0][0].times) == 10


def test_parquet_with_broken_settings_is_said(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"path": ["a.mp4"]}).replace_schema_metadata({"vidcls": "{"})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="is not a valid Parquet file"):
        read_source(tmp_path / "a.parquet")
    pq.write_table(pa.table({"path": ["a.mp4"], "when": [b"x"]}), tmp_path / "b.parquet")
    assert read_source(tmp_path / "b.parquet").items[0].extra == {"when": "b'x'"}


def test_a_later_row_of_a_clip_counts(tmp_path: Path) -> None:
    rows = [failed_row("a.mp4"), row_of("b.mp4", [0.9, 0.1]), row_of("a.mp4", [0.2, 0.8])]
    items = read_source(write_rows(tmp_path / "rows.jsonl", rows)).items
    assert [(item.path, item.label) for item in items] == [("a.mp4", "run"), ("b.mp4", "jump")]


def test_a_page_holds_so_many_clips_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidcls.report.source.MAX_ROWS", 7)
    _, data, html = page_of(write_rows(tmp_path / "a.jsonl", random_rows(9)), tmp_path / "a.html")
    assert len(data["clips"]) == 7
    assert "this page shows the first 7" in html
    assert not read_source(write_rows(tmp_path / "b.jsonl", random_rows(7))).more


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"{}\n", "line 1 is not a row"),
        (
            "a.jsonl",
            b'{"path": "x", "predictions": 5}\n',
            r"row 1 is not a row of vidcls \(predictions is 5\)",
        ),
        ("a.jsonl", b'{"path": "x", "predictions": [5]}\n', "5 stands where something with label should"),
        ("a.jsonl", b'{"path": "x", "predictions": [{"label": 1}]}\n', r"label is 1"),
        ("a.jsonl", b'{"path": "x", "duration": "long"}\n', r"duration is 'long'"),
        ("a.parquet", b"PAR1", "not a valid Parquet file"),
        ("a.json", b'[{"path": null}]', "row 1 is not a row of vidcls .it has no path"),
        ("a.json", b"[" * 100_000, "is not valid JSON"),
        ("a.json", b"{}", "is neither a list of rows nor a timeline"),
        ("a.json", b"[1]", "is neither a list of rows nor a timeline"),
        ("a.json", b'[{"path": "x", "segments": 5}]', r"is not a timeline of vidcls \(segments is 5\)"),
        ("a.json", b'{"path": "x", "segments": [5]}', r"\(5 stands where something with start should\)"),
        ("a.json", b'{"path": "x", "segments": [{"start": 5, "end": 1}]}', "a segment is from 5 s to 1 s"),
        ("a.csv", b"path\n", "is not a .jsonl, .parquet or .json file"),
        ("a.mp4", b"text", "is not a .jsonl, .parquet or .json file"),
    ],
)
def test_what_is_not_a_source_is_said(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=problem):
        make_page(tmp_path / name, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_folders_that_are_not_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not the folder of an evaluation: it has no report.json"):
        read_source(tmp_path)
    folder = write_evaluation(tmp_path / "e", random_rows(4), LABELS)
    (folder / "report.json").write_text('{"labels": 3}')
    with pytest.raises(UsageError, match=r"its files do not fit together \(ValueError: labels is 3\)"):
        read_source(folder)
    (folder / "report.json").write_text('{"labels": ["jump"]}')
    with pytest.raises(
        UsageError, match=r"its files do not fit together \(ValueError: the model has no class 1\)"
    ):
        read_source(folder)
    with pytest.raises(UsageError, match="no such file or folder"):
        read_source(tmp_path / "nowhere")


def test_an_evaluation_has_its_figures(tmp_path: Path) -> None:
    rows = [*random_rows(40), failed_row("gone.mp4")]
    truths = [LABELS[number % 4] for number in range(40)]
    truths[:3] = ["walk", "walk", "walk"]  # were jump, run, swim
    folder = write_evaluation(tmp_path / "evaluation", rows, [*truths, "run"])
    _, data, html = page_of(folder, tmp_path / "page.html")
    confusion = np.array(data["evaluation"]["confusion"])
    assert confusion.sum() == 40
    assert confusion[3].tolist() == [1, 1, 1, 10]
    assert data["labels"] == list(LABELS)
    assert [clip["y"] for clip in data["clips"][:3]] == [[3], [3], [3]]
    support, recall, precision, f1 = data["evaluation"]["classes"][3]
    assert (support, recall, precision) == (13, pytest.approx(10 / 13), 1.0)
    assert f1 == pytest.approx(2 * 10 / (13 + 10))
    assert data["evaluation"]["means"]["weighted"]["recall"] == pytest.approx(37 / 40)
    assert "92.5%" in html
    assert "on <bdi>a set</bdi>" in html


def test_an_evaluation_of_several_labels_a_clip(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "e", random_rows(4), LABELS)
    figures = {"map": 0.75, "macro_f1": 0.5, "f1": 0.6, "top1": 1.0}
    classes = [
        {"label": label, "clips": 2, "average_precision": 0.9, "precision": None, "recall": 0.5, "f1": 0.4}
        | {"best_threshold": 0.3, "best_f1": 0.8}
        for label in LABELS
    ]
    about = {"labels": LABELS, "data": "a set", **figures, "classes": classes}
    (folder / "report.json").write_text(json.dumps(about))
    truths = ["jump|swim", "walk|run", "swim", ""]
    lines = [f"clips/{number:05d}.mp4,{truth}" for number, truth in enumerate(truths)]
    (folder / "clips.csv").write_text("\n".join(["path,true_labels", *lines]) + "\n")
    _, data, html = page_of(folder, tmp_path / "a.html")
    assert [clip["y"] for clip in data["clips"]] == [[0, 2], [3, 1], [2], []]
    assert data["evaluation"]["several"]
    assert data["evaluation"]["classes"][0] == [2, 0.5, None, 0.4, 0.9]
    assert data["evaluation"]["thresholds"] == [[0.3, 0.8]] * len(LABELS)
    for name, value in (("mAP", "75.0%"), ("Macro F1", "50.0%"), ("Micro F1", "60.0%")):
        assert re.search(rf"<dt>{name}</dt><dd>{value}</dd>", html)
    assert [item.wrong for item in read_source(folder).items] == [False, False, False, True]
    (folder / "report.json").write_text(json.dumps({**about, "classes": [{"clips": "many"}]}))
    with pytest.raises(UsageError, match="clips is 'many'"):
        read_source(folder)


def test_timelines_become_a_page(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "film.mp4", 100)
    segments = [
        {
            "start": 0.5,
            "end": 2.0,
            "label": "run",
            "score": 0.8,
            "predictions": [{"label": "run", "score": 0.8}],
        },
        {"start": 2.0, "end": 4.0, "label": "walk", "score": 0.6},
        {"start": 4.0, "end": 5.0, "label": "run", "score": 0.7, "predictions": []},
    ]
    films = [
        {"path": str(clip), "duration": 10.0, "segments": segments, "cuts": [2.0], "error": None},
        {"path": "gone.mp4", "segments": [], "cuts": None, "error": "gone.mp4: no such file"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(films))
    _, data, html = page_of(tmp_path / "a.json", tmp_path / "a.html", thumbnails=5)
    first, second = data["films"]
    run, walk = (data["labels"].index(label) for label in ("run", "walk"))
    assert first["s"] == [
        [0.5, 2.0, [[run, 8000]]],
        [2.0, 4.0, [[walk, 6000]]],
        [4.0, 5.0, [[run, 7000]]],
    ]
    assert (first["h"], first["d"], first["c"]) == ("./film.mp4", 10.0, [2.0])
    assert first["v"][0]["t"] == pytest.approx([4 * n / 11 for n in range(12)], abs=0.05)
    assert second["e"] == "gone.mp4: no such file"
    assert ">45%<" in html  # of the time has a label
    single = tmp_path / "single.json"
    single.write_text(json.dumps(films[0]))
    assert [film.path for film in read_source(single).films] == [str(clip)]


def test_names_that_are_not_unicode_keep_their_labels(tmp_path: Path) -> None:
    from vidcls.output.csv import csv_bytes

    row = row_of("odd \udcff.mp4", [0.9, 0.1, 0, 0])
    folder = write_evaluation(tmp_path / "e", random_rows(1), LABELS[:1])
    write_rows(folder / "scores.jsonl", [row])
    (folder / "clips.csv").write_bytes(
        csv_bytes([["path", "true_label", "p_true"], [row["path"], "run", 0.1]])
    )
    found = read_source(folder)
    assert [item.truth for item in found.items] == [("run",)]


def test_links_lead_to_files_beside_the_page_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    name = "javascript:a'\"<b> %41#?.mp4" if os.name == "posix" else "javascript a' %41#.mp4"
    for place in (folder / name, tmp_path / "x.mp4"):
        place.write_bytes(b"x")
    found = link(str(folder / name), folder)
    assert found is not None
    assert found.startswith("./javascript")
    assert not re.search(r"[:'\"<>#? ]", found[2:])
    assert "%2541" in found
    assert link(str(tmp_path / "x.mp4"), folder) == "../x.mp4"
    assert link(str(tmp_path / "missing.mp4"), folder) is None
    assert link("https://example.org/x.mp4", folder) is None


@pytest.mark.parametrize(
    "path", [r"\\host\share\a.mp4", "//host/share/a.mp4", r"\/host/a", "https://a/b.mp4", "s3://a/b", "-", ""]
)
def test_other_hosts_are_not_looked_at(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On Windows, to ask whether a file of another host exists sends the user's credentials there."""
    monkeypatch.setattr(os.path, "isfile", lambda *_: pytest.fail("looked"))
    assert not is_local(path)
    item = item_of(row_of(path, [1.0]))
    assert choose([item], 5) == []
    assert link(path, tmp_path) is None
    assert draw([item], None, Bounds()) == {}


def test_frames_of_each_view_are_those_that_the_model_saw(tmp_path: Path) -> None:
    from vidcls.config import InputSpec
    from vidcls.views.sampling import plan_clips

    clip = make_clip(tmp_path / "clip.mp4", 60)
    spec = InputSpec(num_frames=8, stride=3, num_views=3, sampling="uniform")
    settings = {**spec.model_dump(mode="json"), "fps_option": "auto"}
    item = item_of(row_of(str(clip), [1.0], views=3, frames=8, stride=3))
    strips = draw([item], settings, Bounds())[0]
    plan = plan_clips(spec, num_frames=60, fps=25, timestamps=np.arange(60) / 25).indices
    assert len(strips) == 3
    for strip, view in zip(strips, plan, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(strip.jpeg)))
        count = len(strip.times)
        assert picture.shape == (72, count * strip.width, 3)
        numbers = [read_number(part) for part in np.split(picture, count, axis=1)]
        assert set(numbers) <= set(view.tolist())
        assert (numbers[0], numbers[-1]) == (view[0], view[-1])
        assert strip.times == pytest.approx([number / 25 for number in numbers], abs=0.01)


def test_a_model_nobody_knows_gets_frames_of_the_whole_clip(tmp_path: Path) -> None:
    item = item_of(row_of(str(make_clip(tmp_path / "clip.mp4", 30)), [1.0], model="my-own"))
    (strip,) = draw([item], None, Bounds())[0]
    assert strip.times[0] == 0
    assert strip.times[-1] == pytest.approx(29 / 25, abs=0.01)
    assert len(strip.times) == 12


def test_pictures_of_upright_and_of_wide_videos_are_bounded(tmp_path: Path) -> None:
    upright = make_clip(tmp_path / "a.mp4", 4, size=(320, 32))
    wide = make_clip(tmp_path / "b.mp4", 4, size=(32, 320))
    items = [item_of(row_of(str(path), [1.0])) for path in (upright, wide)]
    found = draw(items, None, Bounds())
    assert [found[number][0].width for number in (0, 1)] == [40, 160]


def test_missing_and_broken_clips_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    good = make_clip(tmp_path / "good.mp4", 10)
    rows = [row_of(str(tmp_path / name), [1.0]) for name in ("gone.mp4", "text.mp4", "good.mp4")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
        rows.insert(0, row_of(str(tmp_path / "pipe.mp4"), [1.0]))
    found = draw([item_of(row) for row in rows], None, Bounds())
    assert [rows[number]["path"] for number in found] == [str(good)]


def test_errors_come_first_and_every_label_has_its_turn() -> None:
    items = [item_of(row) for row in random_rows(40)]
    assert [items[n].label for n in choose(items, 4)] == list(LABELS)
    from dataclasses import replace

    items[20] = replace(items[20], truth=("walk",), top=(("jump", 0.7),))
    items[33] = replace(items[33], truth=("walk",), top=(("run", 0.9),))
    assert choose(items, 3) == [33, 20, 0]
    assert choose(items, 0) == []
    assert sorted(choose(items, 100)) == list(range(40))


def test_pictures_stop_at_their_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [make_clip(tmp_path / f"{number}.mp4", 10) for number in range(4)]
    items = [item_of(row_of(str(path), [1.0])) for path in clips]
    assert len(draw(items, None, Bounds(clips=2))) == 2
    assert draw(items, None, Bounds(seconds=0)) == {}
    size = sum(len(strip.jpeg) for strips in draw(items, None, Bounds(clips=1)).values() for strip in strips)
    monkeypatch.setattr(pictures, "MAX_BYTES", int(2.5 * size))
    assert len(draw(items, None, Bounds())) == 2


def test_a_clip_that_hangs_the_decoder_costs_its_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidcls.video.reader import VideoReader

    monkeypatch.setenv("VIDCLS_TEST_FAULT", "hang-both")

    class Hanging(VideoReader):
        _entry = "tests.video.faulty_worker"

    monkeypatch.setattr(pictures, "VideoReader", Hanging)
    clips = [make_clip(tmp_path / f"{number}.mp4", 4) for number in range(6)]
    start = time.monotonic()
    assert draw([item_of(row_of(str(path), [1.0])) for path in clips], None, Bounds(seconds=1.0)) == {}
    assert time.monotonic() - start < 20


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_rows(tmp_path / "scores.jsonl", random_rows(3))
    target = tmp_path / "page.html"
    result = invoke(source, "-o", target)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "page.html shows 3 clips" in result.stderr
    before = target.read_bytes()
    again = invoke(source, "-o", target)
    assert again.exit_code == 2
    assert "already exists; choose another output, or pass --overwrite" in again.stderr
    assert target.read_bytes() == before
    assert invoke(source, "-o", target, "--overwrite", "-q").stderr == ""
    wrong = invoke(source, "-o", tmp_path / "page.txt")
    assert wrong.exit_code == 2
    assert "end its name in .html" in wrong.stderr
    nowhere = invoke(source, "-o", tmp_path / "no" / "page.html")
    assert nowhere.exit_code == 3
    assert "does not exist; create it first" in nowhere.stderr
    (tmp_path / "dir.html").mkdir()
    assert "is a folder; name a file" in invoke(source, "-o", tmp_path / "dir.html").stderr
    missing = invoke(tmp_path / "nothing.jsonl", "-o", tmp_path / "b.html")
    assert missing.exit_code == 2
    assert "no such file or folder" in missing.stderr


def test_what_was_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_rows(tmp_path / "scores.jsonl", random_rows(3))
    target = tmp_path / "page.html"
    target.write_text("before")
    monkeypatch.setattr(
        "vidcls.paths.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OutputError, match="No space left"):
        make_page(source, target, overwrite=True)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_the_template_engine_is_imported_only_for_a_page() -> None:
    code = "import vidcls.cli.app, vidcls.cli.report, vidcls.report.page, sys; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_file_of_vectors_is_not_a_file_of_errors(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"path": ["a.mp4"], "vector": [[0.0, 1.0]], "error": ["e"]}), tmp_path / "v.parquet"
    )
    with pytest.raises(UsageError, match="it has a vector and no scores; `vidcls search` shows such files"):
        read_source(tmp_path / "v.parquet")
