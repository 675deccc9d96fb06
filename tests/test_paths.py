"""Where caches and settings are; files are there whole or not at all; the one file lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from vidcls import paths
from vidcls.paths import cache_dir, locked, replacing, temporary_path, user_config_dir, write_text


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("before")
    with replacing(target) as place:
        place.write_text("after")
        assert target.read_text() == "before"
        assert place.parent == tmp_path
        assert place.name.startswith(".")
    assert target.read_text() == "after"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.json"
    target.write_text("before")

    def fail() -> None:
        with replacing(target) as place:
            place.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_each_step_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    target.write_text("before")
    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(paths.os, step, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            with pytest.raises(OSError, match="No space left"):
                write_text(target, "after")
        assert target.read_text() == "before", step
        assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    temporary_path(target, alone=True).write_text("left behind")
    with replacing(target, alone=True) as place:
        place.write_text("whole")
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")
def test_links_and_modes(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    write_text(link, "after")
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert real.stat().st_mode & 0o777 == 0o640
    mask = os.umask(0o022)
    try:
        write_text(tmp_path / "new", "x")
    finally:
        os.umask(mask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o644


def test_long_names_and_strange_text(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250)
    write_text(target, "a\udcff\n")
    assert target.read_bytes() == b"a\\udcff\n"


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VIDCLS_CACHE")
    assert cache_dir() == platformdirs.user_cache_path("vidcls", appauthor=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_dir() == tmp_path / "vidcls"
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG is Linux's custom")
def test_place_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_config_dir() == tmp_path / "vidcls"


def test_a_lock_makes_others_wait(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vidcls.paths import locked\n"
        "with locked(Path(sys.argv[1])): print('in')"
    )
    with locked(tmp_path / "thing"):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "thing")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert other.stderr is not None
        assert other.stderr.readline() == "waiting for another process that works on thing\n"
        assert other.poll() is None
    assert other.communicate(timeout=30)[0] == "in\n"
