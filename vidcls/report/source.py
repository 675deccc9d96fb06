"""Rows, an evaluation's folder or timelines → what a page shows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcls.errors import UsageError, printable
from vidcls.output.formats import FORMATS
from vidcls.output.text import valid_unicode
from vidcls.report.films import Film, film_of
from vidcls.report.items import Item, item_of

if TYPE_CHECKING:
    from vidcls.evaluation.metrics import Report

MAX_ROWS = 50_000  # clips of one page; a browser holds them in memory
MAX_JSON = 1 << 30  # bytes of a JSON file, which is read whole
SCORE_AGAIN = "give what `vidcls score`, `evaluate` or `timeline` wrote"


@dataclass(frozen=True)
class Source:
    """What a page shows.

    Attributes:
        name: What it was read from, for the page's title.
        items: Its clips.
        settings: Under which they were scored, where that is known.
        more: Whether the file has more rows than a page holds.
        evaluation: Figures, where the clips have true labels.
        labels: The model's classes, of an evaluation.
        data: The set that was evaluated.
        films: Timelines of long videos.
    """

    name: str
    items: list[Item] = field(default_factory=list)
    settings: Mapping[str, Any] | None = None
    more: bool = False
    evaluation: Report | None = None
    labels: tuple[str, ...] = ()
    data: str | None = None
    films: list[Film] = field(default_factory=list)


def read_source(path: Path) -> Source:
    """Read what a page is to show.

    Args:
        path: A file of rows (.jsonl, .parquet, .json), a timeline (.json), or the folder of an evaluation.

    Raises:
        UsageError: It is missing, damaged, or something else.
        DependencyError: Parquet is not installed.
    """
    if path.is_dir():
        return _evaluation(path)
    if not path.is_file():
        raise UsageError(printable(str(path)), "no such file or folder", "check the path")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json(path)
    kind = next((kind for kind in FORMATS.values() if kind.keeps_types and suffix in kind.suffixes), None)
    if kind is None:
        problem = "is not a .jsonl, .parquet or .json file, nor a folder"
        raise UsageError(printable(str(path)), problem, SCORE_AGAIN)
    settings, length = _of_journal(path)
    found, rows = kind.read(str(path), length if kind.appendable else None)
    items, more = _items(path, rows)
    return Source(path.name, items, found or settings, more)


def _of_journal(path: Path) -> tuple[dict[str, Any] | None, int | None]:
    """Return settings and the bytes that count from the journal that `score` keeps beside its rows, if it is there."""
    from vidcls.score.merge import journal_facts

    journal = Path(f"{path}.journal")
    if not journal.is_file():
        return None, None
    try:
        facts = journal_facts(journal)
    except UsageError:  # the rows tell enough without it
        return None, None
    return facts["settings"], facts["length"]


def _items(path: Path, rows: Iterable[Any]) -> tuple[list[Item], bool]:
    """Return the clips of rows, of several about one clip the last, and whether there are more than a page holds."""
    found: dict[str, Item] = {}
    for number, row in enumerate(rows, 1):
        try:
            item = item_of(row)
        except ValueError as error:
            problem = f"row {number} is not a row of vidcls ({error})"
            raise UsageError(printable(str(path)), problem, SCORE_AGAIN) from None
        if len(found) >= MAX_ROWS and item.path not in found:
            return list(found.values()), True
        found[item.path] = item
    return list(found.values()), False


def _json(path: Path) -> Source:
    found = _load(path)
    rows = found if isinstance(found, list) else [found]
    if rows and all(isinstance(row, dict) and {"path", "segments"} <= row.keys() for row in rows):
        return Source(path.name, more=len(rows) > MAX_ROWS, films=_films(path, rows[:MAX_ROWS]))
    if isinstance(found, list) and all(isinstance(row, dict) and "path" in row for row in rows):
        items, more = _items(path, rows)
        return Source(path.name, items, None, more)
    problem = "is neither a list of rows nor a timeline"
    raise UsageError(printable(str(path)), problem, SCORE_AGAIN)


def _films(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[Film]:
    try:
        return [film_of(row) for row in rows]
    except ValueError as error:
        problem = f"is not a timeline of vidcls ({error})"
        raise UsageError(printable(str(path)), problem, SCORE_AGAIN) from None


def _load(path: Path) -> Any:
    name = printable(str(path))
    try:
        if path.stat().st_size > MAX_JSON:
            raise UsageError(name, "is larger than 1 GiB", "write .jsonl or .parquet instead")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(name, f"cannot be read ({error.strerror})", "check the path") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(name, f"is not valid JSON ({str(error)[:100]})", SCORE_AGAIN) from None


def _evaluation(folder: Path) -> Source:
    from vidcls.evaluation.evaluate import ROWS
    from vidcls.evaluation.report import CLIPS, SUMMARY

    for name in (SUMMARY, CLIPS, ROWS):
        if not (folder / name).is_file():
            problem = f"is not the folder of an evaluation: it has no {name}"
            raise UsageError(printable(str(folder)), problem, "name a folder that `vidcls evaluate -o` wrote")
    about = _load(folder / SUMMARY)
    labels = about.get("labels") if isinstance(about, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        problem = "is not the summary of an evaluation"
        raise UsageError(printable(str(folder / SUMMARY)), problem, "evaluate again")
    scored = read_source(folder / ROWS)
    by_path = {valid_unicode(item.path): item for item in scored.items}
    try:
        pairs = [_labeled(by_path, *one) for one in _truths(folder / CLIPS) if one[0] in by_path]
        report = _figures(pairs, labels)
    except (ValueError, KeyError, IndexError, csv.Error) as error:
        problem = f"does not fit the scores ({type(error).__name__}: {str(error)[:100]})"
        raise UsageError(printable(str(folder / CLIPS)), problem, "evaluate again") from None
    name = folder.resolve().name
    items = [item for item, _ in pairs]
    return replace(
        scored, name=name, items=items, evaluation=report, labels=tuple(labels), data=str(about.get("data"))
    )


def _truths(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield path, true label and score of the true label of each clip of the set."""
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield line["path"], line["true_label"], float(line["p_true"] or 0.0)


def _labeled(items: Mapping[str, Item], path: str, label: str, p_true: float) -> tuple[Item, float]:
    return replace(items[path], true_label=label), p_true


def _figures(pairs: list[tuple[Item, float]], labels: list[str]) -> Report:
    from vidcls.evaluation.metrics import Scored, make_report

    ids = {label: number for number, label in reversed(list(enumerate(labels)))}
    strange = {index for item, _ in pairs for index in item.indices} - set(range(len(labels)))
    if strange:
        raise ValueError(f"the model has no class {min(strange)}")
    return make_report(
        [
            Scored(
                item.path,
                ids[str(item.true_label)],
                item.indices,
                tuple(score for _, score in item.top),
                p_true,
                item.error,
            )
            for item, p_true in pairs
        ],
        labels,
        worst=0,
    )
