"""An evaluation's report on disk: JSON, tables, pictures, and contact sheets of the worst errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vidcls.errors import InputError, printable
from vidcls.evaluation.metrics import BINS, Report, Scored
from vidcls.output.csv import csv_bytes
from vidcls.output.plots import new_figure
from vidcls.output.sinks import writing
from vidcls.paths import write_text
from vidcls.video.reader import VideoReader

SUMMARY = "report.json"
"""All figures."""
CLIPS = "clips.csv"
"""True and predicted label of each clip."""
SHEET = (2, 4)
"""Rows and columns of a contact sheet."""
CELL = 160
"""Width and height in pixels of one picture of it."""
CAPTION = 34
MANY_CLASSES = 40
"""Classes above which the confusion matrix is drawn without names and numbers."""


def write_report(
    report: Report, labels: Sequence[str], folder: Path, about: dict[str, Any], reader: VideoReader
) -> None:
    """Write everything into ``folder``.

    Args:
        report: The figures.
        labels: Class names.
        folder: Where to; it is made.
        about: What was evaluated, for the head of the report.
        reader: Reads the clips of the contact sheets.

    Raises:
        OutputError: Something cannot be written.
        DependencyError: matplotlib is not installed.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sheets = contact_sheets(report.worst, labels, folder / "worst", reader)
        draw_confusion(report, labels, folder / "confusion.png")
        draw_calibration(report, folder / "calibration.png")
        _write_clips(report, labels, folder / CLIPS)
        counts = zip(labels, report.confusion.tolist(), strict=True)
        write_csv(folder / "confusion.csv", ("label", *labels), ((label, *row) for label, row in counts))
        write_figures(folder, as_json(report, labels, about), report.classes)
        write_text(folder / "report.md", as_markdown(report, labels, about, sheets))


def write_figures(folder: Path, figures: Mapping[str, Any], classes: Sequence[Any]) -> None:
    """Write ``report.json`` and ``classes.csv``, a line for each of the classes' records."""
    write_text(folder / SUMMARY, json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    write_csv(folder / "classes.csv", [field.name for field in fields(classes[0])], map(astuple, classes))


def as_json(report: Report, labels: Sequence[str], about: dict[str, Any]) -> dict[str, Any]:
    """The whole report in values that JSON holds."""
    return {
        **about,
        **report.summary(),
        **report.means(),
        "classes": [asdict(c) for c in report.classes],
        "confusion": report.confusion.tolist(),
        "calibration": [
            {"clips": n, "confidence": _number(mean), "accuracy": _number(accuracy)}
            for n, mean, accuracy in report.bins
        ],
        "worst": [_clip(scored, labels) for scored in report.worst],
        "failures": [{"path": scored.path, "error": scored.error} for scored in report.failures],
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _clip(scored: Scored, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "path": scored.path,
        "true_label": labels[scored.label],
        "p_true": scored.p_true,
        "predicted_label": labels[scored.top[0]],
        "score": scored.scores[0],
    }


def summary_lines(report: Report) -> list[tuple[str, str]]:
    """Name and value of each figure, for people."""
    lines = [
        ("clips", str(report.clips)),
        ("top-1", f"{report.top1:.2%}"),
        *([] if report.top5 is None else [("top-5", f"{report.top5:.2%}")]),
        ("mean class", f"{report.mean_class:.2%}"),
        ("macro F1", f"{report.means()['macro']['f1']:.2%}"),
        ("calibration error", f"{report.calibration_error:.2%}"),
        *([] if report.mean_views is None else [("views per clip", f"{report.mean_views:.2f}")]),
    ]
    return lines + ([("not scored", str(report.failed))] if report.failed else [])


def class_lines(report: Report) -> list[tuple[str, str]]:
    """Name and recall of each class that has clips, and what they are mistaken for."""
    return [
        (
            c.label,
            f"{c.recall:>7.1%} of {c.clips:>5}"
            + (f"  mostly predicted as {printable(c.mistaken_for)}" if c.mistaken_for else ""),
        )
        for c in report.classes
        if c.clips and c.recall is not None
    ]


def as_markdown(report: Report, labels: Sequence[str], about: dict[str, Any], sheets: dict[str, str]) -> str:
    """The report as a page for people."""
    head = f"# {_cell(str(about.get('model', 'model')))} on {_cell(str(about.get('data', 'data')))}"
    figures = [f"| {name} | {value} |" for name, value in summary_lines(report)]
    lines = [head, "", "| | |", "|---|---|", *figures, "", *_class_lines(report)]
    lines += ["", "![confusion matrix](confusion.png)", "", "![calibration](calibration.png)", ""]
    if report.worst:
        lines += ["## Worst errors", "", *_worst_lines(report, labels, sheets)]
    if report.failures:
        lines += [
            "",
            "## Not scored",
            "",
            *(f"- {printable(str(scored.error))}" for scored in report.failures),
        ]
    return "\n".join(lines) + "\n"


def _class_lines(report: Report) -> list[str]:
    lines = [
        "## Classes",
        "",
        "| label | support | recall | precision | F1 | mostly predicted as |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for c in sorted(report.classes, key=lambda c: (c.recall is None, c.recall)):
        figures = str(c.clips), _share(c.recall), _share(c.precision), _share(c.f1)
        lines.append(f"| {' | '.join((_cell(c.label), *figures, _cell(c.mistaken_for or '')))} |")
    for kind, means in report.means().items():
        lines.append(f"| *{kind} mean* | {report.clips} | {' | '.join(map(_share, means.values()))} | |")
    return lines


def _worst_lines(report: Report, labels: Sequence[str], sheets: dict[str, str]) -> list[str]:
    lines = []
    for scored in report.worst:
        clip = _clip(scored, labels)
        lines.append(
            f"- `{printable(scored.path)}`: {_cell(clip['true_label'])} ({scored.p_true:.1%}), "
            f"predicted {_cell(clip['predicted_label'])} ({clip['score']:.1%})"
        )
        if scored.path in sheets:
            lines += ["", f"  ![{_cell(clip['true_label'])}](worst/{sheets[scored.path]})", ""]
    return lines


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _write_clips(report: Report, labels: Sequence[str], path: Path) -> None:
    """Write a line for each clip of the list, in its order."""
    lines = (
        (s.path, labels[s.label], None, None, None, s.error)
        if s.error is not None
        else (s.path, labels[s.label], labels[s.top[0]], s.scores[0], s.p_true, None)
        for s in report.results
    )
    write_csv(path, ("path", "true_label", "predicted_label", "score", "p_true", "error"), lines)


def write_csv(path: Path, names: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write a table; what is not valid Unicode becomes an escape."""
    write_text(path, csv_bytes([list(names), *map(list, lines)]).decode())


def draw_confusion(report: Report, labels: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix, each row as shares of the class's clips, into a PNG."""
    counts = report.confusion
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    small = len(labels) <= MANY_CLASSES
    side = min(14.0, 3.0 + 0.45 * len(labels)) if small else 12.0
    figure = new_figure("the report's pictures", side, side)
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    if small:
        names = [printable(name)[:30].replace("$", r"\$") for name in labels]
        axes.set_xticks(range(len(labels)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(labels)), names)
        for y, x in zip(*np.nonzero(counts), strict=True):
            axes.text(
                x, y, str(counts[y, x]), ha="center", va="center", color="w" if shares[y, x] > 0.5 else "k"
            )
    figure.savefig(path, format="png", dpi=120)


def draw_calibration(report: Report, path: Path) -> None:
    """Draw accuracy over confidence into a PNG; the diagonal is perfect."""
    figure = new_figure("the report's pictures", 4.5, 4.5)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="0.7")
    edges = np.arange(BINS) / BINS
    heights = [0.0 if math.isnan(accuracy) else accuracy for _, _, accuracy in report.bins]
    axes.bar(edges, heights, 1 / BINS, align="edge", edgecolor="white")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_title(f"calibration error {report.calibration_error:.1%}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    figure.savefig(path, format="png", dpi=120)


class Thumbnail:
    """Shrink a frame (h, w, 3) to fit a square of ``side`` pixels, centered on black; picklable."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(frame)
        picture.thumbnail((self.side, self.side))
        square = Image.new("RGB", (self.side, self.side))
        square.paste(picture, ((self.side - picture.width) // 2, (self.side - picture.height) // 2))
        return np.asarray(square)


def contact_sheets(
    worst: Sequence[Scored], labels: Sequence[str], folder: Path, reader: VideoReader
) -> dict[str, str]:
    """Draw a picture of eight frames for each clip → path of the clip → name of its picture."""
    names: dict[str, str] = {}
    folder.mkdir(exist_ok=True)
    for old in folder.glob("[0-9]*.png"):
        old.unlink()
    for number, scored in enumerate(worst, 1):
        try:
            info = reader.open(scored.path)
            count = SHEET[0] * SHEET[1]
            wanted = (np.arange(count) * info.num_frames + info.num_frames // 2) // count
            frames = reader.read(wanted, Thumbnail(CELL))
        except InputError:
            continue  # the clip went away since it was scored; its line in the list stays
        picture = _sheet([frames.frames[i] for i in np.searchsorted(frames.indices, wanted)])
        caption = (
            f"{Path(scored.path).name}\n{labels[scored.label]} ({scored.p_true:.1%}), "
            f"predicted {labels[scored.top[0]]} ({scored.scores[0]:.1%})"
        )
        text = "\n".join(printable(line)[:100] for line in caption.splitlines())
        # The built-in font knows Latin letters only.
        ImageDraw.Draw(picture).text(
            (6, 4), text.encode("latin-1", "replace").decode("latin-1"), fill="white"
        )
        name = f"{number:02d}-{re.sub(r'[^A-Za-z0-9]+', '-', labels[scored.label]).strip('-')[:40]}.png"
        picture.save(folder / name)
        names[scored.path] = name
    return names


def _sheet(frames: list[np.ndarray]) -> Image.Image:
    rows, columns = SHEET
    sheet = Image.new("RGB", (columns * CELL, rows * CELL + CAPTION))
    for number, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame), (number % columns * CELL, number // columns * CELL + CAPTION))
    return sheet
