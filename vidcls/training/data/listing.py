"""What a training or test set consists of: lists and folders → samples, checked before any work. Imports no torch.

Known forms:

- CSV or TSV with the columns ``path,label`` (header optional; with several heads one column for each),
- Kinetics-style lists, ``path label`` separated by a space, the label a number,
- Kinetics' own CSV, ``label,youtube_id,time_start,time_end,split``, mapped onto a folder of clips,
- a folder with one folder of clips per class,
- a folder with a ``labels.csv`` of the first form in it, as `vidcls synthesize` writes it.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vidcls.config import nearest
from vidcls.errors import UsageError
from vidcls.video.sources import VIDEO_SUFFIXES, is_video_name

TABLE = "labels.csv"
"""A folder is read by this file in it, if its header names a path and a label."""
MAX_LIST_BYTES = 256 * 1024**2
SHOWN = 20
"""Problems that are shown one by one; the rest is counted."""

PATH_NAMES = frozenset(("path", "file", "filename", "video", "video_path", "clip"))
LABEL_NAMES = frozenset(("label", "class", "category", "action", "label_name", "class_name"))
YOUTUBE_NAMES = frozenset(("youtube_id", "time_start", "time_end"))


@dataclass(frozen=True)
class Sample:
    """One clip and what it shows.

    Attributes:
        path: The video file.
        labels: Its label as it is written, one for each head.
        origin: Where the list says so, ``train.csv:12``.
    """

    path: str
    labels: tuple[str, ...]
    origin: str = ""


@dataclass
class Listing:
    """A set of clips, and what is wrong with the list of them.

    Attributes:
        source: What it was read from.
        samples: All clips that the list names, missing ones too.
        problems: Lines of the list that make no sense.
    """

    source: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_listing(
    source: str | os.PathLike[str], videos: str | None = None, heads: Sequence[str] = ("label",)
) -> Listing:
    """Read a list, or a folder of classes or with a list in it.

    Args:
        source: The list, or the folder.
        videos: Folder from which relative paths count; the list's own folder by default.
        heads: Names of the labels that each clip has.

    Raises:
        UsageError: The source does not exist, is too large, or holds nothing.
    """
    path = Path(source)
    if _is_table(path / TABLE, tuple(heads)):
        path /= TABLE
    if path.is_dir():
        listing = _read_folder(path)
        if len(heads) > 1:
            raise UsageError(
                str(path), "a folder names one label a clip", f"give a CSV with {', '.join(heads)}"
            )
    elif path.is_file():
        listing = _read_file(path, Path(videos) if videos else None, tuple(heads))
    else:
        raise UsageError(
            str(path), "no such file or folder", "give a CSV, a list, or a folder with one folder a class"
        )
    if not listing.samples and not listing.problems:
        raise UsageError(str(path), "names no clips", "see `vidcls train --help` for the forms of a list")
    return listing


def _is_table(path: Path, heads: tuple[str, ...]) -> bool:
    """Whether a folder's file lists clips; one with the classes' names, say, does not."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline(1 << 16).strip()
        row = _split(first, _delimiter([first], path), len(heads)) if first else []
    except (OSError, csv.Error):  # there is none, or none that can be read
        return False
    return _columns(_header(row), heads) is not None


def _read_folder(root: Path) -> Listing:
    listing = Listing(str(root))
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        clips = sorted(p for p in folder.rglob("*") if p.is_file() and is_video_name(p))
        listing.samples += [Sample(str(clip), (folder.name,), folder.name) for clip in clips]
        if not clips:
            listing.problems.append(f"{folder}: no video in this class's folder")
    return listing


def _read_file(path: Path, videos: Path | None, heads: tuple[str, ...]) -> Listing:
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UsageError(str(path), f"larger than {MAX_LIST_BYTES >> 20} MiB", "is it a list of clips?")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(str(path), f"cannot be read ({reason})", "give a text file") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        return Listing(str(path))
    delimiter = _delimiter([line for _, line in rows[:50]], path)
    try:
        table = [(number, _split(line, delimiter, len(heads))) for number, line in rows]
    except csv.Error as error:
        raise UsageError(str(path), f"not a table ({error})", "mend its quotes") from None
    header = _header(table[0][1])
    if YOUTUBE_NAMES & set(header):
        return _read_kinetics(path, table[1:], header, videos)
    columns = _columns(header, heads)
    if columns is not None:
        table = table[1:]
    elif delimiter is not None and _looks_like_header(table[0][1], path, videos):
        raise UsageError(
            f"{path}:1",
            f"the columns are called {', '.join(map(repr, table[0][1]))}",
            f"call them path,{','.join(heads)}, or leave the header out",
        )
    return _read_rows(path, table, columns or list(range(len(heads) + 1)), videos)


def _delimiter(lines: list[str], path: Path) -> str | None:
    """Comma, tab, or None for lists separated by spaces whose last words are numbers."""
    if all("\t" in line for line in lines):
        return "\t"
    if all(line.rsplit(None, 1)[-1].isdigit() and "," not in line and " " in line.strip() for line in lines):
        return None
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _split(line: str, delimiter: str | None, heads: int) -> list[str]:
    if delimiter is None:
        return line.strip().rsplit(None, heads)
    return next(csv.reader([line], delimiter=delimiter))


def _header(row: list[str]) -> list[str]:
    return [name.strip().lower() for name in row]


def _columns(header: list[str], heads: tuple[str, ...]) -> list[int] | None:
    """Numbers of the path's and the labels' columns, or None where the first row is no header."""
    paths = [i for i, name in enumerate(header) if name in PATH_NAMES]
    if len(heads) == 1:
        labels = [i for i, name in enumerate(header) if name in LABEL_NAMES | {heads[0].lower()}][:1]
    else:
        labels = [header.index(name.lower()) for name in heads if name.lower() in header]
    return [paths[0], *labels] if paths and len(labels) == len(heads) else None


def _looks_like_header(row: list[str], path: Path, videos: Path | None) -> bool:
    """A first row whose first cell is neither a file nor named like one is taken for a header of unknown names."""
    return not is_video_name(row[0]) and not _resolve(row[0].strip(), path, videos).exists()


def _resolve(name: str, listing: Path, videos: Path | None) -> Path:
    return (videos or listing.parent) / Path(name).expanduser()


def _read_rows(
    path: Path, table: list[tuple[int, list[str]]], columns: list[int], videos: Path | None
) -> Listing:
    listing = Listing(str(path))
    for number, row in table:
        where = f"{path.name}:{number}"
        if len(row) <= max(columns):
            listing.problems.append(f"{where}: {len(row)} columns where {max(columns) + 1} are needed")
            continue
        name, *labels = (row[c].strip() for c in columns)
        if not name or not all(labels):
            listing.problems.append(f"{where}: the {'label' if name else 'path'} is empty")
            continue
        listing.samples.append(Sample(str(_resolve(name, path, videos)), tuple(labels), where))
    return listing


def _read_kinetics(
    path: Path, table: list[tuple[int, list[str]]], header: list[str], videos: Path | None
) -> Listing:
    """Read Kinetics' annotation file; clips are called after the YouTube id and the seconds, in any subfolder."""
    missing = [name for name in ("label", "youtube_id") if name not in header]
    if missing:
        raise UsageError(
            str(path), f"has no column {' and '.join(missing)}", "give the training or validation file"
        )
    root = videos or path.parent
    known = {
        Path(entry.name).stem: Path(folder) / entry.name
        for folder, _, _ in os.walk(root)
        for entry in os.scandir(folder)
        if entry.is_file() and Path(entry.name).suffix.lower() in VIDEO_SUFFIXES
    }
    listing = Listing(str(path))
    for number, row in table:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        where = f"{path.name}:{number}"
        clip, label = cells.get("youtube_id", ""), cells.get("label", "")
        if not clip or not label:
            listing.problems.append(f"{where}: the {'label' if clip else 'youtube_id'} is empty")
            continue
        stem = clip
        times = cells.get("time_start", ""), cells.get("time_end", "")
        if all(t.replace(".", "", 1).isdigit() for t in times):
            stem = f"{clip}_{int(float(times[0])):06d}_{int(float(times[1])):06d}"
        found = known.get(stem) or known.get(clip) or root / f"{stem}.mp4"
        listing.samples.append(Sample(str(found), (label,), where))
    return listing


def find_problems(listing: Listing, check_files: bool = True) -> tuple[list[str], list[Sample]]:
    """Everything wrong with a set by itself: bad lines, doubtful labels, one clip with two labels, missing files.

    Returns:
        Label mistakes and bad lines, to be mended; and the samples whose file is missing.
    """
    problems = list(listing.problems)
    for head in range(len(listing.samples[0].labels) if listing.samples else 0):
        problems += _similar_labels([sample.labels[head] for sample in listing.samples])
    seen: dict[str, Sample] = {}
    for sample in listing.samples:
        first = seen.setdefault(sample.path, sample)
        if first.labels != sample.labels:
            problems.append(
                f"{sample.origin}: {sample.path} is {'/'.join(sample.labels)!r} here "
                f"and {'/'.join(first.labels)!r} at {first.origin}"
            )
    missing = [sample for sample in listing.samples if check_files and not os.path.isfile(sample.path)]
    return problems, missing


def _similar_labels(labels: list[str]) -> list[str]:
    """Labels that differ only by case, spaces, dashes or underscores are most likely meant to be one."""
    groups: dict[str, set[str]] = {}
    for label in set(labels):
        groups.setdefault("".join(label.casefold().replace("_", " ").replace("-", " ").split()), set()).add(
            label
        )
    counts = Counter(labels)
    return [
        "labels that differ only in spelling: "
        + ", ".join(f"{name!r} ({counts[name]} clips)" for name in sorted(group))
        for group in groups.values()
        if len(group) > 1
    ]


def make_classes(listing: Listing, given: Sequence[str] | None = None) -> tuple[tuple[str, ...], ...]:
    """Class names of each head, in the order of their ids.

    Numbers are ids: ``0..max``. Words are sorted, unless ``given`` names the same set in another order (the
    classes of the model that is fine-tuned, or a label file).
    """
    heads = len(listing.samples[0].labels)
    classes = []
    for head in range(heads):
        words = {sample.labels[head] for sample in listing.samples}
        if given is not None and heads == 1 and _fits(words, given):
            classes.append(tuple(given))
        elif all(word.isdigit() for word in words):
            classes.append(tuple(str(i) for i in range(max(map(int, words)) + 1)))
        else:
            classes.append(tuple(sorted(words)))
    return tuple(classes)


def _fits(words: set[str], given: Sequence[str]) -> bool:
    if all(word.isdigit() for word in words):
        return max(map(int, words)) == len(given) - 1
    return words == set(given)


def label_ids(
    sample: Sample, classes: Sequence[Sequence[str]], lookup: Sequence[dict[str, int]]
) -> tuple[int, ...]:
    """Ids of a sample's labels: by name, or the number itself.

    Raises:
        KeyError: A label is none of the classes.
    """
    ids = []
    for label, names, index in zip(sample.labels, classes, lookup, strict=True):
        if label in index:
            ids.append(index[label])
        elif label.isdigit() and int(label) < len(names):
            ids.append(int(label))
        else:
            raise KeyError(label)
    return tuple(ids)


def unknown_labels(listing: Listing, classes: Sequence[Sequence[str]]) -> list[str]:
    """One line for each label of a set that is none of the classes, with the nearest one that is."""
    lookup = [{name: i for i, name in enumerate(names)} for names in classes]
    counts: Counter[tuple[int, str]] = Counter()
    first: dict[tuple[int, str], str] = {}
    for sample in listing.samples:
        for head, label in enumerate(sample.labels):
            known = label in lookup[head] or (label.isdigit() and int(label) < len(classes[head]))
            if not known:
                counts[head, label] += 1
                first.setdefault((head, label), sample.origin)
    return [
        f"{first[key]}: label {key[1]!r} ({count} clips) is none of the {len(classes[key[0]])} classes"
        f"{nearest(key[1], classes[key[0]])}"
        for key, count in counts.items()
    ]


def report(source: str, problems: Sequence[str], missing: Sequence[Sample], remedy: str) -> UsageError:
    """One error that names all problems of a set together."""
    lines = [*problems, *(f"{sample.origin}: no such file: {sample.path}" for sample in missing)]
    shown = lines[:SHOWN] + ([f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
    parts = []
    if missing:
        parts.append(f"{len(missing)} files are missing")
    if problems:
        parts.append("1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes")
    return UsageError(source, " and ".join(parts) + ":\n  " + "\n  ".join(shown) + "\n", remedy)
