"""``vidcls predict``: classify clips."""

from __future__ import annotations

import re
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from vidcls.cli import options as o
from vidcls.cli import print_error, print_message, print_notes
from vidcls.cli.groups import keywords
from vidcls.cli.view_options import WholeVideoOptions
from vidcls.cli.whole_video import engine_for_features, predictions_of
from vidcls.errors import counted, printable
from vidcls.output.row import VIEWS_USED
from vidcls.output.text import sharing

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.prediction import Prediction
    from vidcls.video.sources import Source

ANNOUNCED = 256  # clips that are counted beforehand, to choose an engine by


def predict(
    source: o.Sources,
    model: o.ModelOptions,
    views: WholeVideoOptions,
    machine: o.MachineOptions,
    approximate: o.ApproximateOptions,
    inputs: o.InputOptions,
    output: o.RowsOutput,
    top_k: o.TopKOption = 5,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Classify clips: print the top labels of each and their scores.

    A clip that cannot be read gets one line on stderr and a row with its error; the others continue.

    Examples:
    - `vidcls predict clip.mp4 --model vivit-b-16x2-k400-hf`
    - `vidcls predict clips/ -o rows.csv`
    """
    from vidcls.output.writers import check_output, open_output

    check_output(output.output, output.format, overwrite=output.overwrite, wide=output.wide)
    load_keywords = keywords(model, views, machine, approximate)
    if views.by_features:
        load_keywords["engine"] = engine_for_features(machine.engine)
    # The decoding process starts first, so that it is ready when torch has been imported.
    from vidcls.video.reader import VideoReader

    with VideoReader(machine.decoder, machine.decode_timeout) as reader:
        reader.start()
        from vidcls.inference.load import load
        from vidcls.output.progress import ProgressBar
        from vidcls.output.row import Layout
        from vidcls.video.sources import carried_columns, expand

        carried = carried_columns(source, inputs.path_column)
        clips = expand(source, **inputs.keywords())
        # How many there are decides whether a faster engine is worth making; a huge folder need not be listed for it.
        ahead = list(islice(clips, ANNOUNCED))
        classifier = load(**load_keywords, clips=len(ahead), reader=reader)
        comments = Comments(classifier, several=len(ahead) > 1, quiet=quiet, verbose=verbose)
        if not quiet:
            print_notes(classifier, hint=model.is_default)
        writer = open_output(
            output.output,
            output.format,
            overwrite=output.overwrite,
            names=[] if verbose else [clip.path for clip in ahead],
            layout=Layout(
                wide=min(top_k, len(classifier.labels)) if output.wide else None,
                auto_views=classifier.stop_rule is not None,
                carried=carried,
            ),
        )
        # Rows that appear on the terminal show the progress themselves.
        bar = ProgressBar(
            unit="clips", shown=not quiet and len(ahead) > 1 and not writer.shown and not views.by_features
        )
        total = len(ahead) if len(ahead) < ANNOUNCED else None
        with bar, writer as out:
            columns: deque[dict[str, Any]] = deque()
            for prediction in predictions_of(
                classifier, reader, _noting(chain(ahead, clips), columns), model, views, top_k, quiet
            ):
                out.write({**prediction.row, **columns.popleft()}, seconds=prediction.seconds)
                bar.clear()
                comments.add(prediction, shown=writer.shown)
                bar.update(out.rows, total)
        comments.finish(None if output.output is None else f"{counted(out.rows, 'row')} to {output.output}")
    return 1 if comments.failed else 0


def _noting(clips: Iterable[Source], columns: deque[dict[str, Any]]) -> Iterator[Source]:
    """Yield the clips, and put aside what their manifests say of them: predictions come in the same order."""
    for clip in clips:
        columns.append(clip.columns)
        yield clip


class Comments:
    """What is printed on stderr beside the rows.

    Args:
        classifier: What classifies.
        several: Whether there are several clips; warnings of one kind are then added up.
        quiet: Print only errors.
        verbose: Print how each clip was classified, and every warning.

    Attributes:
        failed: How many clips could not be read.
    """

    def __init__(self, classifier: Classifier, *, several: bool, quiet: bool, verbose: bool) -> None:
        self.failed = 0
        self._classifier = classifier
        self._several, self._quiet, self._verbose = several, quiet, verbose
        self._warnings: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._views: Counter[str] = Counter()

    def add(self, prediction: Prediction, shown: bool) -> None:
        """Print what a prediction's row does not show.

        Args:
            prediction: Whose row was written.
            shown: Whether the row can be seen on the terminal.
        """
        if prediction.error is not None:
            self.failed += 1
            if not (shown and self._several and not self._verbose and sys.stderr.isatty()):
                print_error(prediction.error)
            return
        self._views.update(clips=1, used=prediction.row.get(VIEWS_USED, 0))
        path = printable(prediction.row["path"])
        for warning in prediction.row["warnings"] if not self._quiet else ():
            kind = re.sub(r"\d+(\.\d+)?", "N", warning)
            if not self._several or self._verbose:
                if not shown:
                    print_message(f"{path}: {warning}")
            else:
                self._warnings[kind] += 1
                self._examples.setdefault(kind, f"{path}: {warning}")
        if self._verbose:
            print_message(f"{path}: {_how(self._classifier, prediction)}")

    def finish(self, wrote: str | None) -> None:
        """Print the warnings that were added up, and what was written."""
        for kind, count in self._warnings.most_common():
            print_message(self._examples[kind] + (f" ({count - 1:,} more like it)" if count > 1 else ""))
        if self._classifier.stop_rule is not None and self._views["clips"] and not self._quiet:
            view, used = self._classifier.spec.input, self._views["used"] / self._views["clips"]
            print_message(
                f"vidcls: {used:.2f} of {view.num_views * view.num_crops} views per clip were scored"
            )
        if wrote is not None and not self._quiet:
            print_message(f"vidcls: wrote {wrote}")


def _how(classifier: Classifier, prediction: Prediction) -> str:
    """Describe what ran the model, for how long, and what the views shared."""
    engine = classifier.engine
    text = f"{engine.name} {engine.precision} on {engine.device}, {prediction.seconds:.2f} s"
    if VIEWS_USED in prediction.row:
        row = prediction.row
        text += f"; {row[VIEWS_USED]} of {row['views'] * row['crops']} views were scored"
    if prediction.units is None:
        return text
    return f"{text}; {sharing(prediction.units)}"
