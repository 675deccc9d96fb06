"""Outputs at addresses, with kills: on a local S3 server, in memory, and on file://."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.score import faults
from tests.score.test_run import make_tree, run
from vidcls.score import run as run_module
from vidcls.video import object_store

fsspec = pytest.importorskip("fsspec")

# A run with a scorer that has no model, in a process that ends at once at a chosen moment, as by kill -9.
CODE = """
import os, sys
from tests.score.test_run import Stub, run
from vidcls.score import row_file
from vidcls.video import object_store
address, folder, moment = sys.argv[1:]
row_file.COMMIT_ROWS = 2
upload, write_whole = object_store.upload, row_file.write_whole
def die(*_): os._exit(9)
class Dying(Stub):
    def run(self, items):
        for number, result in enumerate(super().run(items)):
            if number == 9: die()
            yield result
def upload_and_die(*arguments): upload(*arguments); die()
if moment == "before": object_store.upload = die
if moment == "after": object_store.upload = upload_and_die
stub = Dying() if moment == "scoring" else Stub()
run(address, folder, stub=stub)
print(len(stub.seen))
"""


def run_process(
    address: str, folder: Path, moment: str, where: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, address, str(folder), moment],
        cwd=where, env=faults.environment(**more), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def paths_in(data: bytes, suffix: str) -> list[str]:
    if suffix == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(io.BytesIO(data))
        return sorted(table.column("path").to_pylist())
    return sorted(json.loads(line)["path"] for line in data.splitlines())


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A local S3 server in a process of its own → the variables by which s3fs finds it."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the S3 server did not start"
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("moment", ["scoring", "before", "after"])
def test_killed_with_an_output_on_s3(tmp_path: Path, s3: dict[str, str], suffix: str, moment: str) -> None:
    """Point 12 of the hard times: the object is there as a whole or not at all, and the same command goes on."""
    paths = make_tree(tmp_path / "clips")
    where = tmp_path / "where"
    where.mkdir()
    address = f"s3://bucket-{suffix}-{moment}/deep/scores.{suffix}"
    store = fsspec.filesystem(
        "s3", key="test", secret="test", endpoint_url=s3["AWS_ENDPOINT_URL"], skip_instance_cache=True
    )
    store.mkdir(f"bucket-{suffix}-{moment}")
    done = run_process(address, tmp_path / "clips", moment, where, **s3)
    assert done.returncode == 9, done.stderr
    store.invalidate_cache()
    assert store.exists(address) == (moment == "after")
    done = run_process(address, tmp_path / "clips", "never", where, **s3)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) == 0) == (moment != "scoring")
    store.invalidate_cache()
    assert paths_in(store.cat(address), suffix) == paths


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_ended_with_an_output_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, moment: str
) -> None:
    paths = make_tree(tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    memory = fsspec.filesystem("memory")
    address = f"memory://kills/{moment}.{suffix}"
    upload = object_store.upload

    class Killed(BaseException):
        pass

    def die(*arguments: Any) -> None:
        if moment == "after":
            upload(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_module.object_store, "upload", die)
        with pytest.raises(Killed):
            run(address, tmp_path / "clips")  # type: ignore[arg-type]
    assert memory.exists(address) == (moment == "after")
    _, stub = run(address, tmp_path / "clips")  # type: ignore[arg-type]
    assert stub.seen == []
    assert paths_in(memory.cat(address), suffix) == paths


def test_a_local_address_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """file:// is a disk: it is written beside its place, as any other output."""
    paths = make_tree(tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "there" / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(Exception, match=r"out\.jsonl: cannot be written .*No space left"):
            run(f"file://{out}", tmp_path / "clips")  # type: ignore[arg-type]
    assert list(out.parent.iterdir()) == []
    run(f"file://{out}", tmp_path / "clips")  # type: ignore[arg-type]
    assert paths_in(out.read_bytes(), "jsonl") == paths
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
