"""Rows and evaluations that no model has made, for pages."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.evaluation.evaluate import ROWS
from vidcls.evaluation.report import CLIPS, SUMMARY
from vidcls.output.row import RankedLabel, Row

LABELS = ("jump", "run", "swim", "walk")


def row_of(path: str, scores: Sequence[float], labels: Sequence[str] = LABELS, **more: Any) -> dict[str, Any]:
    """A row as `vidcls score --all-scores` writes it."""
    best = np.argsort(-np.asarray(scores), kind="stable")[:5]
    ranked = [
        RankedLabel(rank=rank, index=int(i), label=labels[i], score=float(scores[i]))
        for rank, i in enumerate(best, 1)
    ]
    row = {
        "duration": 2.5,
        "fps": 25.0,
        "seconds": 0.1,
        "predictions": ranked,
        "scores": list(scores),
        **more,
    }
    return full_row(path, **row)


def full_row(path: str, **fields: Any) -> dict[str, Any]:
    """All columns of a row."""
    from dataclasses import asdict

    known = {"model": "toy", "weights": "toy", "views": 2, "crops": 1, "frames": 8, "stride": 2}
    return asdict(Row(path=path, **{**known, **fields}))


def failed_row(path: str, kind: str = "not_found", problem: str = "no such file") -> dict[str, Any]:
    """The row of a clip that could not be scored."""
    return full_row(path, error=f"{path}: {problem}", error_kind=kind)


def random_rows(number: int, labels: Sequence[str] = LABELS, folder: str = "clips") -> list[dict[str, Any]]:
    """Rows with labels in turn, the scores between a half and one."""
    random = np.random.default_rng(0)
    rows = []
    for clip in range(number):
        scores = random.dirichlet(np.full(len(labels), 0.3))
        scores[clip % len(labels)] += 1
        rows.append(row_of(f"{folder}/{clip:05d}.mp4", (scores / 2).tolist(), labels))
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_evaluation(folder: Path, rows: Sequence[dict[str, Any]], truths: Sequence[str]) -> Path:
    """Write what a page needs of an evaluation's folder."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / ROWS, rows)
    (folder / SUMMARY).write_text(json.dumps({"labels": list(LABELS), "data": "a set"}))
    with (folder / CLIPS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "true_label", "p_true"], extrasaction="ignore")
        writer.writeheader()
        for row, label in zip(rows, truths, strict=True):
            p_true = row["scores"][LABELS.index(label)] if row["scores"] else ""
            writer.writerow({"path": row["path"], "true_label": label, "p_true": p_true})
    return folder
