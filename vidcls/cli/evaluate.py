"""``vidcls evaluate``: measure a model on a labeled set."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import keywords
from vidcls.cli.view_options import AutoViewOptions
from vidcls.errors import UsageError, printable


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
    views: AutoViewOptions,
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

    Prints top-1, top-5 (with more than five classes), mean class accuracy, macro F1, calibration error and the recall
    of each class; with --views auto also how many views were needed. With -o the folder gets report.html, a page for a
    browser, report.json, report.md, classes.csv, clips.csv, the confusion matrix, and contact sheets of the worst
    errors.

    Examples:
    - `vidcls evaluate --weights run/best.safetensors --data val.csv -o report/`
    - `vidcls evaluate --model vivit-b-16x2-k400-hf --data kinetics/val/ --json`
    """
    from vidcls.evaluation import multi_label
    from vidcls.evaluation import report as one_label
    from vidcls.evaluation.evaluate import evaluate as run
    from vidcls.evaluation.evaluate import evaluation_setup, spared
    from vidcls.evaluation.samples import check_samples
    from vidcls.score.multi_gpu import local_scorer
    from vidcls.training.data.listing import read_listing

    videos = labeled.videos and str(labeled.videos)
    found = read_listing(data, **{**labeled.keywords(), "videos": videos}, part="test")
    if found.several and views.auto:
        problem = "does not go with clips of several labels"
        raise UsageError("num_views=auto", problem, "give a number of views")
    load = {**keywords(model, views, machine, approximate), "clips": len(found.samples)}
    for note in () if quiet else found.notes:
        print_message(note)
    setup = evaluation_setup(load, pipeline.workers, pipeline.batch_size)
    scorer = local_scorer(setup)
    how: dict[str, Any] = {"folder": output, "overwrite": overwrite, "reporter_options": {"quiet": quiet}}
    with contextlib.closing(scorer):
        labels = scorer.labels()
        ids = check_samples(found, labels)
        about = {"data": str(Path(data).absolute()), **scorer.settings(), "labels": list(labels)}
        if found.several:
            several = multi_label.evaluate(scorer, found.samples, ids, **how)
            failures = [error for _, error in several.failures]
            record = multi_label.as_json(several, about)
            lines, class_lines = several.lines(), several.class_lines()
        else:
            report = run(scorer, found.samples, [first for first, *_ in ids], worst=worst, **how)
            failures = [str(scored.error) for scored in report.failures]
            cost = spared(report, scorer)
            about |= cost
            record = one_label.as_json(report, labels, about)
            lines, class_lines = one_label.summary_lines(report), one_label.class_lines(report)
            lines += [(name.replace("_", " "), f"{share:.2%}") for name, share in cost.items()]
    for error in failures:
        print_message(f"vidcls: {error}")
    if output is not None:
        if found.several:
            names = ((s.path, [labels[i] for i in own]) for s, own in zip(found.samples, ids, strict=True))
            multi_label.write_report(several, output, about, names)
        else:
            with setup.reader() as reader:
                one_label.write_report(report, labels, output, about, reader)
        from vidcls.report.page import PAGE, make_page

        make_page(output, output / PAGE, thumbnails=thumbnails, overwrite=True, quiet=quiet)
    if json:
        from vidcls.output.text import json_text

        print(json_text(record))
    else:
        _print(lines, class_lines)
    return 1 if failures else 0


def _print(figures: list[tuple[str, str]], classes: list[tuple[str, str]]) -> None:
    for name, value in figures:
        print(f"{name:<18} {value:>8}")
    print()
    names = [printable(name) for name, _ in classes]
    for name, (_, text) in zip(names, classes, strict=True):
        print(f"{name:<{max(map(len, names))}} {text}")
