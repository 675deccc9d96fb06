"""``vidcls merge``: join what the parts of a job array scored."""

from __future__ import annotations

from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import say


def merge(
    output: Annotated[str, typer.Argument(metavar="OUT", help="The joined file: .jsonl, .csv or .parquet.")],
    part: Annotated[
        list[str],
        typer.Argument(metavar="PART...", help="What `vidcls score --shard I/N` wrote: .jsonl or .parquet."),
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Join what there is, though parts are missing or not finished.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    quiet: o.QuietOption = False,
) -> None:
    """Join the outputs of `vidcls score --shard I/N`, each clip once.

    Parts must have been scored with the same settings, all of them, and to their end.
    """
    from vidcls.score.merge import merge as join

    rows = join(output, part, partial=partial, overwrite=overwrite)
    if not quiet:
        say(f"vidcls: {output} has {rows:,} rows of {len(part)} parts")
