"""``vidcls split``: cut a labeled set into training and validation lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Choices


def split(
    clips: Annotated[
        str, typer.Argument(metavar="LIST|FOLDER", help="A labeled set, as for `vidcls train`.")
    ],
    output: Annotated[Path, o.output_option(metavar="FOLDER", help="Folder for train.csv and val.csv.")],
    labeled: o.LabeledOptions,
    val: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of each class to validate with.")
    ] = 0.2,
    by: Annotated[
        str,
        typer.Option(
            help="group: keep clips of one source (by file name) together; clip: each clip by itself."
        ),
        Choices(("group", "clip")),
    ] = "group",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same lists.")] = 0,
    overwrite: o.OverwriteOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Split a labeled set into training and validation lists, stratified by class and reproducible.

    Prints the paths of the two lists, for `vidcls train lists/train.csv --val lists/val.csv`.

    Examples:
    - `vidcls split clips/ -o lists/`
    - `vidcls split all.csv -o lists/ --val 0.1 --by clip`
    """
    from vidcls.training.splitting import write_split

    reading = {**labeled.keywords(), "videos": labeled.videos and str(labeled.videos)}
    found = write_split(clips, output, val, by=by, seed=seed, overwrite=overwrite, **reading)
    if not quiet:
        for path, size, groups in zip((found.train, found.val), found.sizes, found.groups, strict=True):
            print_message(f"{path}: {size} clips" + (f" of {groups} sources" if groups != size else ""))
    print(found.train)
    print(found.val)
