"""The same scorer on a real local Ray, with broken clips and an actor that is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.score import faults
from tests.score.test_run import rows_of
from vidcls.errors import UsageError
from vidcls.score import Job, score
from vidcls.score.inputs import Inputs, Item
from vidcls.score.local import Setup
from vidcls.score.rows import Result

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'vidcls[ray]'")
psutil = pytest.importorskip("psutil")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of which there are many
    pytest.mark.timeout(600),
]

HOOKED = ("hanging", "locked", "vanishing")  # need a patched process: see test_faults


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": str(faults.ROOT)}},
    )
    yield
    ray.shutdown()


def actor_processes() -> list[Any]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::" in " ".join(process.info["cmdline"] or ()) and "ScoreActor" in " ".join(
            process.info["cmdline"]
        ):
            found.append(process)
    return found


def test_an_actor_killed_in_the_middle(cluster: None, tmp_path: Path) -> None:
    """Rows = inputs, each once, good ones as `vidcls predict`, bad ones with an error; and it resumes."""
    from vidcls.score.runner_ray import Cluster, RayRunner

    checkpoint = faults.make_checkpoint(tmp_path / "tiny.safetensors")
    goods, bads = faults.make_clips(tmp_path / "clips", 16, 10)
    for path in [path for path in bads if path.name.startswith(HOOKED)]:
        bads.remove(path)
        path.unlink()
    killed: list[int] = []

    class Deadly(RayRunner):
        def run(self, items: Iterable[Item]) -> Iterator[Result | None]:
            for result in super().run(items):
                if result is not None and not killed:
                    for process in actor_processes():
                        process.kill()
                        killed.append(process.pid)
                yield result

    setup = Setup({"weights": str(checkpoint), "device": "cpu", "engine": "eager"}, workers=1)
    out = tmp_path / "out.jsonl"
    job = Job(
        Inputs((str(tmp_path / "clips"),)),
        str(out),
        setup,
        make_scorer=lambda setup: Deadly(setup, Cluster(actors=1, block=3)),
    )
    begin = time.monotonic()
    summary = score(job, {"quiet": True})
    assert killed, "no actor was found to be killed"
    assert summary.counts.failed.total() == len(bads)
    faults.check_rows(rows_of(out), goods, bads, faults.predict(goods, checkpoint))
    assert time.monotonic() - begin < 500

    # A local run goes on with what the cluster has written, and finds nothing left to do.
    summary = score(Job(job.inputs, str(out), setup), {"quiet": True})
    assert summary.counts.worked == 0
    assert summary.counts.skipped == len(goods) + len(bads)


def test_a_model_that_is_not_there(cluster: None, tmp_path: Path) -> None:
    from vidcls.score.runner_ray import Cluster, RayRunner

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
