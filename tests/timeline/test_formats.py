"""Files of timelines: what players, editors and programs read of them."""

from __future__ import annotations

import csv
import io
import json
import re
from fractions import Fraction

import numpy as np
import pytest

from vidcls.errors import InputError, OutputError, UsageError
from vidcls.inference.prediction import ScoredLabel
from vidcls.timeline import formats
from vidcls.timeline.page import fragment
from vidcls.timeline.result import Segment, Timeline
from vidcls.timeline.segments import Cell
from vidcls.timeline.subtitles import Timecode, edl, srt, vtt

NASTY = "<b>Ünï --> {\\an8} & 日本\n\x1b[31m"


def timeline_of(*segments: tuple[float, float, str], path: str = "a/film.mp4", fps: float = 25.0) -> Timeline:
    made = tuple(
        Segment(start, end, (ScoredLabel(label, 0.875, 3), ScoredLabel("other", 0.0625, 1)))
        for start, end, label in segments
    )
    facts = {"model": "m", "fps": fps, "duration": 7300.0, "threshold": 0.5, "warnings": []}
    return Timeline(path, made, facts, cells=(Cell(0, 7300, np.full(4, 0.25, np.float32)),))


ONE = timeline_of((0.0, 1.2345, "pan left"), (3599.9996, 7200.5, NASTY))
FAILED = Timeline(
    "bad.mp4", (), {"model": "m", "warnings": []}, error=InputError("bad.mp4", "is bad", kind="empty")
)


def test_srt():
    text = srt(ONE)
    assert text.startswith(
        "1\n00:00:00,000 --> 00:00:01,234\npan left (88 %)\n\n2\n01:00:00,000 --> 02:00:00,500\n"
    )
    cues = text.split("\n\n")
    assert len(cues) == 2
    assert len(cues[1].strip().split("\n")) == 3
    shown = cues[1].strip().split("\n")[2]
    assert not set("<>{}\\\x1b") & set(shown)
    assert "Ünï" in shown
    assert "日本" in shown


def test_vtt():
    lines = vtt(ONE).split("\n")
    assert lines[0] == "WEBVTT"
    assert lines[3] == "00:00:00.000 --> 00:00:01.234"
    shown = lines[8]
    assert "-->" not in shown
    assert not set("<>\x1b") & set(shown)
    assert shown.startswith("&lt;b&gt;Ünï --&gt; {\\an8} &amp; 日本")


EVENT = re.compile(r"(\d{3})  AX       V     C        ((?:\d\d[:;]){3}\d\d) (\S+) (\S+) (\S+)")


def test_edl():
    lines = edl(ONE).split("\n")
    assert lines[:2] == ["TITLE: film.mp4", "FCM: NON-DROP FRAME"]
    events = [match for line in lines if (match := EVENT.fullmatch(line))]
    assert [event[1] for event in events] == ["001", "002"]
    assert events[0].groups()[1:] == ("00:00:00:00", "00:00:01:06") * 2
    assert events[1].groups()[1:3] == ("01:00:00:00", "02:00:00:12")
    assert all(line == "" or line[0] in "*TF" or EVENT.fullmatch(line) for line in lines)
    assert max(len(line) for line in lines) <= 80
    assert "* COMMENT: pan left (88 %)" in lines


def test_an_edl_has_no_event_shorter_than_a_frame():
    assert edl(timeline_of((1.0, 1.01, "a"))).count("AX") == 0


def clock_of(code: str, base: int) -> Fraction:
    hours, minutes, seconds, frames = map(int, re.split("[:;]", code))
    return 3600 * hours + 60 * minutes + seconds + Fraction(frames, base)


@pytest.mark.parametrize(
    ("fps", "drop"),
    [
        *[(24000 / 1001, False), (24, False), (25, False), (30000 / 1001, True), (30, False), (50, False)],
        *[(60000 / 1001, True), (60, False), (29.970029, True), (15, False), (12.5, False), (120, False)],
    ],
)
def test_timecode_counts_frames(fps, drop):
    code = Timecode(fps)
    assert code.drop is drop
    frames = [*range(40_000), *range(107_880, 107_920)]
    texts = [code.text(frame) for frame in frames]
    assert len(set(texts)) == len(texts), "two frames with one timecode"
    assert texts == sorted(texts)
    assert all(int(text[-2:]) < code.base for text in texts)
    if drop or fps == code.base:
        # Drop-frame code runs with the clock: within two frames a minute, and within 4 ms at each tenth minute.
        slack = Fraction(2 if drop else 0, code.base) * 2 + Fraction(1, 1000)
        assert all(
            abs(clock_of(text, code.base) - frame / code.rate) <= slack
            for text, frame in zip(texts, frames, strict=True)
        )


def test_known_drop_frame_codes():
    # SMPTE 12M: numbers 00 and 01 are left out at each minute but every tenth.
    code = Timecode(30000 / 1001)
    assert [code.text(n) for n in (1799, 1800, 17981, 17982, 107892)] == [
        "00:00:59;29", "00:01:00;02", "00:09:59;29", "00:10:00;00", "01:00:00;00",
    ]  # fmt: skip
    assert Timecode(60000 / 1001).text(3600) == "00:01:00;04"


def test_json_is_a_list_of_plain_data():
    found = json.loads(formats.to_json([ONE, FAILED]))
    assert [one["path"] for one in found] == ["a/film.mp4", "bad.mp4"]
    assert found[0]["segments"][1]["label"] == NASTY
    assert found[0]["segments"][0]["predictions"][1] == {
        "rank": 2,
        "index": 1,
        "label": "other",
        "score": 0.0625,
    }
    assert found[0]["error"] is None
    assert (found[1]["segments"], found[1]["error_kind"]) == ([], "empty")
    assert b"\x1b" not in formats.to_json([ONE])


def test_csv_has_a_line_for_each_segment_and_each_error():
    rows = list(csv.DictReader(io.StringIO(formats.to_csv([ONE, FAILED]).decode())))
    assert [(row["path"], row["label"], row["index"]) for row in rows] == [
        ("a/film.mp4", "pan left", "3"),
        ("a/film.mp4", NASTY, "3"),
        ("bad.mp4", "", ""),
    ]
    assert rows[2]["error"] == "bad.mp4: is bad"


def test_parquet():
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(io.BytesIO(formats.to_parquet([ONE, FAILED]))).to_pylist()
    assert [row["start"] for row in table] == [0.0, 3599.9996, None]
    assert table[0]["predictions"][0]["label"] == "pan left"


def test_html_escapes_what_it_shows(tmp_path):
    strange = timeline_of((0, 1, "<script>alert(1)</script>"), path='"><img src=x>.mp4')
    formats.write(tmp_path / "out.html", [strange, FAILED])
    html = (tmp_path / "out.html").read_text("utf-8")
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "bad.mp4: is bad" in html
    part = fragment(strange)
    assert "<script" not in part
    assert "<img" not in part
    assert "&lt;script&gt;" in part


@pytest.mark.parametrize("name", formats.FORMATS)
def test_save_goes_by_the_suffix(name, tmp_path):
    path = tmp_path / f"out.{name.upper()}"
    ONE.save(path)
    assert len(path.read_bytes()) == len(formats.FORMATS[name].make([ONE], tmp_path))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(UsageError, match=r"did you mean 'json'"):
        ONE.save(tmp_path / "out.jsn")
    with pytest.raises(UsageError, match="holds one video"):
        formats.write(tmp_path / "out.srt", [ONE, ONE])
    with pytest.raises(OutputError, match="does not exist"):
        ONE.save(tmp_path / "nowhere" / "out.json")
    with pytest.raises(InputError, match="is bad"):
        FAILED.save(tmp_path / "out.srt")


def test_a_timeline_says_what_it_is():
    assert repr(ONE).startswith("Timeline('a/film.mp4', 7300.0 s: 0.0-1.2 pan left 0.88, ")
    assert ONE.at(1.0) is ONE.segments[0]
    assert ONE.at(2.0) is None
    assert ONE.labels == ("pan left", NASTY)
    assert [segment.score for segment in ONE] == [0.875, 0.875]
    assert "pan left" in ONE._repr_html_()


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    ONE.plot(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError, match="cannot be written"):
        ONE.plot(tmp_path / "nowhere" / "out.png")
    with pytest.raises(OutputError, match="cannot be written"):
        ONE.plot(tmp_path / "out.xyz")
