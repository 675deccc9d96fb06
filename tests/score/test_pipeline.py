"""Decode threads, batches and the model, with a real tiny model; and several processes of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from tests.clips import make_clip
from tests.score import faults
from tests.score.test_run import rows_of
from vidcls.errors import DeviceError
from vidcls.inference.load import load
from vidcls.score import Job, batching, multi_gpu, score
from vidcls.score.batching import Batcher
from vidcls.score.listing import Inputs
from vidcls.score.multi_gpu import Fleet, local_scorer
from vidcls.score.pipeline import Pipeline
from vidcls.score.rows import Result
from vidcls.score.setup import Setup
from vidcls.video.sources import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipeline")
    for architecture in ("vivit-fe", "vivit-st"):
        faults.make_checkpoint(place / f"{architecture}.safetensors", architecture)
    (place / "clips").mkdir()
    for i in range(9):
        make_clip(place / "clips" / f"{i}.mp4", 20 + 3 * i, size=(48 + 8 * (i % 3), 64), gop=8)
    return place


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def items_of(folder: Path) -> list[Source]:
    return list(Inputs((str(folder / "clips"),)))


def setup_of(folder: Path, architecture: str = "vivit-fe", **more: Any) -> Setup:
    load_keywords = {
        "weights": str(folder / f"{architecture}.safetensors"),
        "num_views": 2,
        "engine": "eager",
    }
    return Setup({**load_keywords, "device": "cpu", **more.pop("load", {})}, **more)


def results_of(pipeline: Any, items: Any) -> dict[str, Result]:
    return {result.item.path: result for result in pipeline.run(items) if result is not None}


@pytest.mark.parametrize("architecture", ["vivit-fe", "vivit-st"])
@pytest.mark.parametrize("crops", [1, 3])
def test_clips_that_share_batches_score_as_alone(folder: Path, architecture: str, crops: int) -> None:
    """Views of different clips go through the model together, and each clip gets its own scores."""
    setup = setup_of(
        folder, architecture, batch=4 * crops + 1, workers=2, all_scores=True, load={"num_crops": crops}
    )
    items = items_of(folder)
    shared = []
    with contextlib.closing(setup.pipeline()) as pipeline:
        run = pipeline._batcher.run

        def spy(engine: Any, works: Any) -> Any:
            shared.append(len(works))
            time.sleep(0.05)  # the decoders get ahead, so that there is something to share
            return run(engine, works)

        pipeline._batcher.run = spy  # type: ignore[method-assign]
        results = results_of(pipeline, items)
        stats = pipeline.stats()
    assert max(shared) == 2
    assert stats["clips"] == sum(shared) == len(items)
    assert stats["views"] == 2 * crops * len(items)
    with load(**setup.load) as classifier:
        for item in items:
            alone = classifier.predict(item.path)
            row = results[item.path].row
            assert alone.scores is not None
            assert np.allclose(row["scores"], alone.scores, atol=1e-6)
            assert [p["label"] for p in row["predictions"]] == [p["label"] for p in alone.row["predictions"]]
            assert {k: v for k, v in row.items() if k in alone.row and k != "predictions"} == {
                k: v for k, v in alone.row.items() if k != "predictions"
            }


class NumpyViViTEngine:
    """Runs out of memory above a number of views, as a GPU does."""

    unit_frames = 0

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.sizes: list[int] = []

    def __call__(self, views: Any, frame_indices: Any = None, scale_shift: Any = None) -> Any:
        self.sizes.append(len(views))
        if len(views) > self.fits:
            raise DeviceError("cuda:0", "out of memory", "use fewer --views")
        return views.reshape(len(views), -1)[:, :3].astype(np.float32)


def works_of(folder: Path, count: int) -> Any:
    with load(
        weights=folder / "vivit-st.safetensors", num_views=4, device="cpu", engine="eager"
    ) as classifier:
        item = items_of(folder)[0]
        clip = classifier.read(item.path)
    return [batching.prepare(item, clip, 0, False, 0.0) for _ in range(count)]


def test_running_out_of_memory_halves_the_batch(folder: Path) -> None:
    works = works_of(folder, 4)
    expected = np.concatenate([NumpyViViTEngine(99)(work.pixels) for work in works])
    engine, batcher = NumpyViViTEngine(fits=5), Batcher(16)
    logits = batcher.run(engine, works)
    assert [len(part) for part in logits] == [4, 4, 4, 4]
    assert np.array_equal(np.concatenate(logits), expected)
    assert engine.sizes == [16, 8, 4, 4, 4, 4]
    assert (batcher.size, batcher.halved) == (4, 2)
    batcher.run(engine, works)
    assert engine.sizes[6:] == [4, 4, 4, 4]  # it remembers
    with pytest.raises(DeviceError, match="out of memory"):
        Batcher(4).run(NumpyViViTEngine(fits=0), works)


def test_the_batch_grows_while_that_pays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(batching.time, "perf_counter", lambda: clock[0])

    def run_with(cost: Any) -> int:
        batcher = Batcher(8, grows=True)
        for _ in range(60):

            def spend(engine: Any, works: Any, size: int) -> list[Any]:
                clock[0] += cost(size)
                return []

            monkeypatch.setattr(batching, "_score", spend)
            batcher.run(None, works_of_size(batcher.size))  # type: ignore[arg-type]
        return batcher.size

    def works_of_size(size: int) -> Any:
        return works[:1] * (size // 4)

    works = works_of(folder, 1)
    assert run_with(lambda size: 1.0 + 0.01 * size) == batching.MAX_GPU_BATCH  # a fixed cost, shared by more
    assert run_with(lambda size: 0.1 * size) == 8  # nothing gained
    assert run_with(lambda size: max(32, size) * 1.0) == 32  # as large as the device is wide


def test_what_waits_for_the_model_is_bounded(folder: Path) -> None:
    (work,) = works_of(folder, 1)
    for queue, most in (
        (batching.Ready(10 * work.pixels.nbytes), 10),
        (batching.Ready(1 << 40), batching.MAX_READY),
        (batching.Ready(1), 1),  # one clip always fits
    ):
        stop = threading.Event()
        put: list[int] = []

        def fill(queue: Any = queue, stop: Any = stop, put: list[int] = put) -> None:
            while not stop.is_set():
                queue.put(work, stop)
                put.append(1)

        thread = threading.Thread(target=fill)
        thread.start()
        time.sleep(0.3)
        assert len(put) == most
        assert queue.get(1.0) is work
        time.sleep(0.3)
        assert len(put) == most + 1
        stop.set()
        thread.join()


def test_closing_ends_all_that_is_under_way(folder: Path) -> None:
    pipeline = setup_of(folder, workers=2).pipeline()
    before = threading.active_count()

    def endless() -> Iterator[Source]:
        while True:
            yield from items_of(folder)

    results = pipeline.run(endless())
    first = next(result for result in results if result is not None)
    assert first.kind is None
    begin = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 20
    assert all(isinstance(result, Result) for result in pipeline.leftovers())
    pipeline.close()
    assert threading.active_count() <= before


def test_an_error_of_the_model_ends_the_run_and_keeps_the_rows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    made: list[Pipeline] = []

    def broken(setup: Setup) -> Pipeline:
        pipeline = setup.pipeline()
        run = pipeline._batcher.run

        def fail_later(engine: Any, works: Any) -> Any:
            if pipeline.measured.clips >= 4:
                raise DeviceError("cuda:0", "an illegal memory access was encountered")
            return run(engine, works)

        pipeline._batcher.run = fail_later  # type: ignore[method-assign]
        made.append(pipeline)
        return pipeline

    inputs = Inputs((str(folder / "clips"),))
    with pytest.raises(DeviceError, match="illegal memory access"):
        score(Job(inputs, str(out), setup_of(folder), make_scorer=broken), {"quiet": True})
    kept = len(rows_of(out))
    assert kept >= 4
    summary = score(Job(inputs, str(out), setup_of(folder)), {"quiet": True})
    assert summary.counts.skipped == kept
    assert len({row["path"] for row in rows_of(out)}) == len(rows_of(out)) == 9


def test_an_unforeseen_failure_is_that_clips_own(folder: Path) -> None:
    pipeline = setup_of(folder, workers=1).pipeline()
    read = pipeline._classifier.read

    def stumble(path: Any, reader: Any = None) -> Any:
        if str(path).endswith("3.mp4"):
            raise ZeroDivisionError("nobody thought of this")
        if str(path).endswith("5.mp4"):
            raise MemoryError
        return read(path, reader)

    pipeline._classifier.read = stumble  # type: ignore[method-assign]
    results = results_of(pipeline, items_of(folder))
    pipeline.close()
    kinds = {Path(path).stem: result.kind for path, result in results.items()}
    assert kinds == {**dict.fromkeys("012345678"), "3": "internal", "5": "memory"}


def test_a_clip_that_the_model_stumbles_over(folder: Path) -> None:
    """It fails alone, though it shared a batch with others; a model that never worked ends the run."""
    pipeline = setup_of(folder, workers=1, batch=8).pipeline()
    run = pipeline._batcher.run

    def stumble(engine: Any, works: Any) -> Any:
        time.sleep(0.05)
        if pipeline.measured.clips and any(work.item.path.endswith("7.mp4") for work in works):
            raise RuntimeError("a shape that nobody has seen")
        return run(engine, works)

    pipeline._batcher.run = stumble  # type: ignore[method-assign]
    first, *others = sorted(items_of(folder), key=lambda item: item.path)
    results = results_of(pipeline, [first, *others])
    assert {Path(path).stem: result.kind for path, result in results.items() if result.kind} == {
        "7": "internal"
    }
    assert len(results) == len(others) + 1
    pipeline.measured.clips = 0

    def broken(engine: Any, works: Any) -> Any:
        raise RuntimeError("no kernel image is available")

    pipeline._batcher.run = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no kernel image"):
        results_of(pipeline, [first])
    pipeline.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills by POSIX signals")
def test_a_decoder_killed_from_outside_gets_its_clip_once_more(folder: Path, tmp_path: Path) -> None:
    """Point 10 of the hard times: the system's memory killer, say; the clip is not called damaged."""
    clip = make_clip(tmp_path / "one.mp4", 30, size=(48, 64))
    pipeline = setup_of(folder, workers=1).pipeline()
    make, killed = pipeline._make_reader, []

    def make_reader() -> Any:
        reader = make()
        read = reader.read

        def read_and_kill(*arguments: Any) -> Any:
            if not killed:
                killed.append(reader._worker._process.pid)
                os.kill(killed[0], signal.SIGKILL)
            return read(*arguments)

        reader.read = read_and_kill
        return reader

    pipeline._make_reader = make_reader
    (result,) = results_of(pipeline, [Source(str(clip))]).values()
    pipeline.close()
    assert killed
    assert result.row["error"] is None
    assert result.row["warnings"] == []


def test_two_devices_and_one_that_dies(folder: Path, tmp_path: Path) -> None:
    """`--device cpu,cpu` is two processes; one that is killed is replaced, and its clips are not lost."""
    out = tmp_path / "out.jsonl"
    more = [make_clip(folder / "clips" / f"more{i}.mp4", 12, size=(48, 64)) for i in range(12)]
    fleets: list[Fleet] = []

    def make(setup: Setup) -> Fleet:
        fleet = local_scorer(setup)
        assert isinstance(fleet, Fleet)
        fleets.append(fleet)
        if hasattr(signal, "SIGKILL"):
            os.kill(fleet._members[1].process.pid or 0, signal.SIGKILL)
        return fleet

    setup = setup_of(folder, workers=1, load={"device": "cpu,cpu"})
    summary = score(Job(Inputs((str(folder / "clips"),)), str(out), setup, make_scorer=make), {"quiet": True})
    rows = rows_of(out)
    assert len({row["path"] for row in rows}) == len(rows) == summary.rows == 9 + len(more)
    assert summary.counts.scored == summary.rows
    assert summary.stats["clips"] > 0
    assert all(not member.process.is_alive() for member in fleets[0]._members)
    with pytest.raises(DeviceError, match="abacus"):
        local_scorer(setup_of(folder, load={"device": "cpu,abacus"}))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops by POSIX signals")
def test_a_process_that_is_stopped_is_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Point 10 of the hard times: SIGSTOP, in the middle of its work, must not hang the run."""
    monkeypatch.setattr("vidcls.score.multi_gpu.SILENT_SECONDS", 4.0)
    fleet = local_scorer(setup_of(folder, workers=1, load={"device": "cpu,cpu"}))
    assert isinstance(fleet, Fleet)
    stopped = fleet._members[0].process
    os.kill(stopped.pid or 0, signal.SIGSTOP)
    out = tmp_path / "out.jsonl"
    job = Job(Inputs((str(folder / "clips"),)), str(out), make_scorer=lambda _: fleet)
    summary = score(job, {"quiet": True})
    assert summary.counts.scored == summary.rows == len(items_of(folder))
    assert not stopped.is_alive()
    assert fleet._members[0].process is not stopped
    assert all(not member.process.is_alive() for member in fleet._members)


class SilentFleet(Fleet):
    """A fleet without processes, to see what it makes of messages."""

    def __init__(self) -> None:
        self._members, self._again, self._looked = [], [], time.monotonic()
        self._arrived = SimpleQueue()
        self._settings, self._labels = {"model": "x"}, ()
        self.replaced: list[str] = []

    def _replace(self, member: Any, why: str) -> None:
        self.replaced.append(why)
        member.silent = 0.0


def test_whom_a_fleet_takes_for_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SilentFleet()
    member = multi_gpu._Member("cuda:0", None, None, ready=({}, ()))  # type: ignore[arg-type]
    fleet._members = [member]
    fleet._take(member, "alive", 10.0)
    assert fleet.replaced == []
    fleet._take(member, "alive", 2000.0)  # the heart beats, but the GPU does not answer
    assert fleet.replaced == ["has been in one forward pass for 2000 s"]
    clock = [0.0]
    monkeypatch.setattr(multi_gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(multi_gpu, "TICK", 0.001)
    fleet._looked = 0.0
    clock[0] = 10_000.0  # this process itself was stopped for hours, as by a scheduler: nobody is to blame
    fleet._hear()
    assert len(fleet.replaced) == 1
    monkeypatch.setattr(multi_gpu, "TICK", 0.25)
    fleet._arrived.put(("another", ("alive", 0.0)))  # type: ignore[arg-type]
    for _ in range(70):
        clock[0] += 1.0
        fleet._arrived.put(("another", ("alive", 0.0)))  # type: ignore[arg-type]
        fleet._hear()
    assert fleet.replaced[1:] == ["has not been heard of for 60 s"]


def test_i13_5_no_more_decoders_than_clips(folder: Path) -> None:
    """``VIDCLS_WORKERS=256`` for a clip or two starts a decoder for each of them and no more."""
    for number in (1, 2):
        pipeline = setup_of(folder, workers=256).pipeline()
        assert len(results_of(pipeline, items_of(folder)[:number])) == number
        assert pipeline.stats()["workers"] <= number
        pipeline.close()
