"""Parts of a longer file: the same frames as the whole file has there, for every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.clips import make_clip, read_numbers
from vidcls.errors import VideoError
from vidcls.video.collect import Sound
from vidcls.video.reader import VideoReader
from vidcls.video.span import Span, cut_sound, fragment, split_span


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames, 25 a second."""
    path = tmp_path_factory.mktemp("span") / "game.mp4"
    make_clip(path, 60)
    return path


@pytest.mark.parametrize(
    ("name", "file", "span"),
    [
        ("a.mp4#t=1,2.5", "a.mp4", Span(1, 2.5)),
        ("a.mp4#t=,2", "a.mp4", Span(0, 2)),
        ("a.mp4#t=3", "a.mp4", Span(3, None)),
        ("a.mp4", "a.mp4", None),
        ("a.mp4#t=", "a.mp4#t=", None),
        ("a.mp4#t=1,2,3", "a.mp4#t=1,2,3", None),
        ("a.mp4#t=-1", "a.mp4#t=-1", None),
        ("a#t=1.mp4#t=2", "a#t=1.mp4", Span(2, None)),
    ],
)
def test_names(name: str, file: str, span: Span | None) -> None:
    assert split_span(name) == (file, span)


def test_a_file_that_is_called_so_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4#t=1,2"
    path.write_bytes(b"x")
    assert split_span(str(path)) == (str(path), None)


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [("", "", ""), ("1.5", "", "#t=1.5"), ("", "2", "#t=0,2"), ("1:02:03.5", "3724", "#t=3723.5,3724")],
)
def test_fragments(start: str, end: str, text: str) -> None:
    assert fragment(start, end) == text


@pytest.mark.parametrize(("start", "end"), [("2", "1"), ("1", "1"), ("x", ""), ("-1", ""), ("", "0")])
def test_wrong_times(start: str, end: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time|ends at"):
        fragment(start, end)


@pytest.mark.parametrize(
    ("part", "numbers"),
    [("0.4,0.8", range(10, 20)), (",0.2", range(5)), ("2", range(50, 60)), ("0,99", range(60))],
)
def test_a_part_has_the_files_frames(clip: Path, part: str, numbers: range) -> None:
    with VideoReader() as reader:
        info = reader.open(f"{clip}#t={part}")
        assert info.num_frames == len(numbers) == len(info.timestamps)
        assert info.timestamps[0] == 0
        assert info.duration == pytest.approx(len(numbers) / 25)
        frames = reader.read(range(len(numbers)))
        assert frames.indices.tolist() == list(range(len(numbers)))
        assert read_numbers(frames.frames) == list(numbers)
        pieces = list(reader.stream([0, 2, 3], piece=2))
        assert [i for piece in pieces for i in piece.indices] == [0, 2, 3]
        assert read_numbers(np.concatenate([piece.frames for piece in pieces])) == [
            numbers[i] for i in (0, 2, 3)
        ]
        with pytest.raises(IndexError):
            reader.read([len(numbers)])
        assert reader.open(clip).num_frames == 60  # the whole file again
        assert read_numbers(reader.read([0]).frames) == [0]


def test_sound_of_a_part() -> None:
    """Pieces of half a second, of which the part from 0.7 s to 1.6 s takes three, two of them in part."""
    pieces = [Sound(10, start, np.arange(5)[None] + 10 * start) for start in (0.0, 0.5, 1.0, 1.5, 2.0)]
    found = [one for piece in pieces for one in cut_sound(piece, (0.7, 1.6))]
    assert [round(one.start, 6) for one in found] == [0.0, 0.3, 0.8]
    assert np.concatenate([one.samples[0] for one in found]).tolist() == list(range(7, 16))
    assert list(cut_sound(pieces[0], None)) == [pieces[0]]


def test_a_part_without_frames(clip: Path) -> None:
    with VideoReader() as reader, pytest.raises(VideoError, match=r"no frame lies in this part of 2\.40 s"):
        reader.open(f"{clip}#t=5,6")


def test_commands_take_parts(clip: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    whole = tmp_path / "part.mp4"
    with VideoReader() as reader:
        reader.open(clip)
        make_clip(whole, reader.read(range(20, 60)).frames, options={"crf": "0"})
    rows = []
    for name in (f"{clip}#t=0.8", str(whole)):
        done = CliRunner().invoke(app, ["predict", name, "-f", "json", "-q"])
        assert done.exit_code == 0, done.output
        rows += json.loads(done.stdout)
    assert rows[0]["path"] == f"{clip}#t=0.8"
    best = [{p["label"]: p["score"] for p in row["predictions"]} for row in rows]
    assert best[0].keys() == best[1].keys()
    assert list(best[0].values()) == pytest.approx(list(best[1].values()), abs=0.05)
    table = tmp_path / "list.csv"
    table.write_text(f"path,label,start,end\n{clip},shake,0,1\n{clip},static,1,\n")
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["evaluate", "--data", str(table), "-o", str(out), "-q"])
    assert done.exit_code == 0, done.output
    scored = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert sorted((row["path"], row["error"]) for row in scored) == [
        (f"{clip}#t={t}", None) for t in ("0,1", "1")
    ]
