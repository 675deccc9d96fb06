"""Addresses of other file systems: clips, manifests and outputs through fsspec's memory:// and file://."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.score.test_run import make_tree, run
from vidcls.errors import DependencyError, InputError
from vidcls.score.listing import Inputs
from vidcls.video import object_store as remote
from vidcls.video.fetch import opened

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory() -> Any:
    system = fsspec.filesystem("memory")
    system.store.clear()
    return system


def test_clips_and_manifests(memory: Any, tmp_path: Path) -> None:
    for name in ("a/1.mp4", "a/b/2.mkv", "a/notes.txt"):
        memory.pipe(f"/clips/{name}", b"data of " + name.encode())
    assert sorted(item.path for item in Inputs(("memory://clips",))) == [
        "memory:///clips/a/1.mp4",
        "memory:///clips/a/b/2.mkv",
    ]
    assert [item.path for item in Inputs(("memory://clips/a/*.mp4",))] == ["memory:///clips/a/1.mp4"]
    memory.pipe("/m.csv", b"path,label\nmemory://clips/a/1.mp4,7\nmemory://clips/none.mp4,8\n")
    items = list(Inputs(("memory://m.csv",)))
    assert [item.columns["label"] for item in items] == ["7", "8"]
    assert remote.state(items[0].location)[0] == len(b"data of a/1.mp4")
    with opened(items[0]) as path:
        assert Path(path).read_bytes() == b"data of a/1.mp4"
        assert path.endswith(".mp4")
    assert not Path(path).exists()
    with pytest.raises(InputError, match="no such file") as caught, opened(items[1]):
        pass
    assert caught.value.kind == "not_found"
    (item,) = Inputs(("memory://nowhere",))
    assert item.error is not None
    with pytest.raises(DependencyError, match="no file system for nonsense://"):
        list(Inputs(("nonsense://bucket/clips",)))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_output(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """The journal and the rows are in the current folder; the address gets the finished file, as a whole."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    paths = make_tree(tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    address = f"memory://bucket/deep/scores.{form}"
    for seen in (10, 0):
        _, stub = run(address, tmp_path / "clips")  # type: ignore[arg-type]
        assert len(stub.seen) == seen
        data = memory.cat(f"/bucket/deep/scores.{form}")
        if form == "jsonl":
            rows = [json.loads(line) for line in data.splitlines()]
        else:
            import io

            import pyarrow.parquet as pq

            rows = pq.read_table(io.BytesIO(data)).to_pylist()
        assert sorted(row["path"] for row in rows) == paths
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        f"scores.{form}.journal",
        f"scores.{form}.rows",
    ]
