"""Converted models on the disk: whole or not there, bounded, found again, and run without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.clips import make_clip
from vidcls.engines import cache

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path))
    monkeypatch.delenv("VIDCLS_ENGINE_CACHE", raising=False)
    return tmp_path / "engines"


def writer(size: int, name: str = "model.xml"):  # type: ignore[no-untyped-def]
    def write(folder: Path) -> None:
        (folder / name).write_bytes(b"x" * size)

    return write


def test_what_was_stored_is_found(place: Path) -> None:
    assert cache.find("a") is None
    entry = cache.store("a", writer(10), {"unit_frames": 2, "error": 1e-7})
    assert entry is not None
    found = cache.find("a")
    assert found is not None
    assert (found.folder, found.meta["unit_frames"], found.meta["error"]) == (place / "a", 2, 1e-7)
    assert [f.name for f in place.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_nothing(place: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "model.xml").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert cache.store("a", write, {"unit_frames": 0}) is None
    assert list(place.iterdir()) == []

    def interrupted(folder: Path) -> None:
        (folder / "model.xml").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store("a", interrupted, {"unit_frames": 0})
    assert list(place.iterdir()) == []


def test_damaged_entries_are_not_used_and_are_replaced(place: Path) -> None:
    cache.store("a", writer(10), {"unit_frames": 0})
    (place / "a" / "model.xml").write_bytes(b"cut")
    assert cache.find("a") is None
    assert cache.store("a", writer(10), {"unit_frames": 0}) is not None
    (place / "a" / "meta.json").write_text("[1")
    assert cache.find("a") is None
    (place / "a" / "meta.json").write_text('{"unit_frames": 0, "sizes": {}}')
    assert cache.find("a") is None


def test_the_longest_unused_make_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDCLS_ENGINE_CACHE", str(250 / 2**30))
    for age, key in ((3, "a"), (2, "b")):
        cache.store(key, writer(100), {"unit_frames": 0})
        old = time.time() - age * 1000
        os.utime(place / key / "meta.json", (old, old))
    assert cache.find("a") is not None  # used again: now b is the oldest
    cache.store("c", writer(100), {"unit_frames": 0})
    assert {folder.name for folder in place.iterdir()} == {"a", "c"}
    assert cache.store("huge", writer(300), {"unit_frames": 0}) is None
    assert {folder.name for folder in place.iterdir()} == {"a", "c"}
    monkeypatch.setenv("VIDCLS_ENGINE_CACHE", "0")
    assert cache.store("d", writer(1), {"unit_frames": 0}) is None


def test_what_killed_processes_left_is_swept(place: Path) -> None:
    left = place / ".making-left"
    fresh = place / ".making-fresh"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"x")
    old = time.time() - 2 * cache.STALE
    os.utime(left, (old, old))
    cache.store("a", writer(1), {"unit_frames": 0})
    assert {folder.name for folder in place.iterdir()} == {"a", ".making-fresh"}


def test_several_may_store_the_same_at_once(place: Path) -> None:
    gate = threading.Barrier(4)
    found = []

    def work() -> None:
        gate.wait()
        found.append(cache.store("a", writer(1000), {"unit_frames": 0}))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(entry is not None for entry in found)
    assert len(found) == 4
    assert [folder.name for folder in place.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "file"))
    assert cache.store("a", writer(1), {"unit_frames": 0}) is None
    assert cache.find("a") is None
    assert cache.entries() == []


def test_the_key_knows_what_matters() -> None:
    recipe = cache.Recipe("vivit-st", {"depth": 2}, "sum", 8, (32, 32))
    same = cache.Recipe("vivit-st", {"depth": 2}, "sum", 8, (32, 32))
    assert recipe.key() == same.key()
    others = [
        cache.Recipe("vivit-fe", {"depth": 2}, "sum", 8, (32, 32)),
        cache.Recipe("vivit-st", {"depth": 3}, "sum", 8, (32, 32)),
        cache.Recipe("vivit-st", {"depth": 2}, "other", 8, (32, 32)),
        cache.Recipe("vivit-st", {"depth": 2}, "sum", 16, (32, 32)),
        cache.Recipe("vivit-st", {"depth": 2}, "sum", 8, (32, 48)),
        cache.Recipe("vivit-st", {"depth": 2}, "sum", 8, (32, 32), "int8"),
    ]
    assert len({recipe.key(), *(other.key() for other in others)}) == 7


SCRIPT = """
import sys
from vidcls.cli.app import main
try:
    main()
finally:
    print("imported:", *[m for m in ("torch", "openvino") if m in sys.modules], file=sys.stderr)
"""


def run(*arguments: str, cache_dir: Path, **env: str) -> tuple[dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        timeout=200,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VIDCLS_CACHE": str(cache_dir), **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def scores(row: dict[str, object]) -> dict[str, float]:
    return {p["label"]: p["score"] for p in row["predictions"]}  # type: ignore[attr-defined]


@needs_openvino
@pytest.mark.parametrize(
    "name", ["vit-tiny-frames", pytest.param("timesformer-tiny", marks=pytest.mark.slow)]
)
def test_a_cached_engine_runs_without_torch(tmp_path: Path, name: str) -> None:
    import torch

    from tests.engines.test_engines import make_model
    from vidcls.checkpoints import save_checkpoint

    model, _ = make_model(name)
    weights = tmp_path / "model.safetensors"
    save_checkpoint(model, weights, labels=[f"label {i}" for i in range(model.num_classes)])
    clip = make_clip(tmp_path / "clip.mp4", 60, size=(72, 96))
    command = ["predict", str(clip), "--weights", str(weights), "-f", "jsonl", "-k", "10", "--device", "cpu"]
    eager, _ = run(*command, "--engine", "eager", cache_dir=tmp_path / "cache")
    made, said = run(*command, "--engine", "openvino", cache_dir=tmp_path / "cache")
    assert said.endswith("imported: torch openvino\n")
    assert "converting" not in said  # progress is for a person who watches
    again, said = run(*command, cache_dir=tmp_path / "cache")
    assert said.endswith("imported: openvino\n")
    for row in (made, again):
        assert row.keys() == eager.keys()
        assert scores(row) == pytest.approx(scores(eager), abs=1e-5)
        assert {k: v for k, v in row.items() if k != "predictions"} == {
            k: v for k, v in eager.items() if k != "predictions"
        }
    # A copy elsewhere is the same model: its engine is found by the weights' checksum.
    copy = shutil.copy(weights, tmp_path / "copy.safetensors")
    _, said = run(*command[:3], str(copy), *command[4:], cache_dir=tmp_path / "cache")
    assert said.endswith("imported: torch openvino\n")
    assert len(list((tmp_path / "cache" / "engines").iterdir())) == 1
    # Other weights in the same place are not mistaken for the old ones.
    with torch.no_grad():
        model.head.bias += torch.linspace(0, 3, model.num_classes)
    save_checkpoint(model, weights, labels=[f"label {i}" for i in range(model.num_classes)])
    changed, said = run(*command, cache_dir=tmp_path / "cache")
    assert "torch" in said
    assert scores(changed) != pytest.approx(scores(eager), abs=1e-3)


@needs_openvino
def test_one_short_clip_is_not_worth_converting(tmp_path: Path) -> None:
    from tests.engines.test_engines import make_model
    from vidcls.checkpoints import save_checkpoint

    model, _ = make_model("vivit-st-tiny")
    save_checkpoint(model, tmp_path / "model.safetensors")
    clip = make_clip(tmp_path / "clip.mp4", 60, size=(72, 96))
    command = ["predict", str(clip), "--weights", str(tmp_path / "model.safetensors"), "-f", "jsonl"]
    _, said = run(*command, "--device", "cpu", cache_dir=tmp_path / "cache")
    assert said.endswith("imported: torch\n")
    assert not (tmp_path / "cache" / "engines").exists()


@needs_openvino
def test_int8_wants_to_be_made_first(tmp_path: Path) -> None:
    from tests.engines.test_engines import make_model
    from vidcls.checkpoints import save_checkpoint

    model, _ = make_model("vivit-fe-tiny")
    save_checkpoint(model, tmp_path / "model.safetensors")
    clip = make_clip(tmp_path / "clip.mp4", 60, size=(72, 96))
    command = ["predict", str(clip), "--weights", str(tmp_path / "model.safetensors"), "--precision", "int8"]
    done = subprocess.run(
        [sys.executable, "-m", "vidcls", *command],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 3
    assert "vidcls quantize" in done.stderr
