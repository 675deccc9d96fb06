"""Cut a labeled set into lists to train and to validate with."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidcls.errors import OutputError, UsageError
from vidcls.paths import replacing
from vidcls.training.data import listing
from vidcls.training.groups import number_groups, split

BY = ("group", "clip")
TRAIN, VAL = "train.csv", "val.csv"


@dataclass(frozen=True)
class Split:
    """The outcome of a split.

    Attributes:
        train: The training list.
        val: The validation list.
        sizes: Clips in each.
        groups: Sources in each.
    """

    train: Path
    val: Path
    sizes: tuple[int, int]
    groups: tuple[int, int]


def write_split(
    clips: str, output: Path, share: float, *, by: str = "group", seed: int = 0, overwrite: bool = False
) -> Split:
    """Write ``train.csv`` and ``val.csv``: about ``share`` of each class to validate with.

    Args:
        clips: A list or a folder, as for training.
        output: Folder of the two lists.
        share: Share of the clips to validate with.
        by: ``group`` keeps clips of one source on one side, ``clip`` does not.
        seed: The same seed gives the same lists.
        overwrite: Replace lists that are there.

    Raises:
        UsageError: The set has mistakes, or is too small to be cut, or there are lists already.
        OutputError: The lists cannot be written.
    """
    found = listing.read_listing(clips)
    problems, missing = listing.find_problems(found)
    if problems or missing:
        raise listing.report(clips, problems, missing, "fix the list")
    paths = [os.path.abspath(sample.path) for sample in found.samples]
    labels = [sample.labels[0] for sample in found.samples]
    groups = number_groups(paths, [sample.group for sample in found.samples])
    if by == "clip":
        groups = np.arange(len(paths))
    chosen = split(labels, groups, share, seed)
    if chosen.all() or not chosen.any():
        raise UsageError(
            clips, f"{len(set(groups.tolist()))} sources cannot be split", "give more clips, or by=clip"
        )
    targets = output / TRAIN, output / VAL
    for target in targets:
        if target.exists() and not overwrite:
            raise UsageError(
                str(target), "exists already", "name another output=FOLDER, or pass overwrite=True"
            )
    for target, side in zip(targets, (~chosen, chosen), strict=True):
        _write(target, [(paths[i], labels[i], found.samples[i].group) for i in np.flatnonzero(side)])
    sides = [groups[~chosen], groups[chosen]]
    return Split(
        *targets,
        sizes=(len(sides[0]), len(sides[1])),
        groups=(len(np.unique(sides[0])), len(np.unique(sides[1]))),
    )


def _write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    """Write a list; its column of groups only where there are some."""
    columns = 3 if any(group for *_, group in rows) else 2
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "label", "group")[:columns])
            writer.writerows(row[:columns] for row in rows)
    except OSError as error:
        raise OutputError(
            str(path), f"cannot be written ({error.strerror})", "name another output=FOLDER"
        ) from error
