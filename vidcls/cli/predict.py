"""``vidcls predict``: say what is in each clip."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import say


def predict(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, http(s) addresses, @list.txt, or - for one clip's bytes on stdin.",
        ),
    ],
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    top_k: o.TopKOption = 5,
    views: o.ViewsOption = None,
    crops: o.CropsOption = None,
    frames: o.FramesOption = None,
    stride: o.StrideOption = None,
    fps: o.FpsOption = "auto",
    average: o.AverageOption = o.Average.logits,
    labels: o.LabelsOption = None,
    decoder: o.DecoderOption = o.Decoder.auto,
    decode_timeout: o.DecodeTimeoutOption = 60.0,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = o.Precision.auto,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            envvar="VIDCLS_FORMAT",
            metavar="table|json|jsonl|csv",
            help="Form of the results.  [default: by -o's suffix, else table]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", envvar="VIDCLS_OUTPUT", metavar="FILE", help="Write results here."),
    ] = None,
    registry: o.RegistryOption = None,
    random_weights: o.RandomWeightsOption = False,
    offline: o.OfflineOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Say what is in each clip: its top labels and their scores.

    A clip that cannot be read gets one line on stderr and a row with its error; the others go on.
    """
    rate = o.parse_fps(fps)
    # The decoding process starts first, so that it is ready when torch has been imported.
    from vidcls.video import VideoReader

    with VideoReader(decoder.value, decode_timeout) as reader:
        reader.start()
        from vidcls.loading import load
        from vidcls.output import open_output
        from vidcls.sources import expand

        classifier = load(
            model,
            weights=weights,
            labels=labels,
            device=device,
            precision=precision.value,
            views=views,
            crops=crops,
            frames=frames,
            stride=stride,
            fps=rate,  # type: ignore[arg-type]
            average=average.value,
            registry=registry,
            random_weights=random_weights,
            offline=offline,
            reader=reader,
        )
        if not quiet:
            for note in classifier.notes:
                say(f"{classifier.weights}: {note}")
        failed = 0
        with open_output(output, format, hint=classifier.spec.hint) as out:
            for prediction in classifier.predict_many(expand(source), top_k):
                out.write(prediction.row, seconds=prediction.seconds)
                if prediction.error is not None:
                    failed += 1
                    say(f"vidcls: {prediction.error}")
                elif not quiet and (output is not None or not sys.stdout.isatty()):
                    for warning in prediction.row["warnings"]:
                        say(f"{prediction.row['path']}: {warning}")
    return 1 if failed else 0
