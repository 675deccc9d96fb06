"""Rows, an evaluation's folder or timelines → what a page shows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcls.errors import UsageError, printable
from vidcls.output.formats import FORMATS
from vidcls.output.text import valid_unicode
from vidcls.report.films import Film, film_of
from vidcls.report.items import Item, get, item_of, number

if TYPE_CHECKING:
    from vidcls.evaluation.metrics import Report

MAX_ROWS = 50_000  # clips of one page; a browser holds them in memory
MAX_JSON = 1 << 28  # bytes of a JSON file, which is read whole
SCORE_AGAIN = "give what `vidcls score`, `evaluate` or `timeline` wrote"


@dataclass(frozen=True)
class Several:
    """Figures of clips with several labels each.

    Attributes:
        figures: Names and values of those of the whole set.
        classes: Support, recall, precision, F1 and average precision of each class.
        thresholds: Score above which each class's F1 is highest, and F1 there.
    """

    figures: list[tuple[str, float]]
    classes: list[tuple[int, float | None, float | None, float | None, float | None]]
    thresholds: list[tuple[float | None, float | None]]


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
    evaluation: Report | Several | None = None
    labels: tuple[str, ...] = ()
    data: str | None = None
    films: list[Film] = field(default_factory=list)

    def figures(self) -> list[tuple[str, float]]:
        """Return names and values of the evaluation's figures, shares from 0 to 1."""
        report = self.evaluation
        if report is None or isinstance(report, Several):
            return [] if report is None else report.figures
        found = {
            "Top-1 accuracy": report.top1,
            "Top-5 accuracy": report.top5,
            "Macro F1": report.means()["macro"]["f1"],
            "Calibration error": report.calibration_error,
        }
        return [(name, value) for name, value in found.items() if value is not None]


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
    known = found if isinstance(found, dict) else settings
    return Source(path.name, items, known, more)


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
    for place, row in enumerate(rows, 1):
        try:
            item = item_of(row)
        except ValueError as error:
            problem = f"row {place} is not a row of vidcls ({error})"
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
            raise UsageError(name, "is larger than 256 MiB", "write .jsonl or .parquet instead")
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
    scored = read_source(folder / ROWS)
    found = replace(scored, name=folder.resolve().name)
    by_path = {valid_unicode(item.path): item for item in scored.items}
    try:
        labels = tuple(get(about, "labels", list, []))
        lines = [line for line in _lines(folder / CLIPS) if line["path"] in by_path]
        items = [replace(by_path[line["path"]], truth=_truth(line)) for line in lines]
        found = replace(found, items=items, labels=labels, data=str(about.get("data")))
        if "true_labels" in (lines or [{}])[0]:
            return replace(found, evaluation=_several(about))
        p_true = [float(line["p_true"] or 0.0) for line in lines]
        return replace(found, evaluation=_figures(items, p_true, labels))
    except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        problem = f"its files do not fit together ({type(error).__name__}: {str(error)[:100]})"
        raise UsageError(printable(str(folder)), problem, "evaluate again") from None


def _lines(path: Path) -> Iterator[dict[str, str]]:
    """Yield what is known of each clip of the set."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _truth(line: Mapping[str, str]) -> tuple[str, ...]:
    if "true_labels" in line:
        return tuple(filter(None, line["true_labels"].split("|")))
    return (line["true_label"],)


def _figures(items: Sequence[Item], p_true: Sequence[float], labels: tuple[str, ...]) -> Report:
    from vidcls.evaluation.metrics import Scored, make_report

    ids = {label: number for number, label in reversed(list(enumerate(labels)))}
    strange = {index for item in items for index in item.indices} - set(range(len(labels)))
    if strange:
        raise ValueError(f"the model has no class {min(strange)}")
    scored = [
        Scored(
            item.path,
            ids[(item.truth or ("",))[0]],
            item.indices,
            tuple(score for _, score in item.top),
            p,
            item.error,
        )
        for item, p in zip(items, p_true, strict=True)
    ]
    return make_report(scored, labels, worst=0)


def _several(about: Mapping[str, Any]) -> Several:
    names = {"mAP": "map", "Macro F1": "macro_f1", "Micro F1": "f1", "Best label right": "top1"}
    return Several(
        [(name, number(about, key) or 0.0) for name, key in names.items()],
        [
            (
                get(one, "clips", int, 0),
                number(one, "recall"),
                number(one, "precision"),
                number(one, "f1"),
                number(one, "average_precision"),
            )
            for one in get(about, "classes", list, [])
        ],
        [(number(one, "best_threshold"), number(one, "best_f1")) for one in get(about, "classes", list, [])],
    )
