"""Lists of labeled clips as people have them: text → rows of a path and its labels. Imports no torch.

The form of a list is detected from its first lines, or by ``labels_format`` and ``delimiter``; see `FORMS`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidcls.errors import UsageError, nearest
from vidcls.video.manifests import PATH_COLUMNS
from vidcls.video.sources import VIDEO_SUFFIXES, is_video_name
from vidcls.video.span import fragment

FORMS = {
    "csv": "path,label (or another delimiter), with or without a line of column names",
    "space": "path label, separated by spaces (Kinetics lists, MMAction2, UCF-101)",
    "frames": "path frames label, separated by spaces (MMAction2)",
    "folder": "path alone; the name of its folder is the label (UCF-101's test lists)",
    "kinetics": "label,youtube_id,time_start,time_end,split (Kinetics' own CSV)",
    "hmdb51": "NAME_test_splitN.txt of clip and 1 (train), 2 (test) or 0, one file per class (HMDB-51)",
}
DELIMITERS = "\t,;|"
LOOKED_AT = 50  # lines that tell the form of a list
MAX_LIST_BYTES = 256 * 1024**2

PATH_NAMES = frozenset((*PATH_COLUMNS, "clip"))
NAMED = ("label_name", "class_name")
"""Columns whose labels are names, never ids, also where they look like numbers."""
SEVERAL = "labels"
"""The column of lists whose clips have several labels each, with `SEPARATOR` between them."""
SEPARATOR = "|"
LABEL_NAMES = frozenset(("label", "class", "category", "action", SEVERAL, *NAMED))
GROUP_NAMES = ("group", "source")
"""Columns that name the source a clip was cut from, for splits that keep a source on one side."""
START_NAMES = ("start", "start_time", "time_start", "start_seconds", "begin")
END_NAMES = ("end", "end_time", "time_end", "end_seconds", "stop")
"""Columns of the part of a longer video that a clip is, in seconds or h:m:s."""
YOUTUBE_NAMES = frozenset(("youtube_id", "time_start", "time_end"))
_VIDEO = re.compile(
    r"(.*?\.(?:" + "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES)) + r"))\s+(\S.*)", re.IGNORECASE
)

Line = tuple[int, str]
"""A line's number, from 1, and its text."""


@dataclass
class Table:
    """A list as it was read.

    Attributes:
        form: A key of `FORMS`.
        rows: Line number and cells: a path and its labels, or the columns of ``kinetics``.
        header: Names of the columns, in lower case, where the list has such a line.
        problems: Lines that make no sense.
        notes: What was assumed.
        groups: Line number → what the clip was cut from, where a column says so.
        named: Labels are names, never ids.
        several: A clip may have several labels, which are still one text.
    """

    form: str
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    header: list[str] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    groups: dict[int, str] = field(default_factory=dict)
    named: bool = False
    several: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is known of a list before it is read.

    Attributes:
        heads: Names of the labels that each clip has.
        form: A key of `FORMS`; None: to be found out.
        delimiter: Between the columns of ``csv``; None: to be found out.
        several: A clip may have several labels.
    """

    heads: tuple[str, ...] = ("label",)
    form: str | None = None
    delimiter: str | None = None
    several: bool = False

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in FORMS:
            problem = f"{self.form!r} is not known{nearest(self.form, FORMS)}"
            raise UsageError("labels_format", problem, f"choose from {', '.join(FORMS)}")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise UsageError("delimiter", f"{self.delimiter!r} is not one character", "such as ';'")


def read_table(path: Path, wanted: Wanted) -> Table:
    """Read a list of labeled clips.

    Raises:
        UsageError: It cannot be read, or its form is not known.
    """
    lines = read_lines(path)
    if not lines:
        return Table("csv")
    form, delimiter = wanted.form, wanted.delimiter
    if form in (None, "csv", "kinetics"):
        headed = _headed(lines[0][1], wanted)
        if headed is not None:
            return _with_header(path, lines, *headed, wanted)
    if form == "kinetics":
        raise UsageError(f"{path}:1", "has no column youtube_id", f"expected {FORMS['kinetics']}")
    if form is None and delimiter is None:
        form, delimiter = _guess(path, lines[:LOOKED_AT], wanted)
    table = Table(form or "csv", named=form == "folder", several=wanted.several)
    if table.form == "csv":
        return _read_delimited(path, lines, delimiter or _best_delimiter(lines[:LOOKED_AT]), wanted)
    if table.form == "frames":
        table.notes.append(f"{path.name}: read as path, number of frames, label")
    if table.form == "folder":
        table.notes.append(f"{path.name}: names no labels; each clip's folder is its label")
    for number, line in lines:
        cells = _CELLS[table.form](line, len(wanted.heads))
        if cells is None:
            table.problems.append(f"{path.name}:{number}: is not of the form {FORMS[table.form]}")
        else:
            table.rows.append((number, cells))
    return table


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a text file that are not blank.

    Raises:
        UsageError: It cannot be read, or is not a text.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(str(path), f"larger than {MAX_LIST_BYTES >> 20} MiB", "is it a list of clips?")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise UsageError(str(path), problem, "give a text file") from None
    except UnicodeDecodeError:
        problem = "cannot be read (it is not UTF-8 text)"
        remedy = "save a list as UTF-8, or give a folder with one folder a class"
        raise UsageError(str(path), problem, remedy) from None
    if "\0" in text:
        raise UsageError(str(path), "cannot be read (it holds NUL bytes)", "give a text file")
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


# With column names


def _headed(line: str, wanted: Wanted) -> tuple[str, list[str]] | None:
    """Return the delimiter and the names of a first line of column names."""
    for delimiter in wanted.delimiter or DELIMITERS:
        names = [name.strip().lower() for name in _split(line, delimiter)]
        if _is_kinetics(names, wanted.heads) or columns_of(names, wanted.heads) is not None:
            return delimiter, names
    return None


def _is_kinetics(header: Sequence[str], heads: Sequence[str]) -> bool:
    """Whether the columns are Kinetics' own; a list with a path may have a start and an end too."""
    return bool(YOUTUBE_NAMES & set(header)) and ("youtube_id" in header or columns_of(header, heads) is None)


def columns_of(header: Sequence[str], heads: Sequence[str]) -> list[int] | None:
    """Return the numbers of the path's and the labels' columns, or None where these are not column names."""
    paths = [i for i, name in enumerate(header) if name in PATH_NAMES]
    if len(heads) == 1:
        labels = [i for i, name in enumerate(header) if name in LABEL_NAMES | {heads[0].lower()}][:1]
    else:
        labels = [header.index(name.lower()) for name in heads if name.lower() in header]
    return [paths[0], *labels] if paths and len(labels) == len(heads) else None


def _with_header(path: Path, lines: list[Line], delimiter: str, header: list[str], wanted: Wanted) -> Table:
    if _is_kinetics(header, wanted.heads):
        missing = [name for name in ("label", "youtube_id") if name not in header]
        if missing:
            problem = f"has no column {' and '.join(missing)}"
            raise UsageError(str(path), problem, "give the training or validation file")
        rows = [(number, _split(line, delimiter)) for number, line in lines[1:]]
        return Table("kinetics", rows, header)
    columns = columns_of(header, wanted.heads)
    assert columns is not None
    wanted = replace(wanted, several=wanted.several or header[columns[1]] == SEVERAL)
    table = _rows(path, lines[1:], delimiter, columns, wanted.several)
    table.header, table.named = header, header[columns[1]] in NAMED
    group = next((i for i, name in enumerate(header) if name in GROUP_NAMES and i not in columns), None)
    if group is not None:
        cells = {number: _split(line, delimiter) for number, line in lines[1:]}
        table.groups = {n: row[group].strip() for n, row in cells.items() if len(row) > group}
    _add_parts(path, lines[1:], delimiter, table)
    table.notes.append(
        f"{path.name}: line {lines[0][0]} is read as column names: {', '.join(header[c] for c in columns)}"
    )
    return table


def _add_parts(path: Path, lines: list[Line], delimiter: str, table: Table) -> None:
    """Name the part of the video that each clip is, where the list has columns of starts and ends."""
    assert table.header is not None
    columns = [
        next((i for i, name in enumerate(table.header) if name in names), None)
        for names in (START_NAMES, END_NAMES)
    ]
    if columns == [None, None]:
        return
    texts = dict(lines)
    for number, row in table.rows:
        cells = _split(texts[number], delimiter)
        start, end = ("" if c is None or c >= len(cells) else cells[c].strip() for c in columns)
        try:
            row[0] += fragment(start, end)
        except ValueError as error:
            table.problems.append(f"{path.name}:{number}: {error}")
    names = [table.header[c] for c in columns if c is not None]
    table.notes.append(f"{path.name}: clips are parts of videos, by the columns {' and '.join(names)}")


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r")], delimiter=delimiter), [])
    except csv.Error:
        return [line]


def _rows(path: Path, lines: list[Line], delimiter: str, columns: list[int], several: bool = False) -> Table:
    table = Table("csv", several=several)
    for number, line in lines:
        where, cells = f"{path.name}:{number}", _split(line, delimiter)
        if len(cells) <= max(columns):
            table.problems.append(f"{where}: {len(cells)} columns where {max(columns) + 1} are needed")
            continue
        name, *labels = (cells[c].strip() for c in columns)
        if not name or not (several or all(labels)):  # where there may be several labels, there may be none
            table.problems.append(f"{where}: the {'label' if name else 'path'} is empty")
        else:
            table.rows.append((number, [name, *labels]))
    return table


# Without


def _guess(path: Path, lines: list[Line], wanted: Wanted) -> tuple[str, str | None]:
    """Tell the form of a list without column names by its first lines.

    Raises:
        UsageError: It is none of `FORMS`.
    """
    texts = [line.strip() for _, line in lines]
    numbers = [_trailing_numbers(text) for text in texts]
    plain = not any(delimiter in text for text in texts for delimiter in DELIMITERS)
    if all(numbers) and (plain or all(map(_VIDEO.fullmatch, texts))):
        return "space" if wanted.several else _guess_numbers(path, set(numbers), len(wanted.heads)), None
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _best_delimiter(lines)
    if any(len(_split(text, delimiter)) > 1 for text in texts):
        return "csv", delimiter
    if all(map(_VIDEO.fullmatch, texts)):
        return "space", None
    if all(is_video_name(text) and os.path.dirname(text) for text in texts):
        return "folder", None
    raise UsageError(
        f"{path}:{lines[0][0]}",
        f"{texts[0][:80]!r} is not a path and a label",
        f"expected path,label or one of labels_format={'|'.join(FORMS)}; another separator: delimiter=';'",
    )


def _guess_numbers(path: Path, counts: set[int], heads: int) -> str:
    if counts == {heads}:
        return "space"
    if counts == {2} and heads == 1:
        return "frames"
    raise UsageError(
        str(path),
        f"has {' or '.join(map(str, sorted(counts)))} numbers after a path, {heads} expected",
        "one label a clip is expected: say labels_format=frames if there are counts of frames, multi_label=True if "
        "clips have several labels",
    )


def _trailing_numbers(text: str) -> int:
    """Count the numbers after a path."""
    video = _VIDEO.fullmatch(text)
    words = video[2].split() if video else text.split()[1:]
    if video and not all(map(is_number, words)):
        return 0
    count = 0
    while count < len(words) and is_number(words[-1 - count]):
        count += 1
    return count


def is_number(word: str) -> bool:
    """Whether a label may be the number of a class: ``²`` and ``007`` are names, and so is what is too large."""
    return word.isascii() and word.isdigit() and len(word) <= 6 and (word == "0" or word[0] != "0")


def _best_delimiter(lines: list[Line]) -> str:
    """Return the delimiter that most lines have, the one beside names of videos first."""

    def fits(delimiter: str) -> tuple[int, int]:
        rows = [cells for _, line in lines if len(cells := _split(line, delimiter)) > 1]
        return sum(any(is_video_name(cell.strip()) for cell in row) for row in rows), len(rows)

    return max(",\t;|", key=fits)


def _read_delimited(path: Path, lines: list[Line], delimiter: str, wanted: Wanted) -> Table:
    first = [cell.strip() for cell in _split(lines[0][1], delimiter)]
    if len(first) > len(wanted.heads) and not _is_path(first[0], path):
        raise UsageError(
            f"{path}:{lines[0][0]}",
            f"the columns are called {', '.join(map(repr, first))[:200]}",
            f"call them path,{','.join(wanted.heads)}, or leave the header out",
        )
    return _rows(path, lines, delimiter, list(range(len(wanted.heads) + 1)), wanted.several)


def several_labels(text: str) -> tuple[str, ...]:
    """The labels in one cell: ``run|jump``, or numbers with spaces between them (MMAction2), each once."""
    words = text.split(SEPARATOR)
    if len(words) == 1 and all(map(is_number, text.split())):
        words = text.split()
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))


def _is_path(cell: str, path: Path) -> bool:
    """Whether a first cell is a file or called like one, and not the name of a column."""
    if is_video_name(cell) or "/" in cell or "\\" in cell:
        return True
    try:
        return bool(cell) and (path.parent / cell).exists()
    except (OSError, ValueError):
        return False


def _space_cells(line: str, heads: int) -> list[str] | None:
    text = line.strip()
    video = _VIDEO.fullmatch(text)
    if video is None:
        cells = text.rsplit(None, heads)
    else:
        cells = [video[1], video[2]] if heads == 1 else [video[1], *video[2].split()]
    return cells if len(cells) == heads + 1 else None


def _frames_cells(line: str, heads: int) -> list[str] | None:
    text = line.strip()
    video = _VIDEO.fullmatch(text)
    words = [video[1], *video[2].split()] if video else text.rsplit(None, heads + 1)
    return [words[0], *words[2:]] if len(words) == heads + 2 and words[1].isdigit() else None


def _folder_cells(line: str, heads: int) -> list[str] | None:
    text = line.strip()
    folder = re.split(r"[/\\]", text)[-2:-1]
    return [text, folder[0]] if heads == 1 and folder and folder[0] not in ("", ".", "..") else None


def _hmdb_cells(line: str, heads: int) -> list[str] | None:
    cells = line.strip().rsplit(None, 1)
    return cells if heads == 1 and len(cells) == 2 and cells[1] in ("0", "1", "2") else None


_CELLS = {"space": _space_cells, "frames": _frames_cells, "folder": _folder_cells, "hmdb51": _hmdb_cells}


# HMDB-51

_HMDB = re.compile(r"(.+)_test_split([0-9]+)\.txt")


def hmdb_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Yield the class and the file of HMDB-51's lists: of split 1 in a folder, or of those that a pattern matches."""
    pattern = source / "*_test_split1.txt" if source.is_dir() else source
    for path in sorted(pattern.parent.glob(pattern.name)):
        if found := _HMDB.fullmatch(path.name):
            yield found[1], path
