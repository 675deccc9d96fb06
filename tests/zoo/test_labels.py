"""The lists that ship, and lists that strangers write."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        (b"a\nb\na\n", "'a' is on lines 1 and 3"),
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
    with pytest.raises(ConfigError, match=r"is not a valid path|cannot be read"):
        load_labels("a\0b.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not an ordinary file"):
        load_labels(tmp_path / "fifo")


def test_counts_are_checked() -> None:
    with pytest.raises(ConfigError, match="model: has 2 labels for a model of 3 classes"):
        check_labels(["a", "b"], 3, "model")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("1 ApplyEyeMakeup\r\n2 Archery\r\n", ("ApplyEyeMakeup", "Archery")),
        ("0 pan left\n1 pan right\n", ("pan left", "pan right")),
        ("id,name\n0,abseiling\n1,air drumming\n", ("abseiling", "air drumming")),
        ('0\ta\n1\t"b"\n', ("a", "b")),
        ("1 a\n3 b\n", ("1 a", "3 b")),
        ("2 a\n3 b\n", ("2 a", "3 b")),
        ("1 a\nb\n", ("1 a", "b")),
        ("2 legs\n", ("2 legs",)),
        ("id,name\nx\n", ("id,name", "x")),
        ("0\n1\n2\n", ("0", "1", "2")),
    ],
)
def test_d20_numbers_that_count_the_lines_are_no_part_of_names(
    tmp_path: Path, text: str, labels: tuple[str, ...]
) -> None:
    path = tmp_path / "classInd.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert load_labels(path) == labels


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_fuzz_label_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes: distinct names that are not empty, or an error that names the file."""
    path = tmp_path_factory.getbasetemp() / "fuzz-labels.txt"
    path.write_bytes(data)
    try:
        labels = load_labels(path)
    except ConfigError as error:
        assert error.subject == str(path)  # noqa: PT017
        return
    assert labels
    assert all(labels)
    assert len(set(labels)) == len(labels)
