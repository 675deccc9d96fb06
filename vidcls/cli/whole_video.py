"""What ``--frames all`` and ``--features`` add to ``vidcls predict``; `vidcls.inference.whole_video` does the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.cli.options import ModelOptions
    from vidcls.cli.view_options import WholeVideoOptions
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.prediction import Prediction
    from vidcls.video.reader import VideoReader
    from vidcls.video.sources import Source


def engine_for_features(engine: str) -> str:
    """Return the engine that runs a model in parts, for clips of any length."""
    if engine == "openvino":
        raise UsageError(
            "engine=openvino", "needs clips of a fixed length", "use engine=eager or engine=compile"
        )
    return "eager" if engine == "auto" else engine


def predictions_of(
    classifier: Classifier,
    reader: VideoReader,
    clips: Iterable[Source],
    model: ModelOptions,
    views: WholeVideoOptions,
    top_k: int,
    quiet: bool,
) -> Iterator[Prediction]:
    """Classify clips, by the features of their frames where that is asked for.

    Raises:
        UsageError: The model has no features of single frames.
        OutputError: The folder cannot hold them.
    """
    if not views.by_features:
        yield from classifier.predict_many(clips, top_k)
        return
    from vidcls.inference.load import weights_file
    from vidcls.inference.whole_video import WholeVideo
    from vidcls.output.progress import ProgressBar

    # An hour of video takes a while.
    with ProgressBar(unit="frames", shown=not quiet) as bar:
        whole = WholeVideo(
            classifier,
            every_frame=views.every_frame,
            features=views.features,
            weights=weights_file(**{k: v for k, v in model.keywords().items() if k != "labels"}),
            reader=reader,
            progress=lambda name, done, total: bar.update(done, total, label=Path(name).name[-40:]),
        )
        for prediction in whole.predict_many(clips, top_k):
            bar.clear()
            yield prediction
