"""Clips of one source: told by file names, and kept on one side of a split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vidcls.training.groups import number_groups, source_of, split


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("v_Swing_g08_c01.avi", "v_Swing_g08_c02.avi", True),
        ("v_Swing_g08_c01.avi", "v_Swing_g09_c01.avi", False),
        ("-3B32lodo2M_000059_000069.mp4", "-3B32lodo2M_000120_000130.mp4", True),
        ("run/match-clip3.mp4", "run/match-clip4.mp4", True),
        ("run/match_part_1.mkv", "run/match_part_2.mkv", True),
        ("run/match-clip3.mp4", "jump/match-clip3.mp4", False),
        ("run/1.mp4", "run/2.mp4", False),
        ("run/take1.mp4", "run/take2.mp4", False),
    ],
)
def test_file_names_tell_the_source(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


def test_a_group_column_wins_over_the_name() -> None:
    paths = ["a_clip1.mp4", "a_clip2.mp4", "b.mp4"]
    assert number_groups(paths).tolist() == [0, 0, 1]
    assert len(set(number_groups(paths, ["x", "y", "x"]).tolist())) == 2
    assert number_groups(paths, ["x", "y", "x"])[0] == number_groups(paths, ["x", "y", "x"])[2]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_split_is_stratified_grouped_and_reproducible(share: float) -> None:
    rng = np.random.default_rng(5)
    groups = np.sort(rng.integers(0, 60, 300))
    labels = [f"class {group % 4}" for group in groups]
    chosen = split(labels, groups, share, seed=3)
    assert np.array_equal(chosen, split(labels, groups, share, seed=3))
    assert not np.array_equal(chosen, split(labels, groups, share, seed=4))
    assert not set(groups[chosen]) & set(groups[~chosen])
    every, held = Counter(labels), Counter(np.array(labels)[chosen].tolist())
    for label, count in every.items():
        assert abs(held[label] - share * count) <= 6, label  # about the size of one group


def test_a_class_of_few_sources_has_clips_on_both_sides() -> None:
    labels = ["a"] * 2 + ["b"] * 20 + ["c"]
    chosen = split(labels, np.arange(23), 0.1)
    assert [int(chosen[:2].sum()), int(chosen[2:22].sum())] == [1, 2]
    assert not chosen[22]  # the only clip of its class is learned from
