"""``vidcls quantize``: an int8 engine of a model, calibrated on clips, and what it changes."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import keywords


def quantize(
    source: Annotated[
        list[str],
        typer.Argument(metavar="CLIP...", help="Clips like those to be classified; a few dozen suffice."),
    ],
    model: o.ModelOptions,
    views: o.ViewOptions,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of path,label: accuracy before and after is reported."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="Clips to use at most.")] = 32,
    json: o.JsonOption = False,
) -> None:
    """Make the int8 engine that `--precision int8` runs, and say how much it changes on these clips.

    Every fourth clip is kept from the calibration where there are at least four; the report is about these.
    """
    from vidcls.inference.quantize_clips import quantize_model
    from vidcls.video.sources import expand

    report = quantize_model(
        expand(source),
        limit=limit,
        truth=truth,
        say=print_message,
        **keywords(model, views),
    )
    if json:
        print(json_module.dumps(report, indent=2))
        return
    for name, value in report.items():
        print(f"{name}\t{value}")
