"""``vidcls synthesize``: generate labeled clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Choices

TASKS = ("camera-motion",)


def synthesize(
    task: Annotated[str, typer.Argument(help="Classification task: camera-motion."), Choices(TASKS)],
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the clips and labels.csv.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="Number of clips; labels take turns.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same clips.")] = 0,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FOLDER", help="Film these images instead of procedural textures."),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option("--videos", metavar="FOLDER", help="Film this footage instead of procedural textures."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
    quiet: o.QuietOption = False,
) -> int:
    """Generate labeled mp4 clips whose camera motion is known exactly.

    An interrupted run resumes when the command is repeated. Prints the path of labels.csv.

    Examples:
    - `vidcls synthesize camera-motion clips/`
    - `vidcls synthesize camera-motion clips/ --clips 5000 --images photos/`
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

    with ProgressBar(task, clips, unit="clips", shown=not quiet) as bar:
        write(output, clips, seed, images, videos, overwrite, bar.update)
    if not quiet:
        print_message(f"{output}: {clips} clips")
    typer.echo(output / TABLE)
    return 0
