"""``vidcls explain``: where and when a model looked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Choices, Options, keywords
from vidcls.cli.values import whole_numbers
from vidcls.cli.view_options import ViewOptions
from vidcls.errors import UsageError, printable


@dataclass(frozen=True)
class ExplainOptions(Options):
    """What is explained, and how."""

    target: Annotated[
        str | None,
        Option(metavar="LABEL|rank N", help="Class to explain.  [default: the best]"),
    ] = None
    method: Annotated[
        str,
        Option(
            help="rollout: what the attention followed; gradient: what supports the class; occlusion: what the class "
            "loses when a part is covered."
        ),
        Choices("vidcls.explain.explanation:METHODS"),
    ] = "gradient"
    cells: Annotated[
        str | None,
        Option(metavar="TxHxW", help="Parts to cover one by one, with occlusion.  [default: 8x7x7 at most]"),
    ] = None


def explain(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A file, a URL, or - for a clip on stdin.")],
    output: Annotated[
        Path,
        o.output_option(
            metavar="FILE", help="A contact sheet (.png), an animation (.gif, .mp4) or the numbers (.npz)."
        ),
    ],
    how: ExplainOptions,
    model: o.ModelOptions,
    views: ViewOptions,
    machine: o.MachineOptions,
    overwrite: o.OverwriteOption = False,
    quiet: o.QuietOption = False,
) -> int:
    """Show where and when a model looked in a clip: heat over its frames, and the weight of each moment.

    Examples:
    - `vidcls explain clip.mp4 -o clip.png`
    - `vidcls explain clip.mp4 --method occlusion --target "rank 2" -o clip.mp4`
    """
    from vidcls.explain.explanation import SUFFIXES
    from vidcls.inference.load import load
    from vidcls.output.files import check_suffix
    from vidcls.output.progress import ProgressBar
    from vidcls.output.sinks import check_absent, check_not_input
    from vidcls.video.sources import expand

    check_suffix(output, dict.fromkeys(SUFFIXES))
    check_absent(output, overwrite)
    cells = _cells(how.cells)
    sources = list(expand([clip], True))
    if len(sources) != 1:
        raise UsageError(clip, f"stands for {len(sources)} clips", "name one clip")
    check_not_input(output, [sources[0].location])
    with (
        load(**keywords(model, views, machine), clips=1) as classifier,
        ProgressBar("covering", unit="cells", shown=not quiet) as bar,
    ):
        found = classifier.explain(
            sources[0],
            target=how.target,
            method=how.method,
            cells=cells,
            progress=bar.update,
        )
        found.save(output)
    if not quiet:
        for warning in found.warnings:
            print_message(f"{printable(found.path)}: {warning}")
        view, step, row, column = found.hottest
        start = found.times[view, step * found.times.shape[1] // found.heat.shape[1]]
        print_message(
            f"vidcls: {printable(found.label)} {found.score:.3f}; hottest in view {view + 1} at {start:.2f} s, "
            f"row {row + 1} of {found.heat.shape[2]}, column {column + 1} of {found.heat.shape[3]}; wrote {output}"
        )
    return 0


def _cells(text: str | None) -> Any:
    if text is None:
        return None
    found = whole_numbers(text.lower(), "x", 999)
    if len(found) != 3:
        raise UsageError("cells", f"{text[:40]!r} is not TxHxW", "give it as in 8x7x7")
    return found
