"""`vidcls score` and `vidcls merge`, through the command line: what they refuse, and how they show progress.

Scoring itself, with its exit codes and its summary, is run as a command in tests/score.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_predict import vidcls
from tests.score.test_run import Stub, make_tree
from vidcls.score import Job, score
from vidcls.score.listing import Inputs
from vidcls.score.progress import Counts, Reporter, describe
from vidcls.video.sources import Source

EXAMPLE = Path(__file__).parents[2] / "examples" / "pan-left.mp4"


def test_usage_errors(tmp_path: Path) -> None:
    make_tree(tmp_path / "clips")
    (tmp_path / "there.jsonl").write_text("mine")
    out = str(tmp_path / "out.jsonl")
    for arguments, code, message in [
        (("score", str(tmp_path), "-o", "scores.txt"), 2, "end its name in .json, .jsonl,"),
        (("score", str(tmp_path), "-o", out, "--shard", "0/4"), 2, "count from 1"),
        (("score", str(tmp_path), "-o", out, "--ray-actors", "2"), 2, "--runner ray"),
        (("score", str(tmp_path)), 2, "--output"),
        (("merge", str(tmp_path / "none.jsonl"), "-o", out), 2, "no such file"),
        (("merge", out, "-o", str(tmp_path / "there.jsonl")), 2, "already exists"),
    ]:
        done = vidcls(*arguments, env={"NO_COLOR": "1", "TERM": "dumb"})
        text = done.stderr.decode()
        assert done.returncode == code, text
        assert message in text
        assert "Traceback" not in text
        assert done.stdout == b""


class Noted(Stub):
    """A scorer whose model has something to say."""

    def notes(self) -> tuple[str, ...]:
        return ("model: `vidcls export` makes this faster\x1b[2J",)


def test_notes_of_the_model_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path / "clips")
    for options, expected in (
        ({}, "vidcls: model: `vidcls export` makes this faster"),
        ({"json_lines": True}, '"text": "model: `vidcls export` makes this faster'),
        ({"quiet": True}, ""),
    ):
        job = Job(
            Inputs((str(tmp_path / "clips"),)),
            str(tmp_path / f"{len(options)}{len(expected)}.jsonl"),
            make_scorer=lambda _: Noted(),
        )
        score(job, options)
        said = capsys.readouterr().err
        assert said.count("vidcls export") == bool(expected)
        assert expected in said
        assert "\x1b" not in said


def test_progress_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidcls.score.progress.LINE_SECONDS", 0.0)
    make_tree(tmp_path / "clips")
    for json_lines in (False, True):
        job = Job(
            Inputs((str(tmp_path / "clips"),)),
            str(tmp_path / f"{json_lines}.jsonl"),
            make_scorer=lambda _: Stub(),
        )
        score(job, {"json_lines": json_lines, "verbose": True})
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        if json_lines:
            events = [json.loads(line) for line in lines]
            assert events[-1]["event"] == "progress"
            assert (events[-1]["done"], events[-1]["failed"]) == (10, 2)
            assert [e["kind"] for e in events if e["event"] == "failed"] == ["unreadable"] * 2
        else:
            assert lines[-1].startswith("vidcls: 10")
            assert "2 failed" in lines[-1]
            assert sum("is bad; fix it" in line for line in lines) == 2


def test_figures() -> None:
    counts = Counts(scored=30, skipped=10, video_seconds=7200.0)
    counts.failed["empty"] += 2
    reporter = Reporter(counts, Inputs(()))
    reporter._begin -= 10.0
    reporter._total = 142
    facts = reporter.figures()
    assert (facts["done"], facts["failed"], facts["total"]) == (42, 2, 142)
    assert facts["clips_per_second"] == pytest.approx(3.2, rel=0.01)
    assert facts["video_hours_per_hour"] == pytest.approx(720, rel=0.01)
    assert facts["seconds_left"] == pytest.approx(31, abs=1)
    assert describe({**facts, "wait_share": 0.25}, verbose=True).endswith("per hour · model busy 75 %")
    large = {"done": 999_999, "total": 1_000_000, "clips_per_second": 999.94, "seconds_left": 359_999}
    text = describe({**facts, **large, "wait_share": 0.25})
    assert "busy" not in text
    assert len(text) + len("  ") + 12 <= 80  # and a bar


def test_a_bar_only_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    counts = Counts()
    with Reporter(counts, Inputs(())) as reporter:
        assert not reporter._has_bar()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Reporter(counts, Inputs(())) as reporter:
        assert reporter._bar is not None
        assert reporter._has_bar()
        counts.add(Stub().result(Source("bad.mp4")))
        reporter.tick(0.5)
        assert reporter._bar._progress.tasks[0].completed == 1
    with Reporter(counts, Inputs(()), quiet=True) as reporter:
        assert not reporter._has_bar()


def test_the_end_says_what_failed_and_how_to_try_again(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "good.mp4").write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "clips" / "text.mp4").write_text("not a video")
    command = ("score", str(tmp_path / "clips"), "-o", str(tmp_path / "rows.jsonl"), "--workers", "1")
    first = vidcls(*command, "-v")
    assert first.returncode == 1
    text = first.stderr.decode()
    assert "2 clips scored; " in text or "1 clip scored; " in text
    assert "1 failed: not_a_video, such as " in text
    assert "--retry-failed" in text
    assert "the model was busy " in text
    again = vidcls(*command)
    assert again.returncode == 1
    assert "2 had been scored before" in again.stderr.decode()
    assert "1 failed: not_a_video (in an earlier run)" in again.stderr.decode()
    assert "busy" not in again.stderr.decode()
    retried = vidcls(*command, "--retry-failed").stderr.decode()
    assert "1 failed: not_a_video, such as" in retried
    assert "with --retry-failed" not in retried


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_messages_that_nobody_can_take(tmp_path: Path) -> None:
    """A log on a full disk changes neither the rows nor the exit code."""
    import subprocess
    import sys

    make_tree(tmp_path / "clips")
    code = (
        "import sys; from tests.score.test_run import Stub; from vidcls.cli import app, print_message\n"
        "from vidcls.score import run, multi_gpu\n"
        "multi_gpu.local_scorer = lambda setup: Stub()\n"
        "app.main()\n"
    )
    out = tmp_path / "out.jsonl"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "score", str(tmp_path / "clips"), "-o", str(out), "-v"], stderr=full
        )
    assert done.returncode == 1  # some clips failed
    assert len(out.read_text().splitlines()) == 10
