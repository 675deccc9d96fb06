"""What a training or test set consists of: lists and folders → samples, checked before any work. Imports no torch.

Known are the lists of `vidcls.training.data.forms`, and

- a folder with one folder of clips per class; a folder's name is a name, also where it is a number,
- a folder with a ``labels.csv`` (as `vidcls synthesize` writes it) or ``metadata.csv`` (Hugging Face) in it,
- the folder of HMDB-51's lists, one file per class and split.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidcls.errors import UsageError, counted, system_errors
from vidcls.training.data.forms import (
    Table,
    Wanted,
    columns_of,
    hmdb_files,
    is_number,
    read_lines,
    read_table,
    several_labels,
)
from vidcls.video.sources import is_video_name, walk
from vidcls.video.span import split_span

TABLE = "labels.csv"
TABLES = (TABLE, "metadata.csv")
"""A folder is read by such a file in it, if its header names a path and a label."""
LISTS = (".csv", ".tsv", ".txt")
"""Suffixes of the parts of a set that are lists."""
CLASS_FILES = ("classes.txt", "labels.txt", "classInd.txt", "label_map.txt")
"""Files beside a list that name its classes, one a line, in the order of their ids or with an id before each."""
TRAIN_NAMES, VAL_NAMES = ("train", "training"), ("val", "valid", "validation", "test", "testing")
"""Names of the parts of a set, the one that is taken first."""
GIVE = "give a CSV, a list, or a folder with one folder a class"
SHOWN = 20
"""Problems that are shown one by one; the rest is counted."""


@dataclass(frozen=True)
class Sample:
    """One clip and what it shows.

    Attributes:
        path: The video file, or a part of it such as ``game.mp4#t=12.5,20``.
        labels: Its label as it is written, one for each head; or all of its labels where the set is of several.
        origin: Where the list says so, ``train.csv:12``.
        group: What the clip was cut from, where a column says so.
    """

    path: str
    labels: tuple[str, ...]
    origin: str = ""
    group: str = ""


@dataclass
class Listing:
    """A set of clips, and what is wrong with the list of them.

    Attributes:
        source: What it was read from.
        samples: All clips that the list names, missing ones too.
        problems: Lines of the list that make no sense.
        named: Labels are names, never ids, also where they look like numbers.
        several: A clip has any number of labels, and there is one head.
        notes: What was assumed while reading it.
    """

    source: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    named: bool = False
    several: bool = False
    notes: list[str] = field(default_factory=list)


def read_listing(
    source: str | os.PathLike[str],
    videos: str | None = None,
    heads: Sequence[str] = ("label",),
    *,
    labels_format: str | None = None,
    delimiter: str | None = None,
    multi_label: bool = False,
    part: str = "train",
) -> Listing:
    """Read a list, or a folder of classes or with a list in it.

    Args:
        source: The list, or the folder.
        videos: Folder from which relative paths count; the list's own folder by default.
        heads: Names of the labels that each clip has.
        labels_format: A key of `forms.FORMS`; by default it is detected from the list's first lines.
        delimiter: Between the columns of the list; by default it is detected from its first lines.
        multi_label: A clip may have several labels, with ``|`` between them; a column called ``labels`` says so too.
        part: ``train`` or ``test``, for lists that hold both (HMDB-51).

    Raises:
        UsageError: The source does not exist, is too large, has no known form, or holds nothing.
    """
    path = Path(source)
    wanted = Wanted(tuple(heads), labels_format, delimiter, multi_label)
    root = Path(videos) if videos else None
    lists = list(hmdb_files(path)) if labels_format in (None, "hmdb51") else []
    inside = next((path / name for name in TABLES if _is_table(path / name, wanted)), None)
    if lists:
        listing = _read_hmdb(path, lists, root, part)
    elif inside is not None:
        listing = _read_file(inside, root, wanted)
    elif path.is_dir():
        listing = _read_folder(path, len(wanted.heads))
    elif path.is_file() and is_video_name(path):
        raise UsageError(str(path), "is a video, not a list or folder of labeled clips", GIVE)
    elif path.is_file():
        listing = _read_file(path, root, wanted)
    else:
        raise UsageError(str(path), "no such file or folder", GIVE)
    if not listing.samples and not listing.problems:
        raise UsageError(str(path), "names no clips", "see `vidcls train --help` for the forms of a list")
    return listing


def parts_of(source: str) -> tuple[str, str | None]:
    """The training and validation part of a folder that holds them as folders or lists, such as ``train`` and ``val``.

    Returns:
        The two; any other source as it is, and None.
    """
    root = Path(source)
    if not root.is_dir() or _has_classes(root):
        return source, None
    found = {path.stem.lower(): str(path) for path in root.iterdir() if path.is_dir() or path.suffix in LISTS}
    train, val = (next((found[n] for n in names if n in found), None) for names in (TRAIN_NAMES, VAL_NAMES))
    return (source, None) if train is None else (train, val)


def _has_classes(root: Path) -> bool:
    """Whether a folder holds folders that are not parts of a set."""
    folders = [
        path.name.lower() for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    ]
    return any(name not in (*TRAIN_NAMES, *VAL_NAMES) for name in folders)


def _is_table(path: Path, wanted: Wanted) -> bool:
    """Whether a folder's file lists clips; one with the classes' names, say, does not."""
    if not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(1 << 16).strip()
    except OSError:
        return False
    return any(
        columns_of([name.strip().strip('"').lower() for name in first.split(delimiter)], wanted.heads)
        for delimiter in wanted.delimiter or ",\t;|"
    )


def _read_folder(root: Path, heads: int) -> Listing:
    listing = Listing(str(root), named=True)
    with system_errors(UsageError, root, "cannot be listed", "check its permissions"):
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if heads > 1:
        raise UsageError(
            str(root), "a folder names one label a clip", "give a CSV with a column for each head"
        )
    if len(folders) > 1 and all(folder.name.lower() in (*TRAIN_NAMES, *VAL_NAMES) for folder in folders):
        names = ", ".join(folder.name for folder in folders)
        remedy = f"name one of them, such as {folders[0]}"
        raise UsageError(str(root), f"its folders ({names}) are sets of clips rather than classes", remedy)
    loose = sum(clip.error is None for clip in walk(str(root), recursive=False))
    if loose and not folders:
        remedy = f"make one folder per class, or list them with labels in {root / TABLE}"
        raise UsageError(str(root), f"{counted(loose, 'video')} but no class folders", remedy)
    if loose:
        listing.notes.append(f"{root}: {counted(loose, 'video')} beside the class folders left out")
    for folder in folders:
        clips = 0
        for clip in walk(str(folder)):
            if clip.error is not None:
                listing.problems.append(str(clip.error))
            else:
                clips += 1
                listing.samples.append(Sample(clip.path, (folder.name,), folder.name))
        if not clips:
            listing.problems.append(f"{folder}: no video in this class's folder")
    return listing


def _read_file(path: Path, videos: Path | None, wanted: Wanted) -> Listing:
    table = read_table(path, wanted)
    listing = Listing(
        str(path), problems=table.problems, named=table.named, several=table.several, notes=table.notes
    )
    if table.form == "kinetics":
        _add_kinetics(listing, table, path, videos or path.parent)
        return listing
    for number, (name, *labels) in table.rows:
        place = str(_resolve(name, path, videos))
        own = several_labels(labels[0]) if table.several else tuple(labels)
        listing.samples.append(Sample(place, own, f"{path.name}:{number}", table.groups.get(number, "")))
    if listing.several:
        listing.samples = _joined(listing.samples)
    elif not listing.named and len(wanted.heads) == 1:
        _name_numbers(listing, path, [name for _, (name, *_) in table.rows])
    return listing


def _joined(samples: list[Sample]) -> list[Sample]:
    """One sample for each clip, with the labels of all its lines."""
    found: dict[str, Sample] = {}
    for sample in samples:
        first = found.setdefault(sample.path, sample)
        labels = tuple(dict.fromkeys((*first.labels, *sample.labels)))
        found[sample.path] = replace(first, labels=labels)
    return list(found.values())


def _resolve(name: str, listing: Path, videos: Path | None) -> Path:
    if "\\" in name and os.sep == "/" and not os.path.lexists((videos or listing.parent) / name):
        name = name.replace("\\", "/")  # a list that a Windows machine wrote
    try:
        return (videos or listing.parent) / Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return (videos or listing.parent) / name


def _name_numbers(listing: Listing, path: Path, written: list[str]) -> None:
    """Put names in place of numbers that count from 1, as UCF-101's do: those of its class file, or the folders'."""
    numbers = {sample.labels[0] for sample in listing.samples}
    if not numbers or not all(map(is_number, numbers)):
        return
    found = numbered_classes(path.parent)
    if found is not None and numbers <= set(found[0]):
        names, file = found
        listing.notes.append(f"{path.name}: classes are called as in {file.name}")
    elif "0" not in numbers:
        folders = {
            (s.labels[0], os.path.basename(os.path.dirname(n)))
            for s, n in zip(listing.samples, written, strict=True)
        }
        names = dict(folders)
        if len(folders) > len(numbers) or len(set(names.values())) < len(names) or "" in names.values():
            listing.notes.append(
                f"{path.name}: no clip has the label 0; if the labels count from 1, put a classInd.txt beside it"
            )
            return
        listing.notes.append(f"{path.name}: labels count from 1; classes are called as their clips' folders")
    else:
        return
    listing.samples = [replace(s, labels=(names[s.labels[0]],)) for s in listing.samples]
    listing.named = True


def numbered_classes(folder: Path) -> tuple[dict[str, str], Path] | None:
    """Return the names that a file in a list's folder gives to numbers, as ``classInd.txt`` does, and the file."""
    for file in (folder / name for name in CLASS_FILES):
        if file.is_file():
            rows = [line.strip().split(None, 1) for _, line in read_lines(file)]
            if rows and all(len(row) == 2 and is_number(row[0]) for row in rows):
                return {row[0]: row[1] for row in rows}, file
    return None


def _read_hmdb(source: Path, lists: list[tuple[str, Path]], videos: Path | None, part: str) -> Listing:
    """Read HMDB-51's lists: in each file a class's clips and whether they train (1), test (2) or neither (0)."""
    listing = Listing(str(source), named=True)
    split = lists[0][1].stem.rpartition("_test_")[2]
    listing.notes.append(f"{source}: {split} of HMDB-51, its {part}ing clips")
    chosen = "1" if part == "train" else "2"
    for label, path in lists:
        root = videos or path.parent
        table = read_table(path, Wanted(form="hmdb51"))
        listing.problems += table.problems
        for number, (name, which) in table.rows:
            if which == chosen:
                place = root / label / name
                place = place if place.exists() else root / name if (root / name).exists() else place
                listing.samples.append(Sample(str(place), (label,), f"{path.name}:{number}"))
    return listing


def _add_kinetics(listing: Listing, table: Table, path: Path, root: Path) -> None:
    """Add Kinetics' clips; they are called after the YouTube id and the seconds, in any subfolder."""
    known = {Path(clip.path).stem: Path(clip.path) for clip in walk(str(root)) if clip.error is None}
    assert table.header is not None
    for number, row in table.rows:
        cells = dict(zip(table.header, (cell.strip() for cell in row), strict=False))
        where = f"{path.name}:{number}"
        clip, label = cells.get("youtube_id", ""), cells.get("label", "")
        if not clip or not label:
            listing.problems.append(f"{where}: the {'label' if clip else 'youtube_id'} is empty")
            continue
        stem = _clip_name(clip, cells.get("time_start", ""), cells.get("time_end", ""))
        found = known.get(stem) or known.get(clip) or root / f"{stem}.mp4"
        listing.samples.append(Sample(str(found), (label,), where))


def _clip_name(clip: str, start: str, end: str) -> str:
    try:
        return f"{clip}_{int(float(start)):06d}_{int(float(end)):06d}"
    except (ValueError, OverflowError):
        return clip


def find_problems(listing: Listing, check_files: bool = True) -> tuple[list[str], list[Sample]]:
    """Everything wrong with a set by itself: bad lines, doubtful labels, one clip with two labels, missing files.

    Returns:
        Label mistakes and bad lines, to be fixed; and the samples whose file is missing.
    """
    problems = list(listing.problems)
    for labels in labels_of_heads(listing):
        problems += _similar_labels(labels)
        problems += [] if listing.named else _negative_labels(labels)
    seen: dict[str, Sample] = {}
    for sample in listing.samples:
        first = seen.setdefault(sample.path, sample)
        if first.labels != sample.labels:
            problems.append(
                f"{sample.origin}: {sample.path} is {'/'.join(sample.labels)!r} here "
                f"and {'/'.join(first.labels)!r} at {first.origin}"
            )
    missing = [
        sample for sample in listing.samples if check_files and not os.path.isfile(split_span(sample.path)[0])
    ]
    return problems, missing


def labels_of_heads(listing: Listing) -> list[list[str]]:
    """The labels of each head, clip by clip; all labels of all clips where clips have several."""
    if listing.several:
        return [[label for sample in listing.samples for label in sample.labels]]
    heads = len(listing.samples[0].labels) if listing.samples else 0
    return [[sample.labels[head] for sample in listing.samples] for head in range(heads)]


def _similar_labels(labels: list[str]) -> list[str]:
    """Labels that differ only by case, spaces, dashes or underscores are most likely meant to be one."""
    groups: dict[str, set[str]] = {}
    for label in set(labels):
        plain = "".join(label.casefold().replace("_", " ").replace("-", " ").split())
        plain = label if _is_negative(label) else plain
        groups.setdefault(plain, set()).add(label)
    counts = Counter(labels)
    return [
        "labels that differ only in spelling: "
        + ", ".join(f"{name!r} ({counts[name]} clips)" for name in sorted(group))
        for group in groups.values()
        if len(group) > 1
    ]


def _negative_labels(labels: list[str]) -> list[str]:
    """Negative numbers where all labels are numbers: some tools write -1 for clips without a label."""
    negative = sorted({label for label in labels if _is_negative(label)})
    if not negative or not all(is_number(label.removeprefix("-")) for label in labels):
        return []
    count = sum(label in negative for label in labels)
    return [f"label {negative[0]} ({count} clips): class ids count from 0; leave clips without a label out"]


def _is_negative(label: str) -> bool:
    return label.startswith("-") and is_number(label[1:])


def report(source: str, problems: Sequence[str], missing: Sequence[Sample], remedy: str) -> UsageError:
    """One error that names all problems of a set together, below what to do about them."""
    lines = [*problems, *(f"{sample.origin}: no such file: {sample.path}" for sample in missing)]
    shown = lines[:SHOWN] + ([f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
    parts = []
    if missing:
        parts.append(f"{counted(len(missing), 'file')} {'is' if len(missing) == 1 else 'are'} missing")
    if problems:
        parts.append(counted(len(problems), "mistake"))
    return UsageError(source, " and ".join(parts), f"{remedy}:\n  " + "\n  ".join(shown))
