"""What is known of checkpoints, and their exported models: whole or not there, bounded, found again, without torch."""

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
from typing import Any

import pytest

from tests.clips import make_clip
from vidcls.config import ModelSpec
from vidcls.engines import cache
from vidcls.engines.artifact import RECORD, ArtifactRecord
from vidcls.zoo.facts import CheckpointFacts
from vidcls.zoo.find import CheckpointKeywords, find_model

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path))
    monkeypatch.delenv("VIDCLS_ENGINE_CACHE", raising=False)
    return tmp_path / "models"


def writer(size: int, name: str = "model.xml"):  # type: ignore[no-untyped-def]
    def write(folder: Path) -> None:
        (folder / name).write_bytes(b"x" * size)

    return write


def record(**changes: Any) -> ArtifactRecord:
    facts = CheckpointFacts(
        spec=ModelSpec(name="toy", architecture="vivit-fe"), num_classes=3, unit_frames=2, config={"depth": 2}
    )
    return ArtifactRecord(
        **{
            "format": "openvino",
            "precision": "fp32",
            "error": 1e-7,
            "source": "toy",
            "facts": facts,
            **changes,
        }
    )


def test_what_was_stored_is_found(place: Path) -> None:
    assert cache.find("a") is None
    entry = cache.store("a", writer(10), record())
    assert entry is not None
    found = cache.find("a")
    assert found is not None
    assert (found.folder, found.record.facts.unit_frames, found.record.error) == (place / "a", 2, 1e-7)
    assert [f.name for f in place.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_nothing(place: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "model.xml").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert cache.store("a", write, record()) is None
    assert list(place.iterdir()) == []

    def interrupted(folder: Path) -> None:
        (folder / "model.xml").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store("a", interrupted, record())
    assert list(place.iterdir()) == []


def test_damaged_entries_are_not_used_and_are_replaced(place: Path) -> None:
    cache.store("a", writer(10), record())
    (place / "a" / "model.xml").write_bytes(b"cut")
    assert cache.find("a") is None
    assert cache.store("a", writer(10), record()) is not None
    model = place / "a" / "model.xml"
    time.sleep(0.02)
    model.write_bytes(b"\0" * model.stat().st_size)  # its size tells nothing
    assert cache.find("a") is None
    assert cache.store("a", writer(10), record()) is not None
    written = json.loads((place / "a" / RECORD).read_text())
    for damaged in (
        "[1",
        "[" * 100_000,
        json.dumps({**written, "files": {}}),
        json.dumps({**written, "x": 1}),
    ):
        (place / "a" / RECORD).write_text(damaged)
        assert cache.find("a") is None


def test_the_longest_unused_make_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDCLS_ENGINE_CACHE", str(250 / 2**30))
    for age, key in ((3, "a"), (2, "b")):
        cache.store(key, writer(100), record())
        old = time.time() - age * 1000
        for file in (place / key).iterdir():
            os.utime(file, (old, old))
    assert cache.find("a") is not None  # used again: now b is the oldest
    cache.store("c", writer(100), record())
    assert {folder.name for folder in place.iterdir()} == {"a", "c"}
    assert cache.store("huge", writer(300), record()) is None
    assert {folder.name for folder in place.iterdir()} == {"a", "c"}
    monkeypatch.setenv("VIDCLS_ENGINE_CACHE", "0")
    assert cache.store("d", writer(1), record()) is None


def test_what_killed_processes_left_is_swept(place: Path) -> None:
    left = place / ".making-left"
    fresh = place / ".making-fresh"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"x")
    old = time.time() - 2 * cache.STALE
    os.utime(left, (old, old))
    cache.store("a", writer(1), record())
    assert {folder.name for folder in place.iterdir()} == {"a", ".making-fresh"}


def test_several_may_store_the_same_at_once(place: Path) -> None:
    gate = threading.Barrier(4)
    found = []

    def work() -> None:
        gate.wait()
        found.append(cache.store("a", writer(1000), record()))

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
    assert cache.store("a", writer(1), record()) is None
    assert cache.find("a") is None
    assert cache.entries() == []


def test_the_key_knows_what_matters(place: Path, tmp_path: Path) -> None:
    from tests.engines.test_engines import make_model
    from vidcls.checkpoints import save_checkpoint

    def key(path: Path, **keywords: Any) -> str | None:
        found = find_model(keywords.pop("model", None), weights=path, keywords=CheckpointKeywords(**keywords))
        return found.key

    model, _ = make_model("vivit-st-tiny")
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(model, path)
    model.head.bias.data += 1
    save_checkpoint(model, other)
    copy = shutil.copy(path, tmp_path / "copy.safetensors")
    assert key(path) == key(path) == key(copy)  # content decides, not the place
    keys = [key(path), key(other), key(path, num_frames=16), key(path, model="vivit-st-tiny")]
    assert None not in keys
    assert len(set(keys)) == 4


def test_what_is_known_is_found_again_and_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = record().facts
    cache.save_facts("a", facts)
    assert cache.load_facts("a") == facts
    assert cache.load_facts("b") is None
    (place / "a.json").write_text("{")
    assert cache.load_facts("a") is None
    monkeypatch.setattr(cache, "MAX_FACTS", 3)
    for number, name in enumerate("abcde"):
        cache.save_facts(name, facts)
        os.utime(place / f"{name}.json", (number, number))
    assert sorted(file.name for file in place.iterdir()) == ["c.json", "d.json", "e.json"]


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
    # A copy elsewhere is the same model: it is found by the weights' checksum.
    copy = shutil.copy(weights, tmp_path / "copy.safetensors")
    copied, said = run(*command[:3], str(copy), *command[4:], cache_dir=tmp_path / "cache")
    assert said.endswith("imported: openvino\n")
    assert scores(copied) == pytest.approx(scores(eager), abs=1e-5)
    assert (copied["model"], copied["weights"]) == ("copy.safetensors", str(copy))
    assert len(list((tmp_path / "cache" / "models").glob("*-openvino-*"))) == 1
    # Other weights in the same place are not mistaken for the old ones.
    with torch.no_grad():
        model.head.bias += torch.linspace(0, 3, model.num_classes)
    save_checkpoint(model, weights, labels=[f"label {i}" for i in range(model.num_classes)])
    changed, said = run(*command, cache_dir=tmp_path / "cache")
    assert "torch" in said
    assert scores(changed) != pytest.approx(scores(eager), abs=1e-3)


@needs_openvino
def test_nothing_is_converted_unasked_and_a_long_run_is_told_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.engines.test_engines import make_model
    from vidcls.checkpoints import save_checkpoint
    from vidcls.engines import select
    from vidcls.inference.load import load

    model, _ = make_model("vivit-st-tiny")
    save_checkpoint(model, tmp_path / "model.safetensors")
    clip = make_clip(tmp_path / "clip.mp4", 60, size=(72, 96))
    command = ["predict", str(clip), "--weights", str(tmp_path / "model.safetensors"), "-f", "jsonl"]
    _, said = run(*command, "--device", "cpu", cache_dir=tmp_path / "cache")
    assert said.endswith("imported: torch\n")
    assert not list((tmp_path / "cache" / "models").glob("*-openvino-*"))
    weights = tmp_path / "model.safetensors"
    monkeypatch.setattr(select, "has_avx512", lambda: True)
    told = "vidcls export --weights " + str(weights) + " --format openvino"
    for clips, expected in ((None, False), (1, False), (100, False), (1_000_000, True)):
        with load(weights, device="cpu", clips=clips) as classifier:
            assert any(told in note for note in classifier.notes) == expected
            assert classifier.engine.name == "eager"
    monkeypatch.setattr(select, "has_avx512", lambda: False)
    with load(weights, device="cpu", clips=1_000_000) as classifier:
        assert not classifier.notes
    monkeypatch.setattr(select, "has_avx512", lambda: True)
    for changed in ({"engine": "eager"}, {"precision": "bf16"}, {"device": "cuda"}):
        with load(weights, **{"device": "cpu", "clips": 1_000_000, **changed}) as classifier:
            assert not classifier.notes


@needs_openvino
def test_int8_must_be_exported_first(tmp_path: Path) -> None:
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
    assert "vidcls export --weights" in done.stderr
    assert "--precision int8 --calibrate CLIPS" in done.stderr
