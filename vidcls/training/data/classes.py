"""Labels of a set ↔ the classes of a model. Imports no torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vidcls.errors import UsageError, nearest, printable
from vidcls.training.data.forms import is_number
from vidcls.training.data.listing import CLASS_FILES, Listing, labels_of_heads

SPARSE = 1000
"""From this number on a label is not taken for an id where nine of ten ids have no clip: it may be a year."""

Classes = Sequence[Sequence[str]]
"""Names of each head's classes, in the order of their ids."""


def make_classes(listing: Listing, given: Sequence[str] | None = None) -> tuple[tuple[str, ...], ...]:
    """Return the class names of each head, in the order of their ids.

    Numbers are ids, ``0..max``, where the listing does not say that they are names. Names are sorted, unless
    ``given`` has the same ones in another order (the classes of the model that is fine-tuned, or a label file).

    Raises:
        UsageError: Numbers can hardly be ids.
    """
    heads = labels_of_heads(listing)
    classes = []
    for words in map(set, heads):
        numbers = None if listing.named or not all(map(is_number, words)) else {int(word) for word in words}
        if given is not None and len(heads) == 1 and _fits(words, numbers, given):
            classes.append(tuple(given))
        elif numbers is None:
            classes.append(tuple(sorted(words)))
        else:
            _check_dense(listing, numbers)
            classes.append(tuple(str(i) for i in range(max(numbers) + 1)))
    return tuple(classes)


def _fits(words: set[str], numbers: set[int] | None, given: Sequence[str]) -> bool:
    return words == set(given) if numbers is None else max(numbers) == len(given) - 1


def _check_dense(listing: Listing, numbers: set[int]) -> None:
    if max(numbers) >= SPARSE and max(numbers) + 1 > 10 * len(numbers):
        raise UsageError(
            listing.source,
            f"its labels are numbers up to {max(numbers)}, but only {len(numbers)} of them occur",
            "if they are ids, give labels=FILE with all classes; if they are names, put a word before each",
        )


def class_names(source: str) -> tuple[dict[int, str], str] | None:
    """Return the classes that a file beside a list names, and the file; None where there is none.

    Raises:
        UsageError: It cannot be read.
    """
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


def names_beside(listing: Listing) -> tuple[tuple[str, ...], str] | None:
    """The names of a set's numbers by a file beside it, and the file's name; None where it does not tell them for sure.

    The numbers must count from 0, and the file must name them all.

    Raises:
        UsageError: The file cannot be read.
    """
    words = {label for sample in listing.samples for label in sample.labels}
    if listing.named or "0" not in words or not all(map(is_number, words)):
        return None
    names, file = class_names(listing.source) or ({}, "")
    if sorted(names) != list(range(len(names))) or max(map(int, words)) not in names:
        return None
    return tuple(names[number] for number in range(len(names))), os.path.basename(file)


def class_ids(listing: Listing, classes: Classes) -> list[tuple[int | None, ...]]:
    """Return the ids of each clip's labels: by name, or the number itself; None for an unknown label.

    One for each head; where clips have several labels, as many as it has.
    """
    lookup = [_lookup(listing, names) for names in classes]
    if listing.several:
        return [tuple(map(lookup[0].get, sample.labels)) for sample in listing.samples]
    return [
        tuple(index.get(label) for label, index in zip(sample.labels, lookup, strict=True))
        for sample in listing.samples
    ]


def _lookup(listing: Listing, names: Sequence[str]) -> dict[str, int]:
    """Ids by name; by number too where the set's labels may be ids and the classes are not called like numbers."""
    index = {name: i for i, name in enumerate(names)}
    if listing.named or any(map(is_number, names)):
        return index
    return {**{str(i): i for i in range(len(names))}, **index}


def unknown_labels(listing: Listing, classes: Classes) -> list[str]:
    """Return one line for each label of a set that is none of the classes, with the nearest one that is."""
    counts: Counter[tuple[int, str]] = Counter()
    first: dict[tuple[int, str], str] = {}
    for sample, ids in zip(listing.samples, class_ids(listing, classes), strict=True):
        for place, number in enumerate(ids):
            if number is None:
                key = 0 if listing.several else place, sample.labels[place]
                counts[key] += 1
                first.setdefault(key, sample.origin)
    return [
        f"{first[key]}: label {key[1]!r} ({count} clips) is none of the {len(classes[key[0]])} classes"
        f"{nearest(key[1], classes[key[0]])}"
        for key, count in counts.items()
    ]


def class_counts(classes: Classes, ids: Sequence[tuple[int, ...]]) -> list[Counter[int]]:
    """How many clips show each class of each head; with one head a clip may show several."""
    if len(classes) == 1:
        return [Counter(i for several in ids for i in several)]
    return [Counter(head) for head in zip(*ids, strict=True)]


def describe_classes(classes: Classes, sets: dict[str, Sequence[tuple[int, ...]]]) -> list[str]:
    """Return a table of the classes: their ids, how many clips of each set show them, and their names.

    Args:
        classes: Names of each head's classes.
        sets: Name of each set → the ids of its clips.
    """
    lines = ["\t".join(["id", *sets, "label"])]
    shown = [class_counts(classes, clips) for clips in sets.values()]
    for head, names in enumerate(classes):
        counts = [counts[head] for counts in shown]
        for i, name in enumerate(names):
            lines.append("	".join([str(i), *(str(count[i]) for count in counts), printable(name)]))
    return lines
