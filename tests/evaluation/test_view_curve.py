"""How early `--views auto` may stop: the curve on synthetic outputs, and the whole command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.cli.in_process import run_cli
from tests.clips import make_clip
from tests.score import faults
from tests.score.faults import CLASSES
from vidcls.errors import InputError
from vidcls.evaluation.metrics import Scored, make_report
from vidcls.evaluation.report import summary_lines
from vidcls.evaluation.view_curve import Curve, at_least, clips_needed, fit_curve
from vidcls.inference.auto_views import StopRule, next_stop, view_order


def outputs_of(seed: int, clips: int, views: int, noise: float, classes: int = 4) -> NDArray[np.float64]:
    """(n, v, k): a clip's own logits, and what each view adds to them."""
    generator = np.random.default_rng(seed)
    own = generator.normal(0, 2, (clips, 1, classes))
    return own + generator.normal(0, noise, (clips, views, classes))


def replay(outputs: NDArray[np.float64], rule: StopRule, num_crops: int = 1) -> tuple[list[int], list[int]]:
    """What the rule gives on clips, view by view: the views used and the answers."""
    used, answers = [], []
    for clip in outputs:
        ordered = clip[view_order(len(clip) // num_crops, num_crops)]
        n = 1
        while not rule.settled(ordered[:n], len(clip)):
            n = next_stop(n, len(clip))
        used.append(n)
        answers.append(int(ordered[:n].mean(0).argmax()))
    return used, answers


def curve_of(outputs: NDArray[np.float64], keep: float = 0.99, **more: Any) -> Curve:
    options = {"num_crops": 1, "probabilities": False, "keep": keep, **more}
    return fit_curve(list(outputs.astype(np.float32)), options.pop("num_crops"), **options)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([(2, 1), (5, 1), (4, 3)]), st.floats(0, 4))
def test_each_point_is_what_the_rule_does(
    seed: int, clips: int, shape: tuple[int, int], noise: float
) -> None:
    views, crops = shape
    outputs = outputs_of(seed, clips, views * crops, noise).astype(np.float32).astype(np.float64)
    labels = np.random.default_rng(seed).integers(0, 4, clips)
    curve = curve_of(outputs, num_crops=crops, labels=labels.tolist())
    final = outputs[:, view_order(views, crops)].mean(1).argmax(1)
    for point in (*curve.points[::5], curve.chosen):
        rule = StopRule(point.threshold, curve.rule.spread, curve.rule.bound)
        used, answers = replay(outputs, rule, crops)
        assert point.mean_views == pytest.approx(np.mean(used))
        assert point.kept == pytest.approx(np.mean(answers == final))
        assert point.accuracy == pytest.approx(np.mean(answers == labels))
    assert curve.accuracy == pytest.approx(np.mean(final == labels))
    assert curve.rule.threshold == curve.chosen.threshold
    assert curve.chosen.kept >= 0.99
    thresholds = [point.threshold for point in curve.points]
    assert thresholds == sorted(thresholds)
    assert all(a.mean_views <= b.mean_views for a, b in zip(curve.points, curve.points[1:], strict=False))


def test_what_is_kept_of_these_clips_is_kept_of_others() -> None:
    """The choice is sure with many clips, spares half of the views, and holds on clips that were not seen."""
    curve = curve_of(outputs_of(1, 1500, 8, 0.5))
    assert curve.sure
    assert curve.chosen.kept_at_least >= 0.99
    assert curve.chosen.mean_views < 4
    others = outputs_of(2, 3000, 8, 0.5)
    _, answers = replay(others, curve.rule)
    assert np.mean(answers == others.mean(1).argmax(1)) >= 0.985


def test_the_lowest_threshold_above_which_all_keep_enough() -> None:
    curve = curve_of(outputs_of(3, 800, 6, 2.0), keep=0.97)
    above = [point for point in curve.points if point.threshold >= curve.chosen.threshold]
    assert all(point.kept_at_least >= 0.97 for point in above)
    below = [point for point in curve.points if point.threshold < curve.chosen.threshold]
    assert below[-1].kept_at_least < 0.97


def test_few_clips_are_never_sure_and_chosen_with_care() -> None:
    curve = curve_of(outputs_of(4, 20, 4, 0.01))
    assert not curve.sure
    assert curve.chosen.kept == 1
    assert curve.chosen.threshold >= NormalDist().inv_cdf(0.99)
    assert clips_needed(0.99) == 299


@pytest.mark.parametrize(
    ("kept", "clips"), [(299, 299), (298, 300), (50, 100), (1, 1), (0, 7), (9_950, 10_000)]
)
def test_the_confidence_bound(kept: int, clips: int) -> None:
    """So many are kept by chance in one case of twenty, if the true share is the bound."""
    share = at_least(kept, clips)
    if kept == 0:
        assert share == pytest.approx(0, abs=1e-12)
        return
    log = math.lgamma(clips + 1)
    tail = sum(
        math.exp(
            log
            - math.lgamma(i + 1)
            - math.lgamma(clips - i + 1)
            + i * math.log(share)
            + (clips - i) * math.log1p(-share)
        )
        for i in range(kept, clips + 1)
    )
    assert tail == pytest.approx(0.05, rel=1e-6)


def test_probabilities_are_bounded_by_one() -> None:
    assert curve_of(np.full((3, 4, 2), 0.5), probabilities=True).rule.bound == 1.0


def test_outputs_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="none of them could be scored"):
        fit_curve([], 1, probabilities=False, keep=0.99)
    with pytest.raises(InputError, match="not numbers"):
        curve_of(np.full((2, 2, 2), np.nan))


def test_the_report_says_what_it_cost() -> None:
    results = [Scored("a", 0, (0,), (0.9,), 0.9, views=1), Scored("b", 1, (1,), (0.9,), 0.9, views=4)]
    report = make_report([*results, Scored("c", 1, error="c: is no video")], ["x", "y"])
    assert report.mean_views == 2.5
    assert ("views per clip", "2.50") in summary_lines(report)
    assert "mean_views" not in make_report([Scored("a", 0, (0,), (0.9,), 0.9)], ["x", "y"]).summary()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("calibrate")
    faults.make_checkpoint(place / "model.safetensors")
    (place / "clips").mkdir()
    for i in range(6):
        make_clip(place / "clips" / f"{i}.mp4", 20 + 25 * i, size=(48, 64), gop=8)
    lines = [f"{i}.mp4,label {i % CLASSES}" for i in range(6)]
    (place / "clips" / "labels.csv").write_text("\n".join(["path,label", *lines, ""]))
    return place


def test_calibrate_and_use(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "cache"))
    clips = str(folder / "clips")
    how = ("--weights", str(folder / "model.safetensors"), "--engine", "eager", "--crops", "3")
    refused = run_cli("predict", f"{clips}/5.mp4", *how, "--views", "auto:4")
    assert refused.returncode == 2
    assert "vidcls calibrate CLIPS" in refused.stderr
    found = run_cli("calibrate", "--data", clips, *how, "--views", "4", "--keep", "0.6")
    assert found.returncode == 0, found.stderr
    assert "accuracy" in found.stdout.splitlines()[0]
    assert sum(line.lstrip().startswith("* ") for line in found.stdout.splitlines()) == 1
    assert "6 clips: " in found.stderr
    rows = run_cli("predict", clips, *how, "--views", "auto:4", "-f", "jsonl", "-v")
    assert rows.returncode == 0, rows.stderr
    used = [json.loads(line)["views_used"] for line in rows.stdout.splitlines()]
    assert f"{np.mean(used):.2f} of 12 views per clip were scored" in rows.stderr
    assert f"{used[0]} of 12 views were scored" in rows.stderr
    measured = run_cli("evaluate", "--data", clips, *how, "--views", "auto:4", "--json")
    report = json.loads(measured.stdout)
    assert report["mean_views"] == pytest.approx(np.mean(used))
    assert report["views_spared"] == pytest.approx(1 - np.mean(used) / 12)
    assert 0 <= report["frames_spared"] < 1
    again = run_cli("calibrate", clips, *how, "--views", "4", "--keep", "0.6")
    assert again.returncode == 2
    assert "exists; add --overwrite" in again.stderr
    (kept,) = (tmp_path / "cache" / "views").iterdir()
    kept.write_bytes(b"\xff" * 50000)
    damaged = run_cli("predict", f"{clips}/5.mp4", *how, "--views", "auto:4")
    assert damaged.returncode == 3
    assert "invalid JSON" in damaged.stderr
    assert "delete it, or run `vidcls calibrate --overwrite` again" in damaged.stderr
    assert len(damaged.stderr) < 1000


def test_a_bad_clip_stops_no_calibration(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    how = ("--weights", str(folder / "model.safetensors"), "--engine", "eager", "--views", "3")
    output = tmp_path / "found.json"
    arguments = ("calibrate", str(folder / "clips"), str(tmp_path / "bad.mp4"), *how, "-o", str(output))
    found = run_cli(*arguments, "--json")
    assert found.returncode == 1
    assert "bad.mp4" in found.stderr
    assert "too few clips to be sure of 0.99" in found.stderr
    said = json.loads(found.stdout)
    assert said["clips"] == 6
    assert not said["sure"]
    assert {**json.loads(output.read_text()), "file": str(output)}.items() <= said.items()
    again = run_cli(*arguments)
    assert again.returncode == 2
    assert "add --overwrite" in again.stderr
    use = (*how[:-1], "auto:3", "--calibration", str(output), "-o", str(tmp_path / "rows.tsv"))
    scored = run_cli("score", str(folder / "clips"), *use)
    assert scored.returncode == 0, scored.stderr
    assert "views per clip were scored" in scored.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("calibrate",), "give either clips or --data"),
        (("calibrate", "x.mp4", "--data", "y.csv"), "give either clips or --data"),
        (("calibrate", "x.mp4", "--views", "1"), "has no choice"),
        (("calibrate", "x.mp4", "--multi-label"), "was given options that only --data takes"),
        (("calibrate", "--data", "y.csv", "--root", "z"), "was given options that only SOURCE takes"),
        (("predict", "x.mp4", "--views", "auto", "--stride", "1"), "made for stride 2 instead of 1"),
        (("predict", "x.mp4", "--views", "often"), "--views: 'often' is not a number of views"),
        (("predict", "x.mp4", "--views", "0"), "--views: '0' is not a number of views"),
        (("predict", "x.mp4", "--views", "auto", "--calibration", "none.json"), "cannot be read"),
        (("predict", "x.mp4", "--views", "auto", "--features", "f"), "--views auto: does not go with"),
        (("predict", "x.mp4", "--views", "auto", "--frames", "all"), "--views auto: does not go with"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli(*arguments)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
