"""``vidcls predict``: classify clips."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from vidcls.cli import options as o
from vidcls.cli import print_error, print_message
from vidcls.cli.groups import keywords
from vidcls.cli.whole_video import engine_for_features, predict_by_features

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.prediction import Prediction
    from vidcls.video.reader import VideoReader
    from vidcls.video.sources import Source

ANNOUNCED = 256  # clips that are counted beforehand, to choose an engine by


def predict(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, http(s) URLs, @list.txt, or - for one clip on stdin.",
        ),
    ],
    model: o.ModelOptions,
    views: o.WholeVideoOptions,
    machine: o.MachineOptions,
    output: o.OutputOptions,
    top_k: o.TopKOption = 5,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Classify clips: print the top labels of each and their scores.

    A clip that cannot be read gets one line on stderr and a row with its error; the others go on.
    """
    from vidcls.output.writers import check_output, open_output

    check_output(output.output, output.format, overwrite=output.overwrite)
    load_keywords = keywords(model, views, machine)
    if views.every_frame or views.features is not None:
        load_keywords["engine"] = engine_for_features(machine.engine)
    # The decoding process starts first, so that it is ready when torch has been imported.
    from vidcls.video.reader import VideoReader

    with VideoReader(machine.decoder, machine.decode_timeout) as reader:
        reader.start()
        from vidcls.inference.load import load
        from vidcls.video.sources import expand

        clips = expand(source)
        # How many there are decides whether a faster engine is worth making; a huge folder need not be listed for it.
        ahead = list(islice(clips, ANNOUNCED))
        classifier = load(**load_keywords, clips=len(ahead), reader=reader)
        if not quiet:
            for note in classifier.notes:
                print_message(f"{classifier.weights}: {note}")
        predictions = _predictions(classifier, reader, chain(ahead, clips), model, views, top_k, quiet)
        failed = 0
        with open_output(
            output.output, output.format, overwrite=output.overwrite, hint=classifier.spec.hint
        ) as out:
            for prediction in predictions:
                out.write(prediction.row, seconds=prediction.seconds)
                failed += prediction.error is not None
                seen = output.output is None and sys.stdout.isatty()
                _comment(classifier, prediction, warnings=not quiet and not seen, details=verbose)
    return 1 if failed else 0


def _predictions(
    classifier: Classifier,
    reader: VideoReader,
    clips: Iterable[Source],
    model: o.ModelOptions,
    views: o.WholeVideoOptions,
    top_k: int,
    quiet: bool,
) -> Iterator[Prediction]:
    if not views.every_frame and views.features is None:
        return classifier.predict_many(clips, top_k)
    from vidcls.inference.load import weights_file

    return predict_by_features(
        classifier,
        reader,
        clips,
        top_k,
        every_frame=views.every_frame,
        features=views.features,
        weights=weights_file(**{k: v for k, v in model.keywords().items() if k != "labels"}),
        quiet=quiet,
    )


def _comment(classifier: Classifier, prediction: Prediction, *, warnings: bool, details: bool) -> None:
    """Print on stderr what a prediction's row does not show where it is written."""
    if prediction.error is not None:
        print_error(prediction.error)
        return
    path = prediction.row["path"]
    if warnings:
        for warning in prediction.row["warnings"]:
            print_message(f"{path}: {warning}")
    if details:
        print_message(f"{path}: {_how(classifier, prediction)}")


def _how(classifier: Classifier, prediction: Prediction) -> str:
    """Say what ran the model, for how long, and what the views shared."""
    engine = classifier.engine
    text = f"{engine.name} {engine.precision} on {engine.device}, {prediction.seconds:.2f} s"
    if prediction.units is None:
        return text
    units, encoded = prediction.units
    saved = 100 * (1 - encoded / units)
    return f"{text}; {encoded} of {units} frames or tubelets were encoded ({saved:.0f} % saved by sharing)"
