"""A labeled set, and whether its labels are those of the model."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vidcls.training.data import listing
from vidcls.training.data.classes import class_ids, class_names, unknown_labels
from vidcls.training.data.forms import is_number
from vidcls.training.data.listing import Listing

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


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
