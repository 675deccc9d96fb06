"""The linear classifier against scikit-learn's own, its cross-validation, and its figures."""

from __future__ import annotations

import numpy as np
import pytest

from vidcls.evaluation.multi_label import mean_average_precision
from vidcls.training.probe import figures
from vidcls.training.probe.fit import (
    STRENGTHS,
    Embedded,
    choose_strength,
    cross_validated,
    fit,
    fit_best,
    folds,
    learning_curve,
    measurable,
    sources,
)

sklearn = pytest.importorskip("sklearn")


def blobs(n: int, k: int, v: int = 1, noise: float = 1.0, seed: int = 0, w: int = 0) -> Embedded:
    """Clips around one center per class, each a source of its own."""
    rng = np.random.default_rng(seed)
    ids = np.arange(n) % k
    centers = np.random.default_rng(99).normal(0, 1, (k, 12)) * np.logspace(0, 2, 12) + 5
    rows = centers[ids][:, None] + rng.normal(0, noise, (n, v + w, 12)) * np.logspace(0, 2, 12)
    rows = rows.astype(np.float32)
    return Embedded(rows[:, :v], rows[:, v:], ids, np.arange(n))


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("balanced", [False, True])
def test_equals_scikit_learn(k: int, balanced: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    clips = blobs(80, k).take(np.arange(70))
    if balanced:
        clips = clips.take(np.flatnonzero((clips.ids > 0) | (np.arange(70) < 20)))
    x = clips.rows[:, 0]
    theirs = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced" if balanced else None),
    ).fit(x.astype(np.float64), clips.ids)
    ours = fit(clips, k, 0.1, balanced)
    assert ours.weight.shape == (k, 12)
    new = blobs(40, k, seed=1)
    assert np.abs(softmax(ours.logits(new.rows)) - theirs.predict_proba(new.rows[:, 0])).max() < 1e-6


def test_views_are_rows_of_one_clips_weight() -> None:
    """A clip whose views are alike counts as one clip, and what is learned from besides counts as views do."""
    clips = blobs(60, 3)
    many = Embedded(np.repeat(clips.rows, 4, axis=1), clips.extra, clips.ids, clips.groups)
    besides = Embedded(clips.rows, np.repeat(clips.rows, 2, axis=1), clips.ids, clips.groups)
    one = fit(clips, 3, 0.1)
    for other in (fit(many, 3, 0.1), fit(besides, 3, 0.1)):
        np.testing.assert_allclose(other.weight, one.weight, rtol=1e-3, atol=1e-5)
    views = np.random.default_rng(0).normal(size=(5, 3, 12)).astype(np.float32)
    mean = np.mean([one.logits(views[:, i : i + 1]) for i in range(3)], axis=0)
    np.testing.assert_allclose(one.logits(views), mean, atol=1e-9)


def test_a_class_that_was_not_seen_is_not_predicted() -> None:
    clips = blobs(30, 3)
    probe = fit(clips, 5, 0.1)
    logits = probe.logits(clips.rows)
    assert np.isfinite(logits).all()
    assert logits.argmax(axis=1).max() == 2


def several(n: int, seed: int = 0) -> Embedded:
    """Clips of three classes that each shows or not, and of a fourth that none shows and a fifth that all show."""
    rng = np.random.default_rng(seed)
    shown = rng.random((n, 3)) < [0.5, 0.3, 0.1]
    directions = np.random.default_rng(99).normal(size=(3, 8))
    rows = (shown @ directions + rng.normal(0, 0.5, (n, 8))) * np.logspace(0, 2, 8) + 3
    ids = np.column_stack([shown, np.zeros(n, bool), np.ones(n, bool)])
    rows = rows[:, None].astype(np.float32)
    return Embedded(rows, rows[:, :0], ids, np.arange(n) // 2)


@pytest.mark.parametrize("balanced", [False, True])
def test_several_labels_equal_one_regression_a_class(balanced: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    clips, new = several(90), several(40, seed=1)
    one = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced" if balanced else None)
    theirs = make_pipeline(StandardScaler(), OneVsRestClassifier(one))
    theirs.fit(clips.rows[:, 0].astype(np.float64), clips.ids[:, :3])
    logits = fit(clips, 5, 0.1, balanced).logits(new.rows)
    wanted = theirs.decision_function(new.rows[:, 0].astype(np.float64))
    np.testing.assert_allclose(logits[:, :3], wanted, atol=1e-5)
    assert (logits[:, 3] < -10).all()
    assert (logits[:, 4] > 10).all()


def test_several_labels_are_cross_validated_by_source() -> None:
    clips = several(120)
    for train, test in folds(clips, seed=0):
        assert not set(clips.groups[train]) & set(clips.groups[test])
    found = cross_validated(clips, 5, seed=0)
    assert found is not None
    measured = figures.measure_several("a test", found[0], clips.ids, clips.groups, "abcde")
    assert measured.map > measured.chance + 0.2
    points = list(learning_curve(clips, 5, 0.1, seed=0))
    assert points[-1][1] == pytest.approx(mean_average_precision(found[0], clips.ids), abs=0.1)
    assert len(points) == 3


def test_the_strength_of_several_labels_makes_scores_of_use() -> None:
    """Where every strength orders the clips right, one is chosen that also tells how likely each class is."""
    rng = np.random.default_rng(0)
    shown = np.tile([[1, 0], [0, 1], [1, 1], [0, 0]], (6, 1)).astype(bool)
    rows = np.column_stack([shown * 4.0, rng.normal(size=(24, 3))])[:, None].astype(np.float32)
    clips = Embedded(rows, rows[:, :0], shown, np.arange(24))
    found = cross_validated(clips, 2, seed=0)
    assert found is not None
    measured = figures.measure_several("a test", found[0], shown, clips.groups, "ab")
    assert (measured.map, measured.macro_f1) == (1.0, 1.0)


def test_figures_of_several_labels() -> None:
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(0)
    shown = rng.random((200, 4)) < 0.3
    logits = rng.normal(size=(200, 4)) + 1.5 * shown - 1
    alone = figures.measure_several("a test", logits, shown, np.arange(200), "abcd")
    assert alone.map == pytest.approx(average_precision_score(shown, logits, average="macro"))
    assert alone.macro_f1 == pytest.approx(f1_score(shown, logits > 0, average="macro"))
    assert alone.chance == pytest.approx(shown.mean())
    together = figures.measure_several("a test", logits, shown, np.repeat(np.arange(10), 20), "abcd")
    for found in (alone, together):
        assert found.interval[0] < found.map < found.interval[1]
    # The interval of resampled clips, by the slow way.
    draws = rng.integers(200, size=(300, 200))
    means = [mean_average_precision(logits[one], shown[one]) for one in draws]
    low, high = np.quantile(means, [0.025, 0.975])
    least, most = figures.wilson(alone.map * 200, 200)
    assert alone.interval == pytest.approx((min(low, least), max(high, most)), abs=0.015)
    assert together.interval[1] - together.interval[0] > 1.2 * (alone.interval[1] - alone.interval[0])
    text = "\n".join(figures.lines(alone, "abcd"))
    assert f"mean average precision {alone.map:.1%}" in text
    assert "lowest average precision (clips): " in text


def test_the_strength_goes_with_the_noise() -> None:
    found = [choose_strength(blobs(90, 3, noise=noise), 3, seed=0) for noise in (0.1, 3, 20)]
    assert found[0] > found[1] > found[2]
    assert set(found) <= set(STRENGTHS)


def test_sources_are_on_one_side_of_every_fold() -> None:
    """Labels that only the source tells: whoever splits a source's clips finds them, and must not."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    ids = rng.permutation(np.arange(40) % 2)[groups]
    rows = (rng.normal(size=(40, 1, 60))[groups] + rng.normal(0, 0.01, (200, 1, 60))).astype(np.float32)
    extra = rows[:, :0]
    grouped = Embedded(rows, extra, ids, groups)
    for train, test in folds(grouped, seed=0):
        assert not set(groups[train]) & set(groups[test])
        assert {0, 1} == set(ids[test])
    found = cross_validated(grouped, 2, seed=0)
    leaking = cross_validated(Embedded(rows, extra, ids, np.arange(200)), 2, seed=0)
    assert found is not None
    assert leaking is not None
    assert (leaking[0].argmax(axis=1) == ids).mean() > 0.99
    assert 0.2 < (found[0].argmax(axis=1) == ids).mean() < 0.8


def test_cross_validation_is_unbiased_on_noise() -> None:
    """Where nothing can be learned the accuracy is chance: nothing of a fold's test part reaches its classifier."""
    right = []
    for seed in range(4):
        clips = blobs(60, 2, noise=1.0, seed=seed)
        rng = np.random.default_rng(seed)
        clips = Embedded(clips.rows, clips.extra, rng.permutation(clips.ids), clips.groups)
        found = cross_validated(clips, 2, seed)
        assert found is not None
        right.append((found[0].argmax(axis=1) == clips.ids).mean())
    assert 0.35 < np.mean(right) < 0.65


def test_a_class_of_one_source_is_learned_but_not_measured() -> None:
    """Its clips are on the training side of every fold, the other classes are measured."""
    clips = blobs(30, 3)
    lonely = clips.take(np.flatnonzero((clips.ids < 2) | (np.arange(30) < 3)))
    parts = folds(lonely, seed=0)
    assert len(parts) == 5
    for train, test in parts:
        assert set(lonely.ids[train]) == {0, 1, 2}
        assert set(lonely.ids[test]) == {0, 1}
    assert sorted(np.concatenate([test for _, test in parts])) == list(np.flatnonzero(measurable(lonely)))
    found = cross_validated(lonely, 3, seed=0)
    assert found is not None
    assert (found[0].argmax(axis=1) == lonely.ids)[measurable(lonely)].mean() > 0.8
    assert fit_best(lonely, 3, seed=0).logits(lonely.rows).shape == (len(lonely), 3)
    lines = figures.unmeasured(sources(lonely), lonely.ids, ["a", "b", "run fast"])
    assert lines == ["class 'run fast' has 1 clip: not measured"]


def test_a_source_of_a_lone_class_that_is_tested_is_not_trained_on() -> None:
    """Clips of one source show a class of many sources and one of its own."""
    clips = blobs(20, 2)
    ids = np.where(np.arange(20) == 3, 2, clips.ids)
    shared = Embedded(clips.rows, clips.extra, ids, np.where(np.arange(20) == 3, 0, clips.groups))
    for train, test in folds(shared, seed=0):
        assert not set(shared.groups[train]) & set(shared.groups[test])
        assert 2 not in ids[test]


def test_one_class_of_several_sources_is_not_enough_to_measure() -> None:
    clips = blobs(30, 3)
    lonely = clips.take(np.flatnonzero((clips.ids < 1) | (np.arange(30) < 3)))
    assert cross_validated(lonely, 3, seed=0) is None
    assert list(learning_curve(lonely, 3, 0.1, seed=0)) == []


def test_the_learning_curve_shows_each_number_of_clips_once() -> None:
    for n in (6, 8, 9, 12):
        sizes = [f"{size:.0f}" for size, _ in learning_curve(blobs(n, 3), 3, 0.1, seed=0, most=30)]
        assert len(set(sizes)) == len(sizes)


def test_the_learning_curve_grows() -> None:
    clips = blobs(240, 6, noise=2.0)
    points = list(learning_curve(clips, 6, 0.01, seed=0))
    sizes = [size for size, _ in points]
    assert sizes == pytest.approx([48, 96, 192], abs=6)
    assert points[0][1] < points[-1][1]


def test_the_learning_curve_of_sources_that_show_all_classes() -> None:
    """Three sources of four clips of two classes each: a half of two sources is one."""
    rng = np.random.default_rng(0)
    ids, groups = np.tile([0, 1], 12), np.repeat([0, 1, 2], 8)
    rows = rng.normal(size=(24, 1, 5)).astype(np.float32)
    clips = Embedded(rows, rows[:, :0], ids, groups)
    assert [size for size, _ in learning_curve(clips, 2, 0.01, seed=0)] == [8, 16]


def test_wilsons_interval() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20
    assert figures.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert figures.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert figures.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_clips_that_share_sources_make_the_interval_wider() -> None:
    right = np.repeat(np.arange(20) % 4 > 0, 10)
    alone = figures.interval(right, np.arange(200))
    together = figures.interval(right, np.repeat(np.arange(20), 10))
    assert alone == pytest.approx(figures.wilson(150, 200))
    assert together[0] < alone[0] - 0.05
    assert together[1] > alone[1] + 0.02


def test_figures_of_known_predictions() -> None:
    ids = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 2, 0])
    found = figures.measure(
        "a test", np.eye(3)[predicted], ids, np.arange(8), [(4, 0.5), (8, 0.75), (16, 0.875)]
    )
    assert found.accuracy == 0.75
    assert found.confusion == ((3, 1, 0), (0, 2, 0), (1, 0, 1))
    assert found.macro_f1 == pytest.approx((0.75 + 0.8 + 2 / 3) / 3)
    assert found.largest_class == 0.5
    assert found.with_twice == pytest.approx(1 - 0.0625)
    text = "\n".join(figures.lines(found, ["run", "jump", "swim"]))
    assert "accuracy 75.0%" in text
    assert "'run' as 'jump' (1), 'swim' as 'run' (1)" in text
    assert "with twice as many clips expect about 94%" in text


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [(4, 0.5), (8, 0.6)],
        [(4, 0.9), (8, 1.0), (16, 1.0)],
        [(4, 0.9), (8, 0.8), (16, 0.7)],
        [(3, 0.2), (3, 0.3), (3, 0.5)],
    ],
)
def test_a_curve_that_does_not_tell_is_not_extrapolated(curve: list[tuple[float, float]]) -> None:
    assert figures.extrapolated(curve) is None
