"""`vidcls bench`: figures that add up, answers that are checked, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clips import make_clip
from vidcls.bench import decode, models, report, worker
from vidcls.bench.machine import describe, peak_matmul, peak_memory
from vidcls.bench.timing import measure, summarize
from vidcls.config import load_registry
from vidcls.errors import DependencyError, OutputError, UsageError


def test_figures_of_known_times() -> None:
    found = summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.median, found.best, found.repetitions) == (3.0, 1.0, 5)
    assert found.p90 == pytest.approx(4.6)
    assert found.spread == pytest.approx(1 / 3)


def test_measuring_warms_up_waits_and_stops() -> None:
    calls: list[str] = []
    found = measure(lambda: calls.append("run"), wait=lambda: calls.append("wait"), seconds=0, warm_up=2)
    assert calls == ["run", "run", "wait", *["run", "wait"] * 3]
    assert found.repetitions == 3
    assert measure(lambda: None, seconds=0, least=7).repetitions == 7
    found = measure(lambda: time.sleep(0.01), spread=1.0, seconds=60)
    assert found.repetitions == 3
    assert found.median >= 0.01


def test_machine() -> None:
    assert describe()["cores"] >= 1
    assert (peak_memory() or 1 << 30) > 1 << 20
    assert (peak_matmul("cpu", "fp32", seconds=0.0) or 0) > 0
    assert peak_matmul("cpu", "int8") is None


def engine_task(name: str, **load: Any) -> dict[str, Any]:
    wanted = {
        "model": name,
        "random_weights": True,
        "engine": "eager",
        "precision": "fp32",
        "device": "cpu",
        **load,
    }
    return {"load": wanted, "batch": [1, 2], "spread": 1.0, "seconds": 0.0, "clip": True}


def test_an_engine_is_measured_on_views_and_on_a_clip() -> None:
    found = worker.measure_engine(engine_task("vivit-fe-tiny"))
    assert (found["engine"], found["precision"], found["device"]) == ("eager", "fp32", "cpu")
    assert [row["batch"] for row in found["rows"]] == [1, 2]
    assert all(row["timing"]["median"] > 0 for row in found["rows"])
    assert np.ptp(found["logits"]) > 1e-4  # logits that are all alike would hide every error
    assert found["clip"]["units"] == 16  # 4 views of 4 tubelets
    assert 0 < found["clip"]["encoded"] <= 16
    again = worker.measure_engine(engine_task("vivit-fe-tiny"))
    assert again["logits"] == found["logits"]
    other = worker.measure_engine(engine_task("vivit-fe-tiny", precision="bf16"))
    assert 0 < np.abs(np.subtract(other["logits"], found["logits"])).max() < 0.05


def test_rows_add_up() -> None:
    spec = load_registry()["vivit-fe-tiny"]
    answer = worker.measure_engine(engine_task(spec.name))
    row, second = models._rows(spec, answer, 0.0, 100.0)
    assert row["weights"] == "random"
    assert row["views_per_second"] == pytest.approx(1 / row["seconds"]["median"])
    assert second["views_per_second"] == pytest.approx(2 / second["seconds"]["median"])
    assert row["clips_per_second"] == pytest.approx(1 / answer["clip"]["timing"]["median"])
    assert row["videos_per_hour"] == pytest.approx(3600 * row["clips_per_second"])
    assert spec.ours is not None
    assert (row["params"], float(f"{row['gmacs']:.4g}")) == (spec.ours.params, spec.ours.gmacs)
    assert row["gflops_per_second"] == pytest.approx(2 * row["gmacs"] * row["views_per_second"])
    assert row["share_of_peak"] == pytest.approx(row["gflops_per_second"] / 100)
    text = report.cells(row)
    assert len(text) == len(report.HEADINGS)
    assert "random weights: vivit-fe-tiny" in report.notes([row, second])


def test_a_task_that_fails_or_dies_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(code: str) -> dict[str, Any]:
        real = subprocess.run
        monkeypatch.setattr(
            worker.subprocess,
            "run",
            lambda command, **rest: real([command[0], "-c", code], **rest),  # type: ignore[call-overload]
        )
        found = worker.run({"do": "peak"}, timeout=20)
        monkeypatch.undo()
        return found

    assert (
        "ended with 3: what a pity"
        in run("import sys; print('what a pity', file=sys.stderr); sys.exit(3)")["failed"]
    )
    assert run("print('noise'); print('{\"gflops\": 1}')") == {"gflops": 1}
    row = models._base(load_registry()["vivit-fe-tiny"], "compile", "fp32") | {"failed": "no compiler"}
    assert report.cells(row)[:3] == ("vivit-fe-tiny", "compile", "fp32")
    assert report.notes([row]) == ["vivit-fe-tiny: compile fp32: no compiler"]


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["vivit-st-tiny", "timesformer-tiny", "videomae-tiny"])
def test_transformers_model_of_the_same_weights(tmp_path: Path, name: str) -> None:
    spec = load_registry()[name]
    worker.make_reference({"architecture": spec.architecture, "config": spec.config, "folder": str(tmp_path)})
    task = engine_task(name, weights=str(tmp_path), random_weights=False)
    ours = worker.measure_engine(task)
    limits = {"batch": [1], "spread": 1.0, "seconds": 0.0, "device": "cpu", "input": ours["input"]}
    theirs = worker.measure_transformers({"folder": str(tmp_path), **limits})
    assert np.abs(np.subtract(ours["logits"], theirs["logits"])).max() < 1e-4
    assert np.ptp(ours["logits"]) > 1e-3


def test_decoders_are_compared(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 40, size=(48, 64))
    rows = decode.decode(str(clip), load_registry()["vivit-fe-tiny"].input, spread=1.0, seconds=0.0)
    good = [row for row in rows if row["seconds"]]
    assert {"vidcls, pyav", "pyav, sequential"} <= {row["decoder"] for row in good}
    assert all(len(decode.cells(row)) == len(decode.HEADINGS) for row in rows)
    assert {row["of"] for row in rows} == {40}


def test_files_are_written_whole(tmp_path: Path) -> None:
    report.write_json(tmp_path / "bench.json", {"rows": []})
    assert json.loads((tmp_path / "bench.json").read_text()) == {"rows": []}
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]
    with pytest.raises(OutputError):
        report.write_json(tmp_path / "missing" / "bench.json", {})


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize("published", [{}, {"top1": 79.9, "views": "4x3"}])
def test_plot(tmp_path: Path, published: dict[str, Any]) -> None:
    row = {
        "model": "m",
        "engine": "eager",
        "precision": "fp32",
        "batch": 1,
        "views": 4,
        "crops": 1,
        "failed": None,
    }
    row |= {"views_per_second": 2.0, "published": published}
    report.plot(tmp_path / "bench.png", [row, {**row, "failed": "so"}])
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert report.published_speed(row) == 3600 * 2 / (12 if published else 4)
    with pytest.raises((OutputError, DependencyError)):
        report.plot(tmp_path / "bench.nothing", [row])


def test_what_cannot_be_compared_is_refused() -> None:
    plan = models.Plan(models=("vivit-fe-tiny",), engines=("eager",), precisions=("fp32",), compare=True)
    with pytest.raises(UsageError, match="compare"):
        list(models.measure(plan, load_registry(), lambda text: None))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch-size", "0"],
        ["--batch-size", "two"],
        ["--compare", "keras"],
        ["fly", "clip.mp4"],
        ["decode"],
        ["predict", "a.mp4", "b.mp4"],
        ["--engine", "auto"],
        ["--model", "no-such-model"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from vidcls.cli.app import app

    done = CliRunner().invoke(app, ["bench", *arguments])
    assert done.exit_code == 2
    assert done.stdout == ""


def test_the_command_without_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vidcls", "bench", "--model", "vit-tiny-frames", "--engine", "eager"]
    command += ["--precision", "fp32", "--seconds", "0", "--json", "-o", str(tmp_path / "bench.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["rows"] == json.loads((tmp_path / "bench.json").read_text())["rows"]
    (row,) = record["rows"]
    assert row["weights"] == "random"
    assert row["error"] == 0.0
    assert row["seconds"]["repetitions"] == 3
    assert row["peak_memory"] is None or row["peak_memory"] > 1 << 20
    assert "random weights" in done.stderr


def test_slow_calls_are_repeated_less_unless_told_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0.0, 1000.0, 1.5))
    monkeypatch.setattr("vidcls.bench.timing.time.perf_counter", lambda: float(next(clock)))
    assert measure(lambda: None, seconds=0.0).repetitions == 2
    assert measure(lambda: None, seconds=0.0, least=5).repetitions == 5


@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_random_weights_are_converted_once_for_all_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def run(task: dict[str, Any], **_: Any) -> dict[str, Any]:
        done.append(task["do"])
        return {} if task["do"] == "peak" else worker.TASKS[task["do"]]({**task})

    monkeypatch.setattr(worker, "run", run)
    monkeypatch.setattr(
        "vidcls.engines.openvino.settings", lambda core, precision: {}
    )  # whatever the CPU can do
    plan = models.Plan(("vit-tiny-frames",), ("openvino",), ("fp32", "bf16"), seconds=0.0, device="cpu")
    rows = list(models.measure(plan, load_registry(), lambda text, step=True: None))
    assert done.count("convert") == 1
    assert [row["precision"] for row in rows] == ["fp32", "bf16"]
    assert all(row["weights"] == "random" and row["error"] < 0.1 for row in rows)
