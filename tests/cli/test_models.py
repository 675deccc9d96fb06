"""`vidcls models`, and the completion of model names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_predict import vidcls
from vidcls.config import load_registry

HEADINGS = ["name", "architecture", "dataset", "frames", "top-1", "params M", "GMACs", "license", "weights"]


def on_terminal(columns: int, *arguments: str) -> str:
    """What a person sees in a terminal of so many columns, without colors."""
    pty = pytest.importorskip("pty")  # not on Windows
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vidcls", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"},
    )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("columns", "hidden"),
    [
        (200, []),
        (160, []),
        (100, ["architecture", "dataset", "license"]),
        (72, ["architecture", "dataset", "frames", "license", "weights"]),
    ],
)
def test_table_fits_the_terminal(columns: int, hidden: list[str]) -> None:
    lines = on_terminal(columns, "models").splitlines()
    assert max(map(len, lines)) <= columns
    assert re.split(r" {2,}", lines[0].strip()) == [h for h in HEADINGS if h not in hidden]
    registry = load_registry()
    for line, spec in zip(lines[1 : len(registry) + 1], registry.values(), strict=True):  # one line a model
        assert line.split()[0] == spec.name
        assert spec.ours is not None
        ours = f"{spec.ours.params / 1e6:.1f}"
        theirs = "-" if spec.published.params is None else f"{spec.published.params / 1e6:.1f}"
        assert f" {ours} | {theirs} " in line
    rest = " ".join(" ".join(lines[len(registry) + 1 :]).split())
    assert "ours | published" in rest
    assert f"{len(registry)} models; default: {registry.default or 'none'}." in rest
    assert ("a wider terminal shows" in rest) == bool(hidden)


def test_plain_lines_for_other_programs() -> None:
    lines = vidcls("models").stdout.decode().splitlines()
    assert lines[0].split("\t") == HEADINGS
    rows = {line.split("\t")[0]: dict(zip(HEADINGS, line.split("\t"), strict=True)) for line in lines[1:]}
    assert list(rows) == list(load_registry())
    found = rows["timesformer-base-k400"]
    assert (found["architecture"], found["top-1"], found["weights"]) == (
        "timesformer-divided",
        "77.9",
        "to fetch",
    )
    assert (found["params M"], found["GMACs"]) == ("121.6 | 121.6", "195.8 | 195.8")
    assert rows["vivit-fe"]["weights"] == "none"


def test_json() -> None:
    entries = json.loads(vidcls("models", "--json").stdout)
    assert [entry["name"] for entry in entries] == list(load_registry())
    one = json.loads(vidcls("models", "vtn-vit-b-k400", "--json").stdout)
    assert one in entries
    assert one["published"]["top1"] == 77.72
    assert one["input"]["num_frames"] == 250
    assert one["present"] is False


def test_one_whole() -> None:
    import yaml

    shown = yaml.safe_load(vidcls("models", "vtn").stdout)
    assert (shown["name"], shown["architecture"]) == ("vtn", "vtn")
    assert shown["config"]["attention_window"] == 18
    assert shown["input"]["mean"] == [0.45, 0.45, 0.45]
    assert shown["published"]["params"] == 114000000


def test_unknown_name() -> None:
    done = vidcls("models", "vivit-fee")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().startswith("vidcls: vivit-fee: no such model, did you mean 'vivit-fe'?")


def test_own_registry_is_laid_over(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "default: mine\nmodels:\n"
        "  mine: {base: vtn, license: '[bold]my own[/bold]', published: {top1: 12.3}}\n"
        "  vivit-fe: {architecture: vivit-fe, dataset: replaced}\n"
    )
    rows = [
        line.split("\t") for line in vidcls("models", "--registry", str(own)).stdout.decode().splitlines()
    ]
    found = {row[0]: row for row in rows}
    assert found["mine"][1:5] == ["vtn", "-", "250", "12.3"]
    assert found["vivit-fe"][2] == "replaced"
    assert len(rows) == len(load_registry()) + 2
    shown = on_terminal(200, "models", "--registry", str(own))
    assert "default: mine" in shown
    assert "[bold]my own[/bold]" in shown or "[bold]my own" in shown  # as written, and cut where too long
    (tmp_path / "vidcls").mkdir()
    (tmp_path / "vidcls" / "models.yaml").write_text("models: {theirs: {base: vivit-st}}\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path), "APPDATA": str(tmp_path)}
    if sys.platform != "darwin":
        assert b"\ntheirs\tvivit-st\t" in vidcls("models", env=env).stdout
    own.write_text("models: {mine: {base: vtnn}}\n")
    broken = vidcls("models", "--registry", str(own))
    assert broken.returncode == 3
    assert "no entry before it is called 'vtnn', did you mean 'vtn'?" in broken.stderr.decode()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vidcls models vivit-f", ["vivit-fe", "vivit-fsa", "vivit-fdp", "vivit-fe-tiny"]),
        ("vidcls predict clip.mp4 --model vtn-r", ["vtn-r50", "vtn-r101"]),
        ("vidcls predict -m nothing-like-it", []),
    ],
)
def test_names_are_completed(words: str, expected: list[str]) -> None:
    env = {
        "_VIDCLS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    # The script that the shell has been given calls the command by its own name.
    code = "import sys; sys.argv = ['vidcls']; from vidcls.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, timeout=60
    )
    assert done.stderr == ""
    assert set(expected) <= set(done.stdout.split())
    assert all(name.startswith(words.split()[-1]) for name in done.stdout.split())
    assert bool(done.stdout.split()) == bool(expected)
