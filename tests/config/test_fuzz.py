"""Random and mutated registries: valid, or one ConfigError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidcls.config import builtin_registry_path, load_registry, parse_yaml, read_yaml
from vidcls.errors import ConfigError

fuzz = settings(
    max_examples=60,
    deadline=5000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    "a b : - , [ ] { } & * ! | > % @ ` ' \" # ? \n \t << &x *x !!python/name:os.system --- ... 1e9 ~ null 0x10 "
    "2001-12-14 .inf base models default vivit-st".split(" ")
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def error_of(call: Callable[[], object], kind: type[Exception] = ConfigError) -> str:
    """The text of the one kind of error that is allowed; empty where there is none."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""


@fuzz
@given(pieces=st.lists(PIECES | st.text(max_size=3), max_size=40), aliases=st.booleans())
def test_m3_random_yaml(pieces: list[str], aliases: bool, tmp_path: Path) -> None:
    text = " ".join(pieces)
    assert "\n" not in error_of(lambda: parse_yaml(text, aliases=aliases), ValueError)
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert error_of(lambda: read_yaml(path)) or isinstance(read_yaml(path), dict)


KEYS = "architecture base config input weights labels published license description hint ours dataset".split()


@fuzz
@given(
    entry=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
    below=st.sampled_from(["vivit-st", "camera-motion", "nothing"]),
)
def test_m3_random_registries(entry: dict[str, object], below: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"models": {"mine": {"base": below, **entry}}}), encoding="utf-8")
    assert len(error_of(lambda: load_registry(path))) < 8000


@fuzz
@given(data=st.data())
def test_m3_the_registry_that_ships_mutated(data: st.DataObject, tmp_path: Path) -> None:
    lines = builtin_registry_path().read_text(encoding="utf-8").splitlines()[:120]
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        line = lines[number]
        cut = data.draw(st.integers(0, len(line)))
        lines[number] = (
            line[:cut] + data.draw(PIECES) + line[cut:] if data.draw(st.booleans()) else line[:cut]
        )
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert len(error_of(lambda: load_registry(path))) < 8000
