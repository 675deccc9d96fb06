"""`vidcls models`, and the completion of model names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.terminal import on_terminal
from tests.cli.test_predict import vidcls
from vidcls import list_models
from vidcls.config import load_registry
from vidcls.errors import UsageError

HEADINGS = [
    *("name", "dataset", "top-1", "MB", "weights", "params M", "GMACs", "frames", "architecture", "license"),
]


@pytest.mark.parametrize(
    ("columns", "hidden"),
    [
        (200, []),
        (160, ["license"]),
        (80, ["params M", "GMACs", "frames", "architecture", "license"]),
        (60, ["MB", "weights", "params M", "GMACs", "frames", "architecture", "license"]),
    ],
)
def test_table_fits_the_terminal(columns: int, hidden: list[str]) -> None:
    lines = on_terminal("models", "--toys", columns=columns).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert re.split(r" {2,}", lines[0].strip()) == [h for h in HEADINGS if h not in hidden]
    registry = load_registry()
    names = list_models()
    for line, name in zip(lines[1 : len(names) + 1], names, strict=True):  # one line a model
        spec = registry[name]
        assert line.split()[0] == name
        assert (line.split()[1] == "*") == (name == registry.default)
        assert spec.ours is not None
        ours = f"{spec.ours.params / 1e6:.1f}"
        theirs = "-" if spec.published.params is None else f"{spec.published.params / 1e6:.1f}"
        assert (f" {ours} | {theirs} " in line) == ("params M" not in hidden)
        if spec.published.top1 is not None:
            assert f" {spec.published.top1:.1f}" in line
    rest = " ".join(" ".join(lines[len(registry) + 1 :]).split())
    assert ("counted here | published" in rest) == ("params M" not in hidden)
    assert f"{len(registry)} of {len(registry)} models; * default: {registry.default or 'none'}." in rest
    assert ("A wider terminal shows" in rest) == bool(hidden)


def test_what_can_run_comes_first_and_toys_are_hidden() -> None:
    shown = [line.split()[0] for line in on_terminal("models").stdout.splitlines() if line]
    registry = load_registry()
    listed = [name for name in shown if name in registry]
    assert listed[0] == "camera-motion"
    with_weights = [registry[name].weights is not None for name in listed]
    assert with_weights == sorted(with_weights, reverse=True)
    toys = {name for name, spec in registry.items() if "tiny" in name and spec.weights is None}
    assert set(registry) - set(listed) == toys


@pytest.mark.parametrize("dataset", ["kinetics400", "Kinetics-400", "k400"])
def test_models_can_be_chosen(dataset: str) -> None:
    done = vidcls("models", "--data", dataset, "--family", "timesformer", "--has-weights")
    names = [line.split("\t")[0] for line in done.stdout.decode().splitlines()[1:]]
    assert "timesformer-base-k400-hf" in names
    assert names == [
        name
        for name, spec in load_registry().items()
        if spec.dataset == "Kinetics-400" and spec.architecture.startswith("timesformer") and spec.weights
    ]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("vivit", "vivit-b-16x2-k400-hf"),
        ("vivit-l", "vivit-l-16x2-fe-k400"),
        ("timesformer-b", "timesformer-base-k400-hf"),
        ("camera", "camera-motion"),
        ("vivit-fee", "vivit-fe"),
    ],
)
def test_suggestions_prefer_what_can_run(name: str, suggestion: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{suggestion}'"):
        load_registry()[name]


def test_an_architecture_names_the_entries_with_weights() -> None:
    done = vidcls("predict", "clip.mp4", "--model", "timesformer-divided")
    assert done.returncode == 3
    assert "timesformer-base-k400-hf" in done.stderr.decode()


def test_plain_lines_for_other_programs() -> None:
    lines = vidcls("models").stdout.decode().splitlines()
    assert lines[0].split("\t") == HEADINGS
    rows = {line.split("\t")[0]: dict(zip(HEADINGS, line.split("\t"), strict=True)) for line in lines[1:]}
    assert list(rows) == list_models()
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
    assert [entry["name"] for entry in entries] == list_models()
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
    mine = dict(zip(HEADINGS, found["mine"], strict=True))
    assert [mine[h] for h in ("architecture", "dataset", "frames", "top-1")] == ["vtn", "-", "250", "12.3"]
    assert found["vivit-fe"][1] == "replaced"
    assert len(rows) == len(load_registry()) + 2
    shown = on_terminal("models", "--registry", str(own), columns=200).stdout
    assert "default: mine" in shown
    assert "[bold]my own[/bold]" in shown or "[bold]my own" in shown  # as written, and cut where too long
    (tmp_path / "vidcls").mkdir()
    (tmp_path / "vidcls" / "models.yaml").write_text("models: {theirs: {base: vivit-st}}\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path), "APPDATA": str(tmp_path)}
    if sys.platform != "darwin":
        assert b"\ntheirs\t" in vidcls("models", env=env).stdout
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
