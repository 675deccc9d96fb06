"""``vidcls calibrate``: find out how many views of a clip a model needs."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Options, keywords
from vidcls.cli.view_options import ViewOptions
from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.evaluation.view_curve import Curve, Point
    from vidcls.score.scorer import Scorer
    from vidcls.training.data.listing import Listing
    from vidcls.video.sources import Source


@dataclass(frozen=True)
class ResultOptions(Options):
    """What is to be kept, and where that is written."""

    keep: Annotated[
        float,
        Option(min=0.5, max=0.9999, metavar="SHARE", help="Share of clips whose top label may not change."),
    ] = 0.99
    output: Annotated[
        Path | None,
        o.output_option(metavar="FILE", help="Where the result goes.  [default: its usual place]"),
    ] = None
    overwrite: o.OverwriteOption = False

    def check(self) -> None:
        """Refuse to replace a file that was named.

        Raises:
            UsageError: There is one.
        """
        self.check_place(self.output)

    def check_place(self, path: Path | None) -> None:
        """Refuse to replace a calibration, which may have taken hours; arguments and errors as for `check`."""
        if path is not None and path.exists() and not self.overwrite:
            raise UsageError(str(path), "exists", "add --overwrite, or name another file with -o")


def calibrate(
    model: o.ModelOptions,
    views: ViewOptions,
    machine: o.ManyDevices,
    approximate: o.ApproximateOptions,
    pipeline: o.PipelineOptions,
    inputs: o.InputOptions,
    labeled: o.LabeledOptions,
    result: ResultOptions,
    source: o.SomeSources = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="LIST|FOLDER",
            help="A labeled set, as `vidcls evaluate` takes it, in place of SOURCE: the table then has the accuracy.",
        ),
    ] = None,
    json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> int:
    """Find out when `--views auto` may stop looking at a clip.

    Scores all views of the clips, which need no labels, and prints for each threshold the share of clips that keep
    their top label and the views that are needed. The lowest threshold that keeps enough is written to a file,
    which `--views auto` of predict, score and evaluate finds by itself.

    Examples:
    - `vidcls calibrate clips/`
    - `vidcls calibrate --data val.csv --model vivit-b-16x2-k400-hf --views 8 --keep 0.995`
    """
    from vidcls.evaluation.view_curve import fit_curve, read_outputs
    from vidcls.inference.view_calibration import (
        calibration_of,
        check_views,
        protocol_of,
        usual_place,
        write_calibration,
    )
    from vidcls.score.multi_gpu import local_scorer
    from vidcls.score.setup import Setup

    result.check()
    found, clips = _clips(source, data, inputs, labeled)
    load = {**keywords(model, views, machine, approximate), "clips": len(clips)}
    setup = Setup(load, 1, workers=pipeline.workers, batch=pipeline.batch_size, keep_outputs=True)
    with contextlib.closing(local_scorer(setup)) as scorer:
        settings = scorer.settings()
        check_views(settings)
        if result.output is None:
            result.check_place(usual_place(settings["model"], protocol_of(settings)))
        labels = _labels(found, scorer)
        outputs, failures = read_outputs(scorer, clips, shown=not quiet)
    for error in failures:
        print_message(f"vidcls: {error}")
    curve = fit_curve(
        list(outputs.values()),
        settings["num_crops"],
        probabilities=settings["average"] == "probs",
        keep=result.keep,
        labels=None if labels is None else [labels[path] for path in outputs],
    )
    made = calibration_of(settings, curve.rule, keep=result.keep, **curve.summary())
    path = result.output or usual_place(made.model, made.protocol)
    write_calibration(made, path)
    _print(curve, made.model_dump(), path, json)
    if not quiet:
        _comment(curve, result.keep, path, result.output is None)
    return 1 if failures else 0


def _clips(
    source: list[str] | None, data: str | None, inputs: o.InputOptions, labeled: o.LabeledOptions
) -> tuple[Listing | None, list[Source]]:
    """Return the labeled set, if there is one, and the clips.

    Raises:
        UsageError: There are no clips, both kinds of them, or clips of several labels.
    """
    from vidcls.video.sources import Source, expand

    if bool(source) == (data is not None):
        raise UsageError("SOURCE", "give either clips or --data with a labeled set")
    unused = inputs != o.InputOptions() if data is not None else labeled != o.LabeledOptions()
    if unused:
        other = "--data" if data is None else "SOURCE"
        raise UsageError(
            "SOURCE" if data is None else "data",
            f"was given options that only {other} takes",
            "leave them out",
        )
    if data is None:
        return None, list(expand(source or [], **inputs.keywords()))
    from vidcls.training.data.listing import read_listing

    found = read_listing(
        data, **{**labeled.keywords(), "videos": labeled.videos and str(labeled.videos)}, part="test"
    )
    if found.several:
        raise UsageError("data", "clips have several labels each", "give clips without labels, as SOURCE")
    return found, [Source(sample.path) for sample in found.samples]


def _labels(found: Listing | None, scorer: Scorer) -> dict[str, int] | None:
    if found is None:
        return None
    from vidcls.evaluation.samples import check_samples

    ids = check_samples(found, scorer.labels())
    return {sample.path: first for sample, (first, *_) in zip(found.samples, ids, strict=True)}


def _print(curve: Curve, result: dict[str, Any], path: Path, as_json: bool) -> None:
    if as_json:
        from vidcls.output.text import json_text

        print(json_text({**result, "file": str(path), "sure": curve.sure, **_json_curve(curve)}))
        return
    accuracy = f"{'accuracy':>10}" if curve.accuracy is not None else ""
    print(f"{'threshold':>11}{'kept':>9}{'at least':>10}{'views':>8}{accuracy}")
    before: tuple[float, float] | None = None
    for number, point in enumerate(curve.points):
        if number % 2 and point is not curve.chosen:
            continue
        same, before = before == (point.kept, point.mean_views), (point.kept, point.mean_views)
        if not same or point is curve.chosen:
            print(_line(point, "* " if point is curve.chosen else ""))
    share = "" if curve.accuracy is None else f"{curve.accuracy:>10.1%}"
    print(f"{'all views':>11}{1:>9.1%}{'':>10}{curve.views:>8.2f}{share}")


def _line(point: Point, mark: str) -> str:
    accuracy = "" if point.accuracy is None else f"{point.accuracy:>10.1%}"
    return (
        f"{mark + format(point.threshold, '.3g'):>11}{point.kept:>9.1%}{point.kept_at_least:>10.1%}"
        f"{point.mean_views:>8.2f}{accuracy}"
    )


def _json_curve(curve: Curve) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in curve.points],
        "views": curve.views,
        "accuracy": curve.accuracy,
    }


def _comment(curve: Curve, keep: float, path: Path, usual: bool) -> None:
    """Say what the result is worth, and how it is used."""
    from vidcls.errors import counted, printable
    from vidcls.evaluation.view_curve import clips_needed

    point = curve.chosen
    print_message(
        f"vidcls: {counted(curve.clips, 'clip')}: {point.mean_views:.2f} of {curve.views} views keep {point.kept:.1%} "
        f"of the top labels, with 95 % confidence at least {point.kept_at_least:.1%}"
    )
    if not curve.sure:
        print_message(
            f"vidcls: these are too few clips to be sure of {keep:.4g}: it takes {clips_needed(keep):,} of which none "
            "changes its label, and more where some do"
        )
    use = "--views auto" if usual else f"--views auto --calibration {printable(str(path))}"
    print_message(f"vidcls: wrote {printable(str(path))}, for {use}")
