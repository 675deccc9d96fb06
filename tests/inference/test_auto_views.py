"""Views one after another: their order, when they are enough, and that all of them give the fixed protocol's answer."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.clips import make_clip
from tests.score import faults
from tests.score.test_run import rows_of
from vidcls.errors import ConfigError, UsageError
from vidcls.inference.auto_views import PRIOR, StopRule, first_frames, next_stop, parse_views, view_order
from vidcls.inference.classifier import Classifier
from vidcls.inference.load import load
from vidcls.inference.view_calibration import (
    Calibration,
    protocol_of,
    read_calibration,
    settings_of,
    usual_place,
    write_calibration,
)
from vidcls.score import Job, score
from vidcls.score.listing import Inputs
from vidcls.score.setup import Setup
from vidcls.views.sampling import ClipPlan

LENGTHS = (20, 41, 150, 220)  # frames; of the long clips the first view's frames are read alone


@given(st.integers(1, 40), st.sampled_from([1, 3]))
def test_the_order_covers_the_clip_soonest(num_views: int, num_crops: int) -> None:
    order = view_order(num_views, num_crops)
    assert sorted(order) == list(range(num_views * num_crops))
    crops, times = order // num_views, order % num_views
    assert (
        crops[:num_views] == (1 if num_crops == 3 else 0)
    ).all()  # the center crop of each view comes first
    assert abs(2 * int(times[0]) - (num_views - 1)) <= 1  # the middle
    for n in range(1, num_views):
        distances = [min(abs(t - s) for s in times[:n]) for t in range(num_views)]
        assert distances[times[n]] == max(distances)
    if num_crops == 3:  # then both sides of each view
        assert times[num_views:].tolist() == np.repeat(times[:num_views], 2).tolist()


def test_an_order() -> None:
    assert view_order(4, 1).tolist() == [1, 3, 0, 2]
    assert view_order(1, 3).tolist() == [1, 0, 2]
    assert [next_stop(n, 12) for n in (0, 1, 2, 3, 4, 6, 9)] == [1, 2, 3, 4, 6, 9, 12]


def test_numbers_of_views() -> None:
    assert parse_views(None) == (None, False)
    assert parse_views(4) == (4, False)
    assert parse_views("auto") == (None, True)
    assert parse_views("auto:8") == (8, True)
    for wrong in ("", "Auto", "auto:", "auto:0", "auto:1025", "auto:-1", "auto:²", "auto:8:1", "8"):
        with pytest.raises(UsageError, match="not a number of views"):
            parse_views(wrong)


def test_the_error_of_a_part_of_the_views_is_that_of_a_finite_population() -> None:
    """Over all choices of n of N views, the mean of n is off by S² (1/n - 1/N) in the mean of squares."""
    gaps = np.array([0.3, 2.0, -1.0, 4.5, 0.0, 1.1])
    for n in range(1, 6):
        off = [np.mean(part) - gaps.mean() for part in itertools.combinations(gaps, n)]
        assert np.mean(np.square(off)) == pytest.approx(gaps.var(ddof=1) * (1 / n - 1 / 6))


values_of_views = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), min_size=n, max_size=n)
)


@given(values_of_views, st.integers(1, 8), st.floats(0.1, 3), st.floats(0.5, 20))
def test_the_rule_says_what_it_says(views: list[list[float]], more: int, spread: float, bound: float) -> None:
    """The same in plain Python, rival by rival."""
    total, n = len(views) + more, len(views)
    means = [sum(column) / n for column in zip(*views, strict=True)]
    best = max(range(3), key=lambda k: means[k])
    ratios, safe = [], True
    for rival in {0, 1, 2} - {best}:
        gaps = [view[best] - view[rival] for view in views]
        mean = sum(gaps) / n
        variance = (PRIOR * spread**2 + sum((g - mean) ** 2 for g in gaps)) / (PRIOR + n - 1)
        ratios.append(mean / math.sqrt(variance * (1 / n - 1 / total)))
        safe &= n * mean > bound * more
    expected = math.inf if safe else min(ratios)
    values = np.array(views, np.float64)
    if int(values.mean(0).argmax()) == best:  # ties may be seen either way
        assert StopRule(1.0, spread, bound).evidence(values, total) == pytest.approx(
            expected, rel=1e-6, abs=1e-6
        )
    assert not StopRule(math.inf, spread, bound).settled(values, total)
    assert StopRule(math.inf, spread, bound).settled(values, n)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_what_cannot_turn_is_never_turned(seen: int, more: int, seed: int) -> None:
    """With probabilities the bound is exact: whatever the rest of the views say, the answer stays."""
    generator = np.random.default_rng(seed)
    values = generator.dirichlet(np.full(3, 0.2), seen)
    rule = StopRule(1e9, 1.0, 1.0)
    if rule.evidence(values, seen + more) == math.inf:
        best = values.mean(0).argmax()
        for rival in range(3):
            worst = np.vstack([values, np.tile(np.eye(3)[rival], (more, 1))])
            assert worst.mean(0).argmax() == best


def test_views_that_are_no_numbers_never_settle() -> None:
    broken = np.full((2, 3), np.nan)
    assert not StopRule(0.1, 1.0).settled(broken, 4)
    assert StopRule(0.1, 0.0).evidence(np.zeros((2, 3)), 4) == 0.0


def test_the_first_frames_are_few_only_where_they_lie_together() -> None:
    clips = np.arange(8) + np.array([0, 30, 60])[:, None]
    plan = ClipPlan(clips, False, ())
    assert first_frames(plan).tolist() == clips[1].tolist()
    spread = ClipPlan(np.arange(0, 80, 10) + np.array([0, 3, 6])[:, None], False, ())
    assert first_frames(spread).tolist() == spread.unique.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("auto")
    for architecture in ("vivit-fe", "vivit-st"):
        faults.make_checkpoint(place / f"{architecture}.safetensors", architecture)
    (place / "clips").mkdir()
    for number, length in enumerate(LENGTHS):
        make_clip(place / "clips" / f"{number}.mp4", length, size=(48, 64), gop=8)
    return place


def clips_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in (folder / "clips").iterdir())


def keywords(folder: Path, architecture: str = "vivit-fe", **more: Any) -> dict[str, Any]:
    return {
        "weights": str(folder / f"{architecture}.safetensors"),
        "engine": "eager",
        "device": "cpu",
        **more,
    }


@contextlib.contextmanager
def auto(
    folder: Path, threshold: float = 1e6, architecture: str = "vivit-fe", **more: Any
) -> Iterator[Classifier]:
    """A classifier that stops at a threshold; at 1e6 practically never, though the bound is unknown."""
    with load(**keywords(folder, architecture, **{"num_views": 4, **more})) as fixed:
        found = calibration_of(fixed, threshold)
    with load(
        **keywords(folder, architecture, **{"num_views": "auto:4", **more}), calibration=found
    ) as classifier:
        yield classifier


def calibration_of(classifier: Classifier, threshold: float) -> Calibration:
    return Calibration(
        model=classifier.spec.name,
        protocol=protocol_of(settings_of(classifier)),
        threshold=threshold,
        spread=1.0,
        bound=None,
        clips=300,
        keep=0.99,
        kept=1.0,
        kept_at_least=0.99,
        mean_views=2.0,
    )


@pytest.mark.parametrize("architecture", ["vivit-fe", "vivit-st"])
@pytest.mark.parametrize("more", [{}, {"average": "probs", "num_crops": 3}])
def test_all_views_give_the_answer_of_the_fixed_protocol(
    folder: Path, architecture: str, more: dict[str, Any]
) -> None:
    clips = clips_of(folder)
    with load(**keywords(folder, architecture, num_views=4, **more)) as fixed:
        expected = list(fixed.predict_many(clips))
    total = 4 * more.get("num_crops", 1)
    with auto(folder, architecture=architecture, **more) as classifier:
        for found in (list(classifier.predict_many(clips)), list(map(classifier.predict, clips))):
            for one, other in zip(found, expected, strict=True):
                assert one.row["views_used"] == total
                assert np.abs(one.logits - other.logits).max() < 1e-5  # type: ignore[operator]
                assert np.abs(one.scores - other.scores).max() < 1e-5  # type: ignore[operator]
                assert one.units == other.units
                assert {k: v for k, v in one.row.items() if k not in ("views_used", "predictions")} == {
                    k: v for k, v in other.row.items() if k != "predictions"
                }


class Exact:
    """An engine whose answer to a view does not depend on what else is in the batch, to the bit."""

    name, device, precision = "exact", "cpu", "fp32"

    def __init__(self, unit_frames: int) -> None:
        self.unit_frames = unit_frames
        self.views = 0

    def prepare(self, *_: Any) -> None: ...

    def __call__(self, views: NDArray[Any], indices: Any = None, scale_shift: Any = None) -> Any:
        self.views += len(views)
        return np.stack([self._one(view.reshape(len(view), -1).astype(np.int64).sum(1)) for view in views])

    def encode(self, units: NDArray[Any], scale_shift: Any = None) -> Any:
        return units.reshape(len(units), -1).astype(np.int64).sum(1)[:, None].astype(np.float64)

    def classify(self, features: NDArray[Any], indices: Any = None) -> Any:
        self.views += len(features)
        return np.stack([self._one(view[:, 0]) for view in features])

    def _one(self, sums: NDArray[Any]) -> Any:
        return np.sin(np.arange(1, 6) * (sums * np.arange(1, len(sums) + 1)).sum() / 1e4).astype(np.float32)


class Deleting(Exact):
    """Deletes a file as soon as a view of it is scored."""

    def __init__(self, path: Path) -> None:
        super().__init__(0)
        self._path = path

    def __call__(self, *arguments: Any) -> Any:
        self._path.unlink(missing_ok=True)
        return super().__call__(*arguments)


@pytest.mark.parametrize("unit_frames", [0, 1])
@pytest.mark.parametrize("crops", [1, 3])
def test_to_the_bit(folder: Path, unit_frames: int, crops: int) -> None:
    with load(**keywords(folder, num_views=4, num_crops=crops)) as fixed:
        fixed.engine = Exact(unit_frames)
        expected = [fixed.predict(clip).logits for clip in clips_of(folder)]
        fixed.stop_rule = StopRule(math.inf, 1.0, 0.0)
        found = [one.logits for one in fixed.predict_many(clips_of(folder))]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))  # type: ignore[arg-type]


def test_work_is_spared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear clip costs one view, and the frames of that view."""
    long = clips_of(folder)[-1]
    with auto(folder, 1e-3) as classifier:
        classifier.engine = Exact(0)
        asked: list[int] = []
        read = classifier._reader.read
        monkeypatch.setattr(
            classifier._reader, "read", lambda frames, *rest: asked.append(len(frames)) or read(frames, *rest)
        )
        found = classifier.predict(long)
        assert found.row["views_used"] == classifier.engine.views == 1
        assert asked == [classifier.spec.input.num_frames]
        assert found.row["views"] == 4


def test_a_clip_that_changes_between_two_reads_is_its_own_failure(folder: Path, tmp_path: Path) -> None:
    long, short = tmp_path / "long.mp4", clips_of(folder)[0]
    make_clip(long, 220, size=(48, 64), gop=8)
    with auto(folder) as classifier:
        classifier.engine = Deleting(long)
        found = list(classifier.predict_many([short, str(long), short]))
        assert [one.error is None for one in found] == [True, False, True]
        assert "long.mp4" in str(found[1].row["error"])


@pytest.mark.parametrize(
    ("architecture", "threshold"), [("vivit-fe", 1e6), ("vivit-fe", 0.7), ("vivit-st", 0.7)]
)
def test_score_is_as_predict(folder: Path, tmp_path: Path, architecture: str, threshold: float) -> None:
    """In batches of views of many clips, frames read in two goes, and rows as of `predict`."""
    clips = clips_of(folder)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with auto(folder, threshold, architecture) as classifier:
        expected = {clip: classifier.predict(clip) for clip in clips}
        found = calibration_of(classifier, threshold)
    setup = Setup(
        keywords(folder, architecture, num_views="auto:4", calibration=found), all_scores=True, workers=2
    )
    output = tmp_path / "rows.jsonl"
    job = Job(Inputs((*clips, str(bad))), str(output), setup)
    summary = score(job, {"quiet": True})
    rows = {row["path"]: row for row in rows_of(output)}
    assert rows.pop(str(bad))["views_used"] is None
    for clip, row in rows.items():
        assert row["views_used"] == expected[clip].row["views_used"]
        assert np.allclose(row["scores"], expected[clip].scores, atol=1e-5)  # type: ignore[arg-type]
    used = [row["views_used"] for row in rows.values()]
    assert summary.stats["views"] == sum(used)
    assert summary.stats["clips"] == len(clips)
    if threshold == 1e6:
        assert used == [4] * len(clips)
        assert summary.stats["frames_spared"] == 0
    else:
        assert min(used) < 4
    other = Setup(
        keywords(
            folder,
            architecture,
            num_views="auto:4",
            calibration=found.model_copy(update={"threshold": threshold / 2}),
        ),
        all_scores=True,
        workers=2,
    )
    with pytest.raises(UsageError, match="auto_views"):
        score(Job(job.inputs, str(output), other), {"quiet": True})
    assert score(job, {"quiet": True}).counts.skipped == len(clips) + 1


def test_frames_are_spared(folder: Path, tmp_path: Path) -> None:
    with auto(folder, 1e-3) as classifier:
        found = calibration_of(classifier, 1e-3)
    setup = Setup(keywords(folder, num_views="auto:4", calibration=found))
    stats = score(
        Job(Inputs(tuple(clips_of(folder))), str(tmp_path / "rows.csv"), setup), {"quiet": True}
    ).stats
    assert stats["views"] == len(LENGTHS)
    assert stats["frames_spared"] > stats["frames"] / 2
    assert "views_used" in (tmp_path / "rows.csv").read_text().splitlines()[0]


def test_where_a_calibration_is_looked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"not calibrated .* 3 views x 1 crop; run `vidcls calibrate"):
        load(**keywords(folder, num_views="auto:3"))
    with load(**keywords(folder, num_views=3)) as fixed:
        assert fixed.stop_rule is None
        found = calibration_of(fixed, 2.0)
    write_calibration(found, usual_place(found.model, found.protocol))
    with load(**keywords(folder, num_views="auto:3")) as classifier:
        assert classifier.stop_rule == StopRule(2.0, 1.0)
    write_calibration(found, tmp_path / "here.json")
    assert read_calibration(tmp_path / "here.json") == found
    with pytest.raises(UsageError, match="num_views 3 instead of 4"):
        load(**keywords(folder, num_views="auto:4"), calibration=tmp_path / "here.json")
    with pytest.raises(UsageError, match="weights_sha256"):
        load(**keywords(folder, "vivit-st", num_views="auto:3"), calibration=tmp_path / "here.json")
    with pytest.raises(UsageError, match="is for num_views"):
        load(**keywords(folder, num_views=3), calibration=tmp_path / "here.json")


def test_the_bundled_model_brings_its_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new bundled model needs a new one: `vidcls calibrate --keep 0.995 -o vidcls/zoo/bundled/…`."""
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path))
    with load(num_views="auto") as classifier:
        found = classifier.predict(Path(__file__).parents[2] / "examples" / "pan-left.mp4")
    assert found.label == "pan left"
    assert found.row["views_used"] < 4


def test_where_stopping_makes_no_sense(folder: Path) -> None:
    with pytest.raises(UsageError, match="has no choice"):
        load(**keywords(folder, num_views="auto:1"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": "1e999"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"spread": -1.0}, "spread"),
        ({"kept": 1.5}, "kept"),
        ({"version": 2}, "version"),
        ({"more": 1}, "unknown key"),
        ({"model": "x" * 2000}, "model"),
        ({"protocol": [1]}, "protocol"),
    ],
)
def test_a_strangers_file(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    plain = Calibration(
        model="m",
        protocol={},
        threshold=1.0,
        spread=1.0,
        bound=None,
        clips=1,
        keep=0.9,
        kept=1.0,
        kept_at_least=0.5,
        mean_views=1.0,
    ).model_dump()
    path = tmp_path / "x.json"
    path.write_text(json.dumps(plain | change).replace('"1e999"', "1e999"))
    with pytest.raises(ConfigError, match=said):
        read_calibration(path)
    path.write_text("[" * 60_000)
    with pytest.raises(ConfigError):
        read_calibration(path)
    path.write_bytes(b" " * 70_000)
    with pytest.raises(ConfigError, match="larger than"):
        read_calibration(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_calibration(tmp_path / "none.json")
