"""The same scorer on a real local Ray, with broken clips and an actor that is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.score import faults, ray_faults
from tests.score.faulty_main import claim_and_vanish
from tests.score.test_run import rows_of
from vidcls.errors import UsageError
from vidcls.score import Job, score
from vidcls.score import resume_log as journal
from vidcls.score.listing import Inputs
from vidcls.score.setup import Setup

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vidcls[ray]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of which there are many
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray_faults.start_ray()
    yield
    ray.shutdown()


def test_an_actor_killed_in_the_middle(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows = inputs, each once, good ones as `vidcls predict`, bad ones with an error; and it resumes."""
    from vidcls.score.ray import Cluster

    monkeypatch.setattr(journal.Journal, "claim", claim_and_vanish)
    checkpoint = faults.make_checkpoint(tmp_path / "tiny.safetensors")
    goods, bads = faults.make_clips(tmp_path / "clips", 16, 10)
    runners: list[ray_faults.DeadlyRunner] = []

    def make_scorer(setup: Setup) -> ray_faults.DeadlyRunner:
        runners.append(ray_faults.DeadlyRunner(setup, Cluster(actors=1, block=3), after=[1]))
        return runners[0]

    load = {"weights": str(checkpoint), "device": "cpu", "engine": "eager", "decode_timeout": 5.0}
    setup = Setup(load, workers=1)
    out = tmp_path / "out.jsonl"
    job = Job(
        Inputs((str(tmp_path / "clips"),)),
        str(out),
        setup,
        make_scorer=make_scorer,
    )
    begin = time.monotonic()
    summary = score(job, {"quiet": True})
    assert runners[0].killed, "no actor was found to be killed"
    measured = runners[0].stats()
    assert measured["forward_seconds"] > 0
    assert 0 < measured["wait_share"] < 1
    assert summary.counts.failed.total() == len(bads)
    faults.check_rows(rows_of(out), goods, bads, faults.predict(goods, checkpoint))
    assert time.monotonic() - begin < 500

    # A local run goes on with what the cluster has written, and finds nothing left to do.
    summary = score(Job(job.inputs, str(out), setup), {"quiet": True})
    assert summary.counts.worked == 0
    assert summary.counts.skipped == len(goods) + len(bads) - 1  # one has vanished


def test_an_actor_killed_in_the_middle_of_a_batch(cluster: None, tmp_path: Path) -> None:
    """Point 12 of the hard times: it dies at its third clip of five; the block is scored once more, each clip once."""
    from vidcls.score.ray import Cluster, RayRunner

    checkpoint = faults.make_checkpoint(tmp_path / "tiny.safetensors")
    goods, _ = faults.make_clips(tmp_path / "clips", 9, 0)
    killing = tmp_path / "clips" / "killing.mp4"
    goods[0].rename(killing)
    paths = [str(path) for path in (*goods[1:3], killing, *goods[3:])]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    load = {"weights": str(checkpoint), "device": "cpu", "engine": "eager", "decode_timeout": 30.0}
    job = Job(
        Inputs((f"@{tmp_path / 'list.txt'}",)),
        str(tmp_path / "out.jsonl"),
        Setup(load, workers=1),
        make_scorer=lambda setup: RayRunner(setup, Cluster(actors=1, block=5)),
    )
    summary = score(job, {"quiet": True})
    assert Path(f"{killing}.killed").exists()
    rows = rows_of(tmp_path / "out.jsonl")
    assert sorted(row["path"] for row in rows) == sorted(paths)
    assert all(row["error"] is None for row in rows)
    assert summary.counts.scored == summary.rows == 9


def test_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point 12: Ray Data does not run from a client; it is said, with what to do, before anything is connected."""
    from vidcls.score.ray import Cluster, RayRunner

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    setup = Setup({"device": "cpu"})
    with pytest.raises(UsageError, match=r"ray://head:10001: is Ray Client, .*machine of the cluster"):
        RayRunner(setup, Cluster("ray://head:10001"))
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match="RAY_ADDRESS: is Ray Client"):
        RayRunner(setup, Cluster())


def test_a_model_that_is_not_there(cluster: None, tmp_path: Path) -> None:
    from vidcls.score.ray import Cluster, RayRunner

    with pytest.raises(UsageError, match="vivit-fee"):
        RayRunner(Setup({"model": "vivit-fee", "device": "cpu"}), Cluster(actors=1))
    assert ray.is_initialized()  # it was not ours to end


def test_the_command_line(tmp_path: Path) -> None:
    """`--runner ray` starts a Ray of its own, reads file:// addresses, and ends it."""
    checkpoint = faults.make_checkpoint(tmp_path / "tiny.safetensors")
    goods, _ = faults.make_clips(tmp_path / "clips", 3, 0)
    out = tmp_path / "out.jsonl"
    done = faults.run(
        *(
            "score",
            f"file://{tmp_path}/clips",
            "-o",
            str(out),
            "--weights",
            str(checkpoint),
            "--device",
            "cpu",
        ),
        *("--runner", "ray", "--ray-address", "local", "--workers", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(row["path"] for row in rows_of(out)) == sorted(f"file://{path}" for path in goods)
    assert all(row["error"] is None for row in rows_of(out))
    assert os.path.exists(f"{out}.journal")
