"""``vidcls synthesize``: write labeled clips."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import say


class Task(str, Enum):
    """What the clips are about."""

    camera_motion = "camera-motion"


def synthesize(
    task: Annotated[Task, typer.Argument(help="What the clips are about.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the clips and labels.csv to.")],
    clips: Annotated[
        int, typer.Option("--clips", min=1, help="Number of clips; the labels take turns.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same clips.")] = 0,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Film these pictures, not textures made by rule."),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option("--videos", metavar="DIR", help="Film this footage, not textures made by rule."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that holds other things.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Write mp4 clips whose camera motion is known exactly, and labels.csv beside them.

    A run that was broken off goes on when it is started again. Prints the path of labels.csv.
    """
    from vidcls.output.progress import ProgressBar

    try:
        from vidcls.training.camera_motion.synthesize import synthesize as write
        from vidcls.training.data.listing import TABLE
    except ModuleNotFoundError as error:
        from vidcls.errors import DependencyError

        if error.name != "cv2":
            raise
        raise DependencyError("synthesize", "needs OpenCV", "pip install 'vidcls[train]'") from error

    with ProgressBar(task.value, clips, unit="clips", shown=not quiet) as bar:
        write(out, clips, seed, images, videos, overwrite, bar.update)
    if not quiet:
        say(f"{out}: {clips} clips")
    typer.echo(out / TABLE)
    return 0
