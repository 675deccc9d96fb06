"""Scores → segments: the rule, on made scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcls.errors import UsageError
from vidcls.timeline.segments import CELLS, HOLD, MARGIN, Cell, Run, Segmenter, Smoother, cell_edges

scores = st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=60).map(
    lambda rows: np.array(rows, np.float32)
)
steps = st.sampled_from([0.1, 0.32, 1.0])
thresholds = st.sampled_from([0.2, 0.5, 0.9])
lengths = st.sampled_from([0.0, 0.3, 1.0, 2.5, 100.0])


def runs_of(cells: Iterable[Cell], threshold: float = 0.5, min_length: float = 1.0) -> list[Run]:
    """All runs of some cells, those without a label too: together they cover the video."""
    segmenter = Segmenter(threshold, min_length)
    runs = [run for cell in cells for run in segmenter.push(cell)]
    return [*runs, *segmenter.finish()]


def cells_of(rows: np.ndarray, step: float = 1.0) -> list[Cell]:
    return [Cell(step * n, step * (n + 1), row) for n, row in enumerate(rows)]


def labels_of(runs: list[Run]) -> list[tuple[int | None, float, float]]:
    return [(run.label, run.start, run.end) for run in runs]


def rows(*labels: int | None, score: float = 0.9) -> np.ndarray:
    found = np.full((len(labels), 3), 0.05, np.float32)
    for number, label in enumerate(labels):
        if label is not None:
            found[number, label] = score
    return found


@given(scores, steps, thresholds, lengths)
@settings(max_examples=200, deadline=None)
def test_runs_tile_the_video_and_none_is_too_short(rows, step, threshold, min_length):
    cells = cells_of(rows, step)
    runs = runs_of(cells, threshold, min_length)
    assert runs[0].start == 0
    assert runs[-1].end == cells[-1].end
    for before, after in itertools.pairwise(runs):
        assert before.end == after.start
        assert before.label != after.label
    least = min(min_length, cells[-1].end)
    assert all(run.end - run.start >= least - 1e-6 for run in runs)


@given(scores, steps, thresholds, lengths)
@settings(max_examples=100, deadline=None)
def test_a_run_has_the_mean_of_its_scores(rows, step, threshold, min_length):
    for run in runs_of(cells_of(rows, step), threshold, min_length):
        part = rows[round(run.start / step) : round(run.end / step)]
        assert np.allclose(run.scores, part.mean(0), atol=1e-4)


@given(scores, steps, thresholds, st.sampled_from([0.3, 1.0, 2.5]))
@settings(max_examples=200, deadline=None)
def test_what_is_plain_for_long_enough_is_covered(rows, step, threshold, min_length):
    cells = cells_of(rows, step)
    runs = runs_of(cells, threshold, min_length)
    for label in range(3):
        others = np.delete(rows, label, 1).max(1)
        plain = (rows[:, label] >= threshold) & (rows[:, label] > MARGIN * others + 1e-6)
        for is_plain, group in itertools.groupby(range(len(rows)), key=lambda n: bool(plain[n])):
            stretch = list(group)
            if is_plain and len(stretch) * step >= min_length:
                middle = step * (stretch[0] + stretch[-1] + 1) / 2
                run = next(run for run in runs if run.start <= middle < run.end)
                assert run.label == label
                assert run.start <= cells[stretch[0]].start
                assert run.end >= cells[stretch[-1]].end


@given(scores, thresholds, lengths)
@settings(max_examples=100, deadline=None)
def test_a_label_is_never_made_up(rows, threshold, min_length):
    for run in runs_of(cells_of(rows), threshold, min_length):
        if run.label is not None:
            part = rows[round(run.start) : round(run.end), run.label]
            assert part.max() >= HOLD * threshold


def test_a_label_begins_at_the_threshold_and_goes_on_below_it():
    found = rows(None, 0, 0, 0, None)
    found[1:4, 0] = 0.51, 0.35, 0.31
    assert labels_of(runs_of(cells_of(found), 0.5, 0)) == [(None, 0, 1), (0, 1, 4), (None, 4, 5)]


def test_a_label_does_not_give_way_to_one_that_is_hardly_higher():
    found = np.array([[0.6, 0.1, 0.1], [0.5, 0.55, 0.1], [0.6, 0.5, 0.1], [0.4, 0.6, 0.1]], np.float32)
    assert labels_of(runs_of(cells_of(found), 0.5, 0)) == [(0, 0, 3), (1, 3, 4)]


def test_flicker_between_two_runs_goes_where_it_scores_higher():
    found = rows(0, 0, 0, 2, None, 1, 1, 1)
    found[3] = 0.45, 0.1, 0.8
    found[4] = 0.1, 0.4, 0.1
    assert labels_of(runs_of(cells_of(found), 0.5, 3.0)) == [(0, 0, 4), (1, 4, 8)]


def test_flicker_within_a_run_goes_away():
    assert labels_of(runs_of(cells_of(rows(0, 0, 1, 0, 0, None, 0, 0)), 0.5, 2.0)) == [(0, 0, 8)]


def test_flicker_that_lasts_is_no_label():
    found = labels_of(runs_of(cells_of(rows(*[0] * 4, *[1, 2] * 4, *[0] * 4)), 0.9, 4.0))
    assert [label for label, *_ in found] == [0, None, 0]


def test_a_video_shorter_than_the_least_length_is_one_run():
    assert labels_of(runs_of(cells_of(rows(1, 1)), 0.5, 10.0)) == [(1, 0, 2)]
    assert labels_of(runs_of(cells_of(rows(1, None)), 0.5, 10.0)) == [(None, 0, 2)]


def test_runs_come_as_soon_as_they_are_certain():
    segmenter = Segmenter(0.5, 2.0)
    came = {
        number: [run.label for run in segmenter.push(cell)]
        for number, cell in enumerate(cells_of(rows(0, 0, 0, 1, 1, 1, 1)))
    }
    assert {number: labels for number, labels in came.items() if labels} == {4: [0]}
    assert [run.label for run in segmenter.finish()] == [1]


@pytest.mark.parametrize(
    ("threshold", "min_length", "subject"),
    [(0, 1, "threshold"), (1.1, 1, "threshold"), (0.5, -1, "min_length")],
)
def test_values_that_make_no_sense(threshold, min_length, subject):
    with pytest.raises(UsageError) as caught:
        Segmenter(threshold, min_length)
    assert caught.value.subject == subject


# --- windows → cells ---


def smooth(starts, length, values, step, duration):
    smoother = Smoother(step, duration)
    cells = []
    for start, value in zip(starts, values, strict=True):
        cells += smoother.push(start, start + length, np.array([value], np.float32))
    return [*cells, *smoother.finish()]


def test_cells_interpolate_between_the_middles_of_windows():
    cells = smooth([0.0, 1.0, 2.0], 2.0, [0.0, 1.0, 0.0], 1.0, 4.0)
    assert len(cells) == 4 * CELLS
    middles = np.array([(cell.start + cell.end) / 2 for cell in cells])
    expected = np.interp(middles, [1.0, 2.0, 3.0], [0.0, 1.0, 0.0])
    assert np.allclose([cell.scores[0] for cell in cells], expected, atol=1e-6)


@given(
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from([1.0, 1.7, 2.0]),
    st.floats(2.0, 20.0),
    st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_cells_tile_the_video_and_lie_within_the_scores(step, length, duration, seed):
    length = max(length, step)
    starts = [*np.arange(0, duration - length, step), duration - length]
    values = np.random.default_rng(seed).random(len(starts))
    cells = smooth(starts, length, values, step, duration)
    assert cells[0].start == 0
    assert cells[-1].end == duration
    assert all(before.end == after.start for before, after in itertools.pairwise(cells))
    usual = step / CELLS
    assert all(0.5 * usual - 1e-6 <= cell.end - cell.start <= 1.5 * usual + 1e-6 for cell in cells)
    for cell in cells:
        middle = (cell.start + cell.end) / 2
        held = [v for s, v in zip(starts, values, strict=True) if s <= middle < s + length]
        assert min(held) - 1e-5 <= cell.scores[0] <= max(held) + 1e-5


def test_cells_come_before_the_end():
    smoother = Smoother(1.0, 100.0)
    assert list(smoother.push(0.0, 2.0, np.ones(1, np.float32))) == []
    came = list(smoother.push(1.0, 3.0, np.ones(1, np.float32)))
    assert [cell.end for cell in came][-1] == 1.0


def test_edges_of_a_video_shorter_than_a_cell():
    assert cell_edges(4.0, 0.2) == [0, 0.2]
