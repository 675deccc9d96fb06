"""A labeled set, and whether its labels are those of the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidcls.errors import UsageError
from vidcls.training.data import listing
from vidcls.training.data.classes import class_ids, unknown_labels
from vidcls.training.data.forms import is_number
from vidcls.training.data.listing import CLASS_FILES, Listing

SHOWN = 5  # disagreements that are shown one by one


def check_samples(found: Listing, labels: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the class ids of each clip of a set.

    Args:
        found: The set.
        labels: The model's classes.

    Raises:
        UsageError: The set has mistakes, or labels that the model does not know; all are named together.
    """
    problems, _ = listing.find_problems(found, check_files=False)
    problems += unknown_labels(found, [labels])
    problems += disagreements(found, labels)
    if problems:
        remedy = "fix the list, or give the model that knows these labels"
        raise listing.report(found.source, problems, [], remedy)
    # None is unknown: that was refused.
    return [tuple(i for i in ids if i is not None) for ids in class_ids(found, [labels])]


def disagreements(found: Listing, labels: Sequence[str]) -> list[str]:
    """Return a line for each number that stands for another class in the set's own list of classes than in the model.

    Only where labels are numbers can this be: names are compared as they are.
    """
    written = {label for sample in found.samples for label in sample.labels} - set(labels)
    used = set() if found.named else {int(label) for label in written if is_number(label)}
    classes = class_names(found.source) if used else None
    if classes is None:
        return []
    names, file = classes
    wrong = [
        f"label {number} is {names[number]!r} in {os.path.basename(file)}, {labels[number]!r} for the model"
        for number in sorted(used)
        if number in names and number < len(labels) and _plain(names[number]) != _plain(labels[number])
    ]
    more = [f"and {len(wrong) - SHOWN} more numbers"] if len(wrong) > SHOWN else []
    return wrong[:SHOWN] + more


def class_names(source: str) -> tuple[dict[int, str], str] | None:
    """Return the classes that a file beside a list names, and the file; None where there is none."""
    folder = Path(source) if os.path.isdir(source) else Path(source).parent
    file = next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
    if file is None or file == Path(source):
        return None
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(
            str(file), f"cannot be read ({error})", "give one class per line, as UTF-8"
        ) from None
    rows = [line.split(None, 1) for line in lines if line]
    if all(len(row) == 2 and row[0].isdecimal() for row in rows):
        first = 1 if "0" not in {row[0] for row in rows} else 0  # UCF-101 counts its classes from 1
        return {int(number) - first: name for number, name in rows}, str(file)
    return dict(enumerate(line for line in lines if line)), str(file)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
