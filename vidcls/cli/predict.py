"""``vidcls predict``: say what is in each clip."""

from __future__ import annotations

import sys
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import say

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier, Prediction
from vidcls.cli.whole import engine_for_features, parse_frames, predict_by_features


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
    frames: o.FramesOrAllOption = None,
    stride: o.StrideOption = None,
    fps: o.FpsOption = "auto",
    features: o.FeaturesOption = None,
    average: o.AverageOption = o.Average.logits,
    labels: o.LabelsOption = None,
    decoder: o.DecoderOption = o.Decoder.auto,
    decode_timeout: o.DecodeTimeoutOption = 60.0,
    device: o.DeviceOption = "auto",
    precision: o.PrecisionOption = o.Precision.auto,
    engine: o.EngineOption = o.EngineName.auto,
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
    count, every_frame = parse_frames(frames, views)
    by_features = every_frame or features is not None
    # The decoding process starts first, so that it is ready when torch has been imported.
    from vidcls.video.reader import VideoReader

    with VideoReader(decoder.value, decode_timeout) as reader:
        reader.start()
        from vidcls.inference.load import load, weights_file
        from vidcls.output.writers import open_output
        from vidcls.video.sources import expand

        clips = expand(source)
        # How many there are decides whether a faster engine is worth making; a huge folder need not be listed for it.
        ahead = list(islice(clips, 256))
        classifier = load(
            model,
            weights=weights,
            labels=labels,
            device=device,
            precision=precision.value,
            engine=engine_for_features(engine.value) if by_features else engine.value,
            clips=len(ahead),
            views=views,
            crops=crops,
            frames=count,
            stride=stride,
            fps=rate,
            average=average.value,
            registry=registry,
            random_weights=random_weights,
            offline=offline,
            reader=reader,
        )
        if not quiet:
            for note in classifier.notes:
                say(f"{classifier.weights}: {note}")
        predictions = classifier.predict_many(chain(ahead, clips), top_k)
        if by_features:
            found = weights_file(
                model, weights=weights, registry=registry, random_weights=random_weights, offline=offline
            )
            predictions = predict_by_features(
                classifier,
                reader,
                chain(ahead, clips),
                top_k,
                every_frame=every_frame,
                features=features,
                weights=found,
                quiet=quiet,
            )
        failed = 0
        with open_output(output, format, hint=classifier.spec.hint) as out:
            for prediction in predictions:
                out.write(prediction.row, seconds=prediction.seconds)
                if prediction.error is not None:
                    failed += 1
                    say(f"vidcls: {prediction.error}")
                    continue
                if not quiet and (output is not None or not sys.stdout.isatty()):
                    for warning in prediction.row["warnings"]:
                        say(f"{prediction.row['path']}: {warning}")
                if verbose:
                    say(f"{prediction.row['path']}: {_how(classifier, prediction)}")
    return 1 if failed else 0


def _how(classifier: Classifier, prediction: Prediction) -> str:
    """Say what ran the model, for how long, and what the views shared."""
    engine = classifier.engine
    text = f"{engine.name} {engine.precision} on {engine.device}, {prediction.seconds:.2f} s"
    if prediction.units is None:
        return text
    units, encoded = prediction.units
    saved = 100 * (1 - encoded / units)
    return f"{text}; of {units} frames or tubelets {encoded} were encoded ({saved:.0f} % saved by sharing)"
