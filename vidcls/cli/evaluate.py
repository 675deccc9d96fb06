"""``vidcls evaluate``: measure a model on a labeled set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import keywords

if TYPE_CHECKING:
    from vidcls.evaluation.evaluate import Report
    from vidcls.inference.classifier import Classifier


def evaluate(
    data: Annotated[
        str,
        typer.Option(
            metavar="LIST|FOLDER",
            help="CSV or TSV of path,label; a Kinetics list; or a folder with labels.csv or one subfolder of clips "
            "per class.",
        ),
    ],
    model: o.ModelOptions,
    views: o.ViewOptions,
    machine: o.MachineOptions,
    videos: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder that relative paths in a list start from.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Write the report here; the same command resumes an interrupted run.",
        ),
    ] = None,
    json: o.JsonOption = False,
    worst: Annotated[int, typer.Option(min=0, max=1000, help="Number of worst errors to show.")] = 20,
    quiet: o.QuietOption = False,
) -> int:
    """Measure a model's accuracy on a labeled set.

    Prints top-1, top-5, mean class accuracy, calibration error and the recall of each class. With -o the folder gets
    report.json, report.md, classes.csv, the confusion matrix, and contact sheets of the worst errors.
    """
    load_keywords = keywords(model, views, machine)
    from vidcls.video.reader import VideoReader

    with VideoReader(machine.decoder, machine.decode_timeout) as reader:
        reader.start()
        from vidcls.evaluation.evaluate import Journal, read_samples
        from vidcls.evaluation.evaluate import evaluate as run
        from vidcls.inference.load import load

        classifier = load(**load_keywords, reader=reader)
        samples, ids = read_samples(data, classifier.labels, str(videos) if videos else None)
        about = _about(classifier, data)
        journal = Journal(output, about) if output is not None else None
        if journal is not None and journal.done and not quiet:
            print_message(f"{len(journal.done)} clips were scored before")
        with _Progress(len(samples) - (len(journal.done) if journal else 0), quiet) as progress:
            report = run(classifier, samples, ids, journal=journal, on_clip=progress.add, worst=worst)
        for scored in report.failures:
            print_message(f"vidcls: {scored.error}")
        if output is not None:
            from vidcls.evaluation.report import write_report

            write_report(report, classifier.labels, output, about, reader)
    _print(report, classifier.labels, about, json)
    return 1 if report.failed else 0


def _about(classifier: Classifier, data: str) -> dict[str, Any]:
    """What the scores hang on; a journal is gone on with only if none of it has changed."""
    return {
        "model": classifier.spec.name,
        "weights": classifier.weights,
        "data": str(Path(data).absolute()),
        "input": classifier.spec.input.model_dump(mode="json"),
        "labels": list(classifier.labels),
        "average": classifier.average,
        "fps": classifier.fps,
    }


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.total, self.quiet = total, quiet
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> _Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("scoring", total=self.total)
            self.bar.start()
        return self

    def add(self, scored: object) -> None:
        """Count one clip."""
        if self.bar is not None:
            self.bar.advance(self.task)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def _print(report: Report, labels: tuple[str, ...], about: dict[str, Any], as_json: bool) -> None:
    from vidcls.errors import printable
    from vidcls.evaluation.report import as_json as to_json
    from vidcls.evaluation.report import summary_lines

    if as_json:
        import json

        print(json.dumps(to_json(report, labels, about), ensure_ascii=False))
        return
    for name, value in summary_lines(report):
        print(f"{name:<18} {value:>8}")
    print()
    width = max(len(printable(c.label)) for c in report.classes)
    for c in report.classes:
        if c.clips and c.recall is not None:
            taken = f"  mostly predicted as {printable(c.mistaken_for)}" if c.mistaken_for else ""
            print(f"{printable(c.label):<{width}} {c.recall:>7.1%} of {c.clips:>5}{taken}")
