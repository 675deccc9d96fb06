"""``vidcls timeline``: resumed, several videos, errors, and what the shell sees."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.clips import make_clip
from vidcls.cli.app import app
from vidcls.cli.timeline import parse_seconds
from vidcls.errors import UsageError
from vidcls.inference.load import load
from vidcls.score.listing import Inputs
from vidcls.score.setup import Setup
from vidcls.timeline.result import Settings
from vidcls.timeline.run import Job, make_timelines
from vidcls.timeline.scan import Scan


class Silent:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.scored: list[tuple[str, int, int]] = []
        self.errors: list[str] = []

    def loaded(self, classifier):
        pass

    def windows(self, path, done, total, label):
        self.scored.append((Path(path).name, done, total))

    def failed(self, error):
        self.errors.append(error.kind)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    make_clip(folder / "a.mp4", 1200, size=(48, 64), options={"preset": "ultrafast"})
    make_clip(folder / "b.mp4", 300, size=(48, 64))
    return folder


def run(output, *sources, listener=None, **changes):
    settings = Settings(threshold=0.3, **changes.pop("settings", {}))
    job = Job(Inputs(tuple(map(str, sources))), str(output), Setup({"clips": 1}), settings, **changes)
    return make_timelines(job, listener or Silent())


def invoke(*arguments):
    return CliRunner().invoke(app, ["timeline", *map(str, arguments)], catch_exceptions=False)


def test_a_bad_video_is_a_row_and_stops_nothing(films, tmp_path):
    bad = tmp_path / "text.mp4"
    bad.write_text("not a video")
    listener = Silent()
    summary = run(tmp_path / "o.json", films / "b.mp4", bad, tmp_path / "missing.mp4", listener=listener)
    rows = json.loads((tmp_path / "o.json").read_text())
    assert [(Path(row["path"]).name, row["error_kind"]) for row in rows] == [
        ("b.mp4", None),
        ("text.mp4", "not_a_video"),
        ("missing.mp4", "not_found"),
    ]
    assert listener.errors == ["not_a_video", "not_found"]
    assert summary.made == 3
    assert rows[0]["segments"] == [one.to_dict() for one in summary.timelines[0].segments]


def test_the_file_is_what_python_gives(films, tmp_path):
    with load("camera-motion", clips=1) as model:
        expected = model.timeline(films / "b.mp4", threshold=0.3).to_dict()
    run(tmp_path / "o.json", films / "b.mp4")
    assert json.loads((tmp_path / "o.json").read_text()) == [expected]


def approx(prediction):
    return {**prediction, "score": pytest.approx(prediction["score"], abs=1e-6)}


class StopError(Exception):
    pass


def test_a_run_that_breaks_off_goes_on_within_the_video(films, tmp_path, monkeypatch):
    run(tmp_path / "whole.json", films)
    windows = 37  # of the longer film
    scored: list[slice] = []
    scores = Scan.scores

    def breaks_off(self, parts):
        for piece, found in scores(self, parts):
            if piece.stop > 20 and len(self.windows) == windows:
                raise StopError
            scored.append(piece)
            yield piece, found

    monkeypatch.setattr(Scan, "scores", breaks_off)
    with pytest.raises(StopError):
        run(tmp_path / "o.json", films)
    assert not (tmp_path / "o.json").exists()
    assert (scored[0].stop, scored[-1].stop) == (1, 16)  # the first part, in pieces
    monkeypatch.setattr(Scan, "scores", scores)
    listener = Silent()
    summary = run(tmp_path / "o.json", films, listener=listener)
    first = next(done for name, done, total in listener.scored if name == "a.mp4")
    assert first > 16
    assert summary.earlier == 0
    for again, whole in zip(
        *(json.loads((tmp_path / name).read_text()) for name in ("o.json", "whole.json")), strict=True
    ):
        assert again.pop("segments") == [
            {
                **one,
                "score": pytest.approx(one["score"]),
                "predictions": [approx(p) for p in one["predictions"]],
            }
            for one in whole.pop("segments")
        ]
        assert again == whole


def test_another_threshold_needs_no_decoding(films, tmp_path):
    run(tmp_path / "o.json", films / "b.mp4")
    first = json.loads((tmp_path / "o.json").read_text())
    listener = Silent()
    summary = run(
        tmp_path / "o.json", films / "b.mp4", listener=listener, settings={"min_length": 30.0, "top_k": 1}
    )
    again = json.loads((tmp_path / "o.json").read_text())
    assert listener.scored == []
    assert summary.earlier == 1
    assert again[0]["min_length"] == 30
    assert len(first[0]["segments"][0]["predictions"]) == 3
    assert all(len(segment["predictions"]) == 1 for segment in again[0]["segments"])


def test_another_window_is_not_mixed_in(films, tmp_path):
    run(tmp_path / "o.json", films / "b.mp4")
    with pytest.raises(UsageError, match=r"step was None, is 0\.5"):
        run(tmp_path / "o.json", films / "b.mp4", settings={"step": 0.5})
    run(tmp_path / "o.json", films / "b.mp4", settings={"step": 0.5}, overwrite=True)
    assert json.loads((tmp_path / "o.json").read_text())[0]["step"] == pytest.approx(0.5, abs=0.2)


def test_a_foreign_file_is_not_written_over(films, tmp_path):
    (tmp_path / "o.json").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        run(tmp_path / "o.json", films / "b.mp4")
    assert (tmp_path / "o.json").read_text() == "mine"


def test_failed_videos_are_tried_again(films, tmp_path):
    video = tmp_path / "late.mp4"
    assert run(tmp_path / "o.json", video).timelines[0].error is not None
    video.write_bytes((films / "b.mp4").read_bytes())
    assert run(tmp_path / "o.json", video).timelines[0].error is None


def test_a_folder_gets_a_file_for_each_video(films, tmp_path):
    (tmp_path / "in" / "x").mkdir(parents=True)
    for place in ("in/b.mp4", "in/x/b.mp4"):
        (tmp_path / place).write_bytes((films / "b.mp4").read_bytes())
    summary = run(f"{tmp_path}/out/", tmp_path / "in", format="vtt")
    assert [path.name for path in summary.written] == ["b.vtt", "b-2.vtt"]
    assert (tmp_path / "out" / "b-2.vtt").read_text().startswith("WEBVTT\n")


def test_formats_of_one_video_refuse_several(films, tmp_path):
    with pytest.raises(UsageError, match="name a folder"):
        run(tmp_path / "o.srt", films)


# --- the shell ---


def test_segments_are_printed_as_lines(films):
    done = invoke(films / "b.mp4", "--threshold", "0.2")
    assert done.exit_code == 0
    name, *lines = done.stdout.splitlines()
    assert name == str(films / "b.mp4")
    assert lines[0].startswith("0:00:00.00  0:00:")


def test_csv_on_stdout(films):
    done = invoke(films / "b.mp4", "-f", "csv", "--threshold", "0.2", "-q")
    assert next(csv.DictReader(done.stdout.splitlines()))["start"] == "0.0"
    assert done.stderr == ""


def test_exit_codes_and_messages(films, tmp_path):
    done = invoke(tmp_path / "missing.mp4")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no such file" in done.stderr
    for arguments, said in [
        (["--step", "2"], None),
        (["--step", "soon"], "--step: 'soon' is not a time; give seconds"),
        (["--window", "1s", "--step", "2s"], "--step: 2 s is longer than the window"),
        (["--by", "cuts"], "--by: unknown choice 'cuts'"),
        (["--by", "shots", "--window", "2s"], "--window: does not go with --by shots"),
        (["--views", "3"], "--views: does not go with --by windows"),
        (["--threshold", "7"], "--threshold: 7 is not above 0 and at most 1"),
        (["-o", str(tmp_path / "x.txt")], "its suffix is not that of a timeline"),
        (["--annotate", str(tmp_path / "x.txt")], "its suffix is not that of a video"),
    ]:
        done = invoke(films / "b.mp4", *arguments)
        assert done.exit_code == (0 if said is None else 2), arguments
        assert said is None or said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_format_of_one_video_refuses_others_before_any_work(films, tmp_path):
    listener = Silent()
    with pytest.raises(UsageError, match="srt holds one video, but several were given"):
        run(tmp_path / "o.srt", films, listener=listener)
    assert invoke(films, "-f", "srt").stdout == ""
    assert (listener.scored, list(tmp_path.iterdir())) == ([], [])
    run(tmp_path / "o.srt", films / "b.mp4", listener=listener)
    before = list(listener.scored)
    with pytest.raises(UsageError, match=r"is the timeline of .*b\.mp4; choose another output"):
        run(tmp_path / "o.srt", films / "a.mp4", listener=listener)
    assert listener.scored == before
    run(tmp_path / "o.srt", films / "a.mp4", listener=listener, overwrite=True)
    assert listener.scored[-1][0] == "a.mp4"


def test_a_mistyped_name_does_not_spoil_the_output_of_one_video(films, tmp_path):
    wrong = invoke(tmp_path / "bb.mp4", "-o", tmp_path / "o.vtt")
    assert wrong.exit_code == 1
    done = invoke(films / "b.mp4", "-o", tmp_path / "o.vtt", "--threshold", "0.2")
    assert (done.exit_code, "of 1 video to" in done.stderr) == (0, True), done.stderr
    assert (tmp_path / "o.vtt").read_text().startswith("WEBVTT")


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names there")
def test_the_end_says_how_many_failed(films, tmp_path):
    (tmp_path / "text\n.mp4").write_text("no video")
    done = invoke(films / "b.mp4", tmp_path / "text\n.mp4", "-o", tmp_path / "o.json")
    assert "of 1 video, 1 failed, to" in done.stderr
    assert all(line.startswith("vidcls: ") for line in done.stderr.splitlines())


def test_annotate_wants_one_video(films, tmp_path):
    done = invoke(films, "--annotate", tmp_path / "o.mp4", "-q")
    assert done.exit_code == 2
    assert "--annotate: writes one video, but several were given" in done.stderr


def test_annotate_beside_an_output(films, tmp_path):
    done = invoke(
        films / "b.mp4", "-o", tmp_path / "o.srt", "--annotate", tmp_path / "o.mp4", "--threshold", "0.1"
    )
    assert done.exit_code == 0
    assert (tmp_path / "o.mp4").stat().st_size > 1000
    assert f"wrote {tmp_path / 'o.mp4'}" in done.stderr


def test_ctrl_c_while_cuts_are_looked_for(films, tmp_path, monkeypatch):
    pytest.importorskip("scenedetect", exc_type=ImportError)

    class Presses(Silent):
        def windows(self, path, done, total, label):
            signal.raise_signal(signal.SIGINT)

    summary = run(tmp_path / "o.json", films / "a.mp4", listener=Presses(), settings={"by": "shots"})
    assert (summary.interrupted, summary.made) == (True, 0)
    assert not (tmp_path / "o.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_keeps_what_was_scored(films, tmp_path):
    code = (
        "import sys, time\n"
        "from vidcls.timeline import scan\n"
        "scores = scan.Scan.scores\n"
        "def slow(self, parts):\n"
        "    for found in scores(self, parts):\n"
        "        yield found\n"
        "        print('scored', file=sys.stderr, flush=True)\n"
        "        time.sleep(0.5)\n"
        "scan.Scan.scores = slow\n"
        "from vidcls.cli.app import main\n"
        "main()\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "timeline",
        str(films / "a.mp4"),
        "-o",
        str(tmp_path / "o.json"),
        "-q",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(2):
        assert process.stderr is not None
        assert process.stderr.readline() == "scored\n"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted; what was scored is kept, and the same command resumes" in said
    listener = Silent()
    summary = run(tmp_path / "o.json", films / "a.mp4", listener=listener)
    assert listener.scored[0][1] > 16
    assert summary.timelines[0].facts["windows"] == 37


def test_no_torch_for_the_bundled_model(films):
    code = (
        "import sys, vidcls\n"
        f"with vidcls.load(clips=1) as model: model.timeline({str(films / 'b.mp4')!r})\n"
        "print('torch' in sys.modules, 'cv2' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["False", "False", "False"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2), ("500ms", 0.5), ("1.5", 1.5), (" 1m ", 60), (".5 s", 0.5)]
)
def test_times(text, seconds):
    assert parse_seconds("step", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1h2", "nan", "1e3", "١s", "2 s s"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError):
        parse_seconds("step", text)


def test_the_first_segment_comes_before_the_film_is_read(films):
    """On a film of 48 s, the first window is scored before the tenth of the frames is decoded."""
    with load("camera-motion", clips=1) as model:
        from vidcls.timeline.make import follow
        from vidcls.video.reader import VideoReader
        from vidcls.video.sources import Source

        told: list[tuple[int, int]] = []
        with VideoReader() as reader:
            began = time.monotonic()
            follow(
                model,
                reader,
                Source("a", str(films / "a.mp4")),
                Settings(),
                lambda path, done, total, label: told.append((done, total)),
            )
            assert time.monotonic() - began < 120
    assert told[0] == (1, 37)
    assert told[-1] == (37, 37)


def test_a_film_is_not_annotated_onto_itself(films, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes((films / "b.mp4").read_bytes())
    (tmp_path / "link.mp4").hardlink_to(film)
    for target in (film, tmp_path / "link.mp4"):
        done = invoke(film, "--annotate", target, "--overwrite", "-q")
        assert done.exit_code == 2
        assert "is the input itself; choose another output" in done.stderr
    assert film.read_bytes() == (films / "b.mp4").read_bytes()
