"""Which clips come from one source, and splits that keep a source on one side. Imports no torch."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidcls.video.span import split_span

# Endings by which data sets and cutting tools name the parts of one video.
_PARTS = (
    re.compile(r"^(v_.+_g\d+)_c\d+$", re.I),  # UCF-101: group 8, clip 2
    re.compile(r"^(.{11})_\d{6}_\d{6}$"),  # Kinetics: YouTube id, start and end
    re.compile(r"^(.+?)[-_. ](?:clip|part|seg|segment|scene|shot|chunk|cut)[-_. ]?\d+$", re.I),
)


def source_of(path: str) -> str:
    """The source that a clip was cut from, told by its file name; the clip itself where the name does not tell."""
    whole, _ = split_span(path)  # parts of one file are of one source
    file = Path(whole)
    for pattern in _PARTS:
        found = pattern.match(file.stem)
        if found:
            return f"{file.parent.name if pattern is _PARTS[2] else ''}/{found[1]}"
    return whole


def number_groups(paths: Sequence[str], names: Sequence[str] | None = None) -> np.ndarray:
    """One number per clip, the same for clips of one source.

    Args:
        paths: The clips.
        names: Names of their groups where the data has them; an empty one goes by the file name.
    """
    given = names or [""] * len(paths)
    sources = [name or source_of(path) for path, name in zip(paths, given, strict=True)]
    return np.unique(sources, return_inverse=True)[1]


def split(
    labels: Sequence[str] | Sequence[tuple[str, ...]], groups: np.ndarray, share: float, seed: int = 0
) -> np.ndarray:
    """Choose validation clips: about ``share`` of each class, no group on both sides.

    Groups are drawn in an order that follows from ``seed``; each goes to the validation set where at least half of it
    is still wanted there. A class of two groups or more has clips on both sides.

    Args:
        labels: The clips' labels, several each or one.
        groups: (n,) one number for each source of clips.
        share: Of each class.
        seed: The same seed gives the same split.

    Returns:
        (n,) bool, true for validation.
    """
    names = [(label,) if isinstance(label, str) else label for label in labels]
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[int(group)].append(index)
    totals = Counter(itertools.chain(*names))
    wanted = {label: share * count for label, count in totals.items()}
    chosen = np.zeros(len(labels), dtype=bool)
    for group in np.random.default_rng([seed, 65_537]).permutation(sorted(members)).tolist():
        counts = Counter(label for index in members[group] for label in names[index])
        # Clips of a small class count for more, or a large class that they show too would draw them.
        needed = sum(min(n, max(0.0, wanted[label])) / totals[label] for label, n in counts.items())
        if 2 * needed >= sum(n / totals[label] for label, n in counts.items()):
            chosen[members[group]] = True
            wanted.update({label: wanted[label] - n for label, n in counts.items()})
    _give_each_class_both(names, groups, chosen)
    return chosen


def _give_each_class_both(names: Sequence[tuple[str, ...]], groups: np.ndarray, chosen: np.ndarray) -> None:
    """Move the smallest group of a class that has clips on one side only, and several groups."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, several in enumerate(names):
        for label in several:
            members[label].append(index)
    for _, mine in sorted(members.items()):
        own = np.unique(groups[mine])
        if len(own) > 1 and len(np.unique(chosen[mine])) == 1:
            sizes = {int(group): int((groups == group).sum()) for group in own}
            chosen[groups == min(sizes, key=lambda group: (sizes[group], group))] ^= True
