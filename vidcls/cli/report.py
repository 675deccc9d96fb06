"""``vidcls report``: a page about results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message


def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="What `vidcls score`, `predict` or `timeline` wrote (.jsonl, .parquet, .json), or the folder that "
            "`vidcls evaluate` wrote.",
        ),
    ],
    output: Annotated[Path, o.output_option(metavar="FILE", help="The page to write: .html.")],
    thumbnails: o.ThumbnailsOption = 200,
    thumbnail_time: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds to spend on decoding thumbnails, at most.")
    ] = 60.0,
    overwrite: o.OverwriteOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Write a report page: one HTML file that opens offline in any browser.

    It has a summary, a table to sort and filter, frames of each clip, and the errors; for an evaluation also the
    confusion matrix; for timelines, bars to scrub. A video in the page's folder plays in it.

    Examples:
    - `vidcls report scores.jsonl -o report.html`
    - `vidcls report evaluation/ -o evaluation.html --thumbnails 1000`
    """
    from vidcls.report.page import make_page

    found = make_page(
        source, output, thumbnails=thumbnails, seconds=thumbnail_time, overwrite=overwrite, quiet=quiet
    )
    if not quiet:
        count, noun = (len(found.films), "video") if found.films else (len(found.items), "clip")
        print_message(f"vidcls: {output} shows {count:,} {noun}{'' if count == 1 else 's'}")
