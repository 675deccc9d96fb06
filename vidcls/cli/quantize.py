"""``vidcls quantize``: an int8 engine of a model, calibrated on clips, and what it changes."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import say


def quantize(
    source: Annotated[
        list[str],
        typer.Argument(metavar="CLIP...", help="Clips like those that will be classified; some tens do."),
    ],
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    views: o.ViewsOption = None,
    crops: o.CropsOption = None,
    frames: o.FramesOption = None,
    stride: o.StrideOption = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of path,label: accuracy before and after is reported."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="Clips to use at most.")] = 32,
    registry: o.RegistryOption = None,
    offline: o.OfflineOption = False,
    json: Annotated[bool, typer.Option("--json", help="The report, as JSON.")] = False,
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
        say=say,
        model=model,
        weights=weights,
        views=views,
        crops=crops,
        frames=frames,
        stride=stride,
        registry=registry,
        offline=offline,
    )
    if json:
        print(json_module.dumps(report, indent=2))
        return
    for name, value in report.items():
        print(f"{name}\t{value}")
