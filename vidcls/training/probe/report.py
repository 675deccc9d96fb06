"""What a probe's run leaves in its folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidcls.evaluation.multi_label import ClassFigures
from vidcls.training import checkpointing
from vidcls.training.probe.figures import Figures, SeveralFigures

REPORT = "probe.json"
CONFUSION = "confusion.csv"
CLASSES = "classes.csv"


def write_report(
    out: Path, about: dict[str, Any], labels: Sequence[str], found: Figures | SeveralFigures | None
) -> None:
    """Write the class names, what is known about a probe, and its confusion matrix or the figures of each class.

    Raises:
        OutputError: They cannot be written.
    """
    checkpointing.write_text(out / checkpointing.LABELS, "".join(f"{name}\n" for name in labels))
    checkpointing.write_text(out / REPORT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    if isinstance(found, SeveralFigures):
        rows = (list(asdict(one).values()) for one in found.classes)
        _write_table(out / CLASSES, [list(ClassFigures.__dataclass_fields__), *rows])
    elif found is not None:
        rows = ([name, *row] for name, row in zip(labels, found.confusion, strict=True))
        _write_table(out / CONFUSION, [["true label", *labels], *rows])


def _write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with checkpointing.replaced(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
