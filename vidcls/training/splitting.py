"""Cut a labeled set into lists to train and to validate with."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.errors import OutputError, UsageError, system_errors
from vidcls.paths import replacing
from vidcls.training.data import listing
from vidcls.training.data.forms import SEPARATOR, SEVERAL
from vidcls.training.data.listing import Sample
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
    clips: str,
    output: Path,
    share: float,
    *,
    by: str = "group",
    seed: int = 0,
    overwrite: bool = False,
    **reading: Any,
) -> Split:
    """Write ``train.csv`` and ``val.csv``: about ``share`` of each class to validate with.

    Args:
        clips: A list or a folder, as for training.
        output: Folder of the two lists.
        share: Share of the clips to validate with.
        by: ``group`` keeps clips of one source on one side, ``clip`` does not.
        seed: The same seed gives the same lists.
        overwrite: Replace lists that are there.
        **reading: How a list is read: ``videos``, ``labels_format``, ``delimiter`` and ``multi_label`` of
            `listing.read_listing`.

    Raises:
        UsageError: The set has mistakes, or is too small to be cut, or there are lists already.
        OutputError: The lists cannot be written.
    """
    found = listing.read_listing(clips, **reading)
    problems, missing = listing.find_problems(found)
    if problems or missing:
        raise listing.report(clips, problems, missing, "fix the list")
    groups = source_numbers(found.samples)
    if by == "clip":
        groups = np.arange(len(groups))
    chosen = split([sample.labels or ("",) for sample in found.samples], groups, share, seed)
    if chosen.all() or not chosen.any():
        raise UsageError(
            clips, f"{len(set(groups.tolist()))} sources cannot be split", "give more clips, or by=clip"
        )
    for target in (output / TRAIN, output / VAL):
        if target.exists() and not overwrite:
            raise UsageError(
                str(target), "exists already", "name another output=FOLDER, or pass overwrite=True"
            )
    train, val = ([found.samples[i] for i in np.flatnonzero(side)] for side in (~chosen, chosen))
    column = SEVERAL if found.several else "label_name" if found.named else "label"
    targets = write_lists(output, train, val, [column])
    sides = [groups[~chosen], groups[chosen]]
    return Split(
        *targets,
        sizes=(len(sides[0]), len(sides[1])),
        groups=(len(np.unique(sides[0])), len(np.unique(sides[1]))),
    )


def source_numbers(samples: Sequence[Sample]) -> np.ndarray:
    """One number per clip, the same for clips of one source; see `number_groups`."""
    paths = [os.path.abspath(sample.path) for sample in samples]
    return number_groups(paths, [sample.group for sample in samples])


def write_lists(
    folder: Path, train: Sequence[Sample], val: Sequence[Sample], columns: Sequence[str]
) -> tuple[Path, Path]:
    """Write ``train.csv`` and ``val.csv``, and return their paths.

    Args:
        folder: Where to.
        train: Training clips.
        val: Validation clips.
        columns: Names of the columns of labels.

    Raises:
        OutputError: They cannot be written.
    """
    with system_errors(OutputError, folder, "cannot be written", "name another output=FOLDER"):
        folder.mkdir(parents=True, exist_ok=True)
        for path, samples in ((folder / TRAIN, train), (folder / VAL, val)):
            _write(path, samples, columns)
    return folder / TRAIN, folder / VAL


def _write(path: Path, samples: Sequence[Sample], columns: Sequence[str]) -> None:
    """Write a list; its column of groups only where there are some."""
    grouped = any(sample.group for sample in samples)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", *columns, *(["group"] if grouped else [])))
        for sample in samples:
            group = [sample.group] if grouped else []
            labels = [SEPARATOR.join(sample.labels)] if tuple(columns) == (SEVERAL,) else sample.labels
            writer.writerow((os.path.abspath(sample.path), *labels, *group))
