"""The lists that ship, and lists that strangers write."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vidcls.errors import ConfigError
from vidcls.zoo.labels import MAX_BYTES, check_labels, known_lists, load_labels

COUNTS = {
    "camera-motion": 10,
    "imagenet1k": 1000,
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "kinetics710": 710,
    "moments-in-time": 339,
    "something-something-v2": 174,
}


def test_lists_that_ship() -> None:
    assert known_lists() == sorted(COUNTS)
    for name, count in COUNTS.items():
        check_labels(load_labels(name), count, name)


def test_known_places() -> None:
    assert load_labels("kinetics400")[5] == "archery"
    assert load_labels("camera-motion")[7:9] == ("roll clockwise", "roll counter-clockwise")
    assert load_labels("something-something-v2")[0] == "Approaching something with your camera"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffeins\r\nzwei\u2028drei \r\nvier\r\n\r\n".encode())
    assert load_labels(path) == ("eins", "zwei\u2028drei", "vier")
    assert load_labels(str(path)) == load_labels(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a\n\nb\n", "line 2 is blank"),
        (b"a\nb\na\n", "'a' stands on lines 1 and 3"),
        (b"a\n\xff\n", "not UTF-8"),
        (b"a\0b\n", "NUL"),
        (b"x" * 1000, "longer than 500"),
        (b"x\n" * (MAX_BYTES // 2 + 1), "larger than"),
        (b"\n".join(b"%d" % i for i in range(1_000_001)), "more than 1000000 lines"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_files(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        load_labels(path)
    assert caught.value.subject == str(path)


def test_missing_lists_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'kinetics400'"):
        load_labels("kinetics40")
    with pytest.raises(ConfigError, match="no such file"):
        load_labels(tmp_path / "kinetics400.txt")
    with pytest.raises(ConfigError, match="is a folder"):
        load_labels(tmp_path)
    with pytest.raises(ConfigError, match=r"is no path|cannot be read"):
        load_labels("a\0b.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not an ordinary file"):
        load_labels(tmp_path / "fifo")


def test_counts_are_checked() -> None:
    with pytest.raises(ConfigError, match="model: has 2 labels for a model of 3 classes"):
        check_labels(["a", "b"], 3, "model")
