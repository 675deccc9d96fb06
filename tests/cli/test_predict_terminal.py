"""`vidcls predict` as a person sees it: one clip, several clips, and what is printed beside the rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.terminal import on_terminal
from tests.cli.test_predict import vidcls
from tests.clips import make_clip

EXAMPLE = Path(__file__).parents[2] / "examples" / "pan-left.mp4"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "good.mp4").write_bytes(EXAMPLE.read_bytes())
    (folder / "text.mp4").write_text("not a video")
    for number in range(3):  # too short for a view
        make_clip(folder / f"short{number}.mp4", 6 + number, size=(48, 64))
    return folder


def test_several_clips_have_one_line_each(place: Path) -> None:
    names = ["good.mp4", "text.mp4", "none.mp4"]
    shown = on_terminal("predict", *names, columns=80, cwd=place, both=True)
    assert shown.returncode == 1
    lines = [line for line in shown.stdout.splitlines() if line.startswith(tuple(names))]
    assert len(lines) == len(names)  # an error is not printed twice
    assert all(len(line) <= 80 for line in lines)
    assert "pan left" in lines[0]
    assert "%" in lines[0]
    assert "error" in lines[1]
    assert "no such file" in lines[2]


def test_details_are_for_the_asking(place: Path) -> None:
    shown = on_terminal("predict", "good.mp4", "good.mp4", "-v", cwd=place, both=True).stdout
    assert shown.count("views of 32 frames") == 2
    assert shown.count("rank") == 2
    assert "fp32 on cpu" in shown


def test_warnings_of_one_kind_are_added_up(place: Path) -> None:
    clips = [str(place / f"short{number}.mp4") for number in range(3)]
    done = vidcls("predict", *clips, "-f", "jsonl")
    warnings = [json.loads(line)["warnings"] for line in done.stdout.splitlines()]
    assert all(warnings)
    lines = [line for line in done.stderr.decode().splitlines() if "short" in line]
    assert [line.startswith(f"{clips[0]}: ") for line in lines] == [True] * len(warnings[0])
    assert all("(2 more like it)" in line for line in lines)
    one = vidcls("predict", clips[1]).stderr.decode()
    assert f"{clips[1]}: {warnings[1][0]}" in one
    assert "more like it" not in one
    every = vidcls("predict", *clips, "-v").stderr.decode()
    assert all(f"{clip}: {said[0]}" in every for clip, said in zip(clips, warnings, strict=True))
    assert vidcls("predict", *clips, "-q").stderr == b""


def test_what_was_written_is_said_once(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    done = vidcls("predict", str(place / "good.mp4"), str(place / "none.mp4"), "-o", str(output))
    assert done.returncode == 1
    assert done.stdout == b""
    errors = done.stderr.decode().splitlines()
    assert errors[-1] == f"vidcls: wrote 2 rows to {output}"
    assert sum("none.mp4: no such file" in line for line in errors) == 1
    again = vidcls("predict", str(place / "good.mp4"), "-o", str(output), "-q")
    assert again.returncode == 2
    assert b"--overwrite" in again.stderr
    silent = vidcls("predict", str(place / "good.mp4"), "-o", str(output), "-q", "--overwrite")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, b"", b"")


def test_the_default_says_what_it_is(place: Path) -> None:
    clip = str(place / "good.mp4")
    done = vidcls("predict", clip, "-f", "jsonl")
    assert "camera" in done.stderr.decode()
    assert "--model" in done.stderr.decode()
    assert len(done.stdout.splitlines()) == 1
    for arguments in (("-q",), ("-m", "camera-motion")):
        assert vidcls("predict", clip, *arguments).stderr == b""


@pytest.mark.parametrize("first", ["good.mp4", "@list.txt", "-", "./", "g*.mp4", "good"])
def test_a_clip_in_place_of_a_command_is_classified(first: str, place: Path) -> None:
    (place / "list.txt").write_text("good.mp4\n")
    (place / "good").write_bytes(EXAMPLE.read_bytes())
    stdin = EXAMPLE.read_bytes() if first == "-" else None
    done = vidcls(first, "-f", "jsonl", "-q", cwd=place, stdin=stdin)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, done.stderr
    assert rows[0]["predictions"][0]["label"] == "pan left"


def test_a_clip_that_is_not_there_is_no_unknown_command(place: Path) -> None:
    done = vidcls("nowhere.mp4", cwd=place)
    assert done.returncode == 1
    assert b"nowhere.mp4: no such file" in done.stderr


def test_a_word_that_is_neither_a_command_nor_a_clip(place: Path) -> None:
    done = vidcls("predcit", cwd=place)
    assert done.returncode == 2
    assert b"predict" in done.stderr  # did you mean
