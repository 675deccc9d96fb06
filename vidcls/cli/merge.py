"""``vidcls merge``: merge what a job array scored into one file."""

from __future__ import annotations

from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.score import FormatOption
from vidcls.errors import counted


def merge(
    part: Annotated[
        list[str],
        typer.Argument(metavar="PART", help="What `vidcls score --shard I/N` wrote: .jsonl or .parquet."),
    ],
    output: Annotated[
        str,
        o.output_option(metavar="FILE", help="The merged file: .jsonl, .csv, .tsv, .parquet or .json."),
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Merge what there is, even if parts are missing or unfinished.")
    ] = False,
    format: FormatOption = None,
    wide: o.WideOption = False,
    overwrite: o.OverwriteOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Merge the outputs of `vidcls score --shard I/N` into one file, each clip once.

    All parts must be present, finished, and scored with the same settings.

    Examples:
    - `vidcls merge part*.jsonl -o all.parquet`
    - `vidcls merge part1.jsonl part2.jsonl -o some.csv --partial`
    """
    from vidcls.score.merge import merge as join

    rows = join(output, part, format=format, wide=wide, partial=partial, overwrite=overwrite)
    if not quiet:
        print_message(f"vidcls: {output} has {counted(rows, 'row')} from {counted(len(part), 'part')}")
