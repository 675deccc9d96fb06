"""``vidcls evaluate``: measure a model on a labeled set."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import keywords

if TYPE_CHECKING:
    from vidcls.evaluation.metrics import Report
    from vidcls.score.scorer import Scorer
    from vidcls.training.data.listing import Listing


def evaluate(
    data: Annotated[
        str,
        typer.Option(
            metavar="LIST|FOLDER",
            help="A list of path,label, of Kinetics, UCF-101, HMDB-51 or MMAction2; or a folder with labels.csv or one "
            "subfolder of clips per class.",
        ),
    ],
    model: o.ModelOptions,
    views: o.ViewOptions,
    machine: o.ManyDevices,
    approximate: o.ApproximateOptions,
    pipeline: o.PipelineOptions,
    labeled: o.LabeledOptions,
    output: Annotated[
        Path | None,
        o.output_option(
            metavar="FOLDER", help="Write the report here; the same command resumes an interrupted run."
        ),
    ] = None,
    overwrite: o.OverwriteOption = False,
    json: o.JsonOption = False,
    worst: Annotated[int, typer.Option(min=0, max=1000, help="Number of worst errors to show.")] = 20,
    thumbnails: o.ThumbnailsOption = 200,
    quiet: o.QuietOption = False,
) -> int:
    """Measure a model's accuracy on a labeled set.

    Prints top-1, top-5 (of more than five classes), mean class accuracy, macro F1, calibration error and the recall of
    each class. With -o the folder gets report.html, a page for a browser, report.json, report.md, classes.csv,
    clips.csv, the confusion matrix, and contact sheets of the worst errors.

    Examples:
    - `vidcls evaluate --weights run/best.safetensors --data val.csv -o report/`
    - `vidcls evaluate --model vivit-b-16x2-k400-hf --data kinetics/val/ --json`
    """
    from vidcls.evaluation.evaluate import evaluate as run
    from vidcls.evaluation.evaluate import evaluation_setup
    from vidcls.evaluation.samples import read_samples
    from vidcls.score.multi_gpu import local_scorer
    from vidcls.training.data.listing import read_listing

    found = read_listing(
        data, **{**labeled.keywords(), "videos": labeled.videos and str(labeled.videos)}, part="test"
    )
    load = {**keywords(model, views, machine, approximate), "clips": len(found.samples)}
    for note in () if quiet else found.notes:
        print_message(note)
    setup = evaluation_setup(load, pipeline.workers, pipeline.batch_size)
    scorer = local_scorer(setup)
    if found.several:
        return _evaluate_several(scorer, found, output, overwrite, json, quiet, thumbnails)
    with contextlib.closing(scorer):
        samples, ids = read_samples(found, scorer.labels())
        options = {"quiet": quiet}
        report = run(
            scorer, samples, ids, folder=output, overwrite=overwrite, worst=worst, reporter_options=options
        )
    for scored in report.failures:
        print_message(f"vidcls: {scored.error}")
    about = {"data": str(Path(data).absolute()), **scorer.settings(), "labels": list(scorer.labels())}
    if output is not None:
        from vidcls.evaluation.report import write_report
        from vidcls.report.page import PAGE, make_page

        with setup.reader() as reader:
            write_report(report, scorer.labels(), output, about, reader)
        make_page(output, output / PAGE, thumbnails=thumbnails, overwrite=True, quiet=quiet)
    _print(report, scorer.labels(), about, json)
    return 1 if report.failed else 0


def _evaluate_several(
    scorer: Scorer,
    found: Listing,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    thumbnails: int,
) -> int:
    """Measure a model on clips with several labels each."""
    from vidcls.errors import printable
    from vidcls.evaluation import multi_label
    from vidcls.evaluation.samples import check_samples
    from vidcls.output.text import json_text

    with contextlib.closing(scorer):
        ids = check_samples(found, scorer.labels())
        options = {"quiet": quiet}
        report = multi_label.evaluate(
            scorer, found.samples, ids, folder=output, overwrite=overwrite, reporter_options=options
        )
    for _, error in report.failures:
        print_message(f"vidcls: {error}")
    about = {"data": str(Path(found.source).absolute()), **scorer.settings(), "labels": list(scorer.labels())}
    if output is not None:
        from vidcls.report.page import PAGE, make_page

        multi_label.write_report(report, output, about)
        names = [[scorer.labels()[i] for i in each] for each in ids]
        multi_label.write_clips(output, found.samples, names)
        make_page(output, output / PAGE, thumbnails=thumbnails, overwrite=True, quiet=quiet)
    if as_json:
        print(json_text(multi_label.as_json(report, about)))
        return 1 if report.failed else 0
    for name, value in report.lines():
        print(f"{name:<18} {value:>8}")
    print()
    width = max(len(printable(c.label)) for c in report.classes)
    for c in report.classes:
        if c.average_precision is not None:
            print(
                f"{printable(c.label):<{width}}  average precision {c.average_precision:>6.1%} of {c.clips:>5}"
            )
    return 1 if report.failed else 0


def _print(report: Report, labels: tuple[str, ...], about: dict[str, Any], as_json: bool) -> None:
    from vidcls.errors import printable
    from vidcls.evaluation.report import as_json as to_json
    from vidcls.evaluation.report import summary_lines

    if as_json:
        from vidcls.output.text import json_text

        print(json_text(to_json(report, labels, about)))
        return
    for name, value in summary_lines(report):
        print(f"{name:<18} {value:>8}")
    print()
    width = max(len(printable(c.label)) for c in report.classes)
    for c in report.classes:
        if c.clips and c.recall is not None:
            taken = f"  mostly predicted as {printable(c.mistaken_for)}" if c.mistaken_for else ""
            print(f"{printable(c.label):<{width}} {c.recall:>7.1%} of {c.clips:>5}{taken}")
