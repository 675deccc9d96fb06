"""Nothing from a registry, a label list, a checkpoint or a file's name steers the terminal, whatever the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.terminal import Shown, on_terminal
from vidcls.cli.app import COMMANDS

EXAMPLE = Path(__file__).parents[2] / "examples" / "pan-left.mp4"
EVIL = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202egnp"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such file names there")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything that can have a name of a stranger's making has one."""
    folder = tmp_path_factory.mktemp("place")
    quoted = json.dumps(EVIL)
    (folder / "evil.yaml").write_text(
        f"models:\n  evil: {{base: camera-motion, dataset: {quoted}, license: {quoted}, description: {quoted}}}\n"
        f"  bad: {{base: vtn, config: {{{quoted}: 1}}}}\n"
    )
    (folder / "good.yaml").write_text(
        f"models:\n  evil: {{base: camera-motion, dataset: {quoted}, license: {quoted}, hint: {quoted}}}\n"
    )
    (folder / "labels.txt").write_text("".join(f"{i}{EVIL}\n" for i in range(10)))
    (folder / "clips").mkdir()
    (folder / "clips" / f"{EVIL}.mp4").write_bytes(EXAMPLE.read_bytes())
    (folder / "clips" / f"text{EVIL}.mp4").write_text("not a video")
    (folder / f"list{EVIL}.csv").write_text(
        f"path,label\nclips/{EVIL}.mp4,0{EVIL}\nclips/none{EVIL}.mp4,0{EVIL}\n"
    )
    (folder / f"x{EVIL}.safetensors").write_bytes(b"\x10" * 64 + EVIL.encode())
    return folder


def commands(place: Path) -> Iterator[tuple[str, ...]]:
    clips, own = (
        sorted(str(p) for p in (place / "clips").iterdir()),
        ("--registry", "good.yaml", "-m", "evil"),
    )
    labels = ("--labels", "labels.txt", "--views", "1")
    table, weights = f"list{EVIL}.csv", f"x{EVIL}.safetensors"
    yield ("predict", *clips, *own, *labels)
    yield ("predict", *clips, *own, *labels, "-v")
    for format in ("json", "jsonl", "csv"):
        yield ("predict", *clips, *own, *labels, "-f", format)
    yield ("predict", *clips, "--weights", weights)
    yield ("predict", *clips, "-m", f"none{EVIL}")
    yield ("predict", *clips, "-o", f"{EVIL}.xlsx")
    yield ("predict", *clips, "--decoder", EVIL)
    yield ("score", "clips", "-o", f"out{EVIL}.jsonl", *own, *labels)
    yield ("score", table, "-o", "out.jsonl", "--path-column", EVIL, *own)
    yield ("score", f"{EVIL}", "-o", "out.jsonl", *own)
    yield ("merge", f"out{EVIL}.jsonl", "-o", "merged.jsonl")
    yield ("models", "--registry", "good.yaml")
    yield ("models", "evil", "--registry", "good.yaml")
    yield ("models", "evil", "--registry", "good.yaml", "--json")
    yield ("models", "--registry", "evil.yaml")
    yield ("models", EVIL)
    yield ("train", "-o", f"run{EVIL}", "--data", table, "--val", "none", "-m", "vivit-fe-tiny", "--check")
    yield ("train", "-o", f"run{EVIL}", "--config", EVIL)
    yield ("evaluate", "--data", table, *own, *labels)
    yield ("evaluate", "--data", table, *own, *labels, "--json")
    yield ("calibrate", *clips, *own, *labels, "-o", f"c{EVIL}.json")
    yield ("calibrate", "--data", table, *own, "-o", f"c{EVIL}.json")
    yield ("split", table, "-o", f"lists{EVIL}")
    yield ("split", f"none{EVIL}.csv", "-o", "lists")
    yield ("synthesize", EVIL, "out")
    yield ("timeline", *clips, *own, *labels[:2])
    yield ("timeline", clips[0], *own, *labels[:2], "-o", f"t{EVIL}.json")
    yield ("explain", clips[0], *own, *labels, "-o", f"e{EVIL}.png")
    yield ("explain", clips[0], *own, "--target", EVIL, "-o", f"f{EVIL}.png")
    yield ("embed", "clips", *own, "-o", f"v{EVIL}.parquet")
    yield ("search", EVIL, f"v{EVIL}.parquet")
    yield ("search", clips[0], f"v{EVIL}.parquet", "--html", f"v{EVIL}.html")
    yield ("search", f"v{EVIL}.parquet", "--duplicates", "0.5")
    yield ("report", f"out{EVIL}.jsonl", "-o", f"p{EVIL}.html")
    yield ("watch", clips[0], *own, *labels[:2])
    yield ("watch", EVIL)
    yield ("export", "--weights", weights, "--format", "safetensors", "-o", f"{EVIL}/out.safetensors")
    yield ("doctor",)
    yield ("bench", "decode", clips[0], "-m", f"none{EVIL}")
    yield ("bench", EVIL)


def is_safe(shown: Shown) -> bool:
    return not any(
        mark in shown.stdout + shown.stderr for mark in ("\x1b]", "\x07", "\x1b[2J", "\x9b", "\u202e")
    )


def test_every_command_escapes_what_it_was_given(place: Path) -> None:
    seen = set()
    for arguments in commands(place):
        shown = on_terminal(*arguments, columns=120, cwd=place, both=True)
        assert is_safe(shown), (arguments, shown)
        assert "Traceback" not in shown.stdout, (arguments, shown.stdout)
        seen.add(arguments[0])
    assert seen == set(COMMANDS)


def test_what_is_escaped_can_still_be_read(place: Path) -> None:
    shown = on_terminal("predict", *sorted(map(str, (place / "clips").iterdir())), columns=200, cwd=place)
    assert "\\x1b[2J\\x9b31m\\u202egnp.mp4" in shown.stdout
    assert "pan left" in shown.stdout
