"""What ``--frames all`` and ``--features`` add to ``vidcls predict``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.prediction import Prediction
    from vidcls.video.reader import VideoReader
    from vidcls.video.sources import Source


def engine_for_features(engine: str) -> str:
    """Return the engine that runs a model in parts, for clips of any length.

    Raises:
        UsageError: The one asked for cannot.
    """
    if engine == "openvino":
        raise UsageError(
            "engine=openvino", "needs clips of a fixed length", "use engine=eager or engine=compile"
        )
    return "eager" if engine == "auto" else engine


def predict_by_features(
    classifier: Classifier,
    reader: VideoReader,
    clips: Iterable[Source],
    top_k: int,
    *,
    every_frame: bool,
    features: Path | None,
    weights: Path | None,
    quiet: bool,
) -> Iterator[Prediction]:
    """Score clips as `vidcls.inference.whole_video.WholeVideo` does, with a bar on a terminal.

    Raises:
        UsageError: The model has no features of single frames.
        OutputError: The folder cannot hold them.
    """
    from vidcls.inference.whole_video import WholeVideo
    from vidcls.output.progress import ProgressBar

    # An hour of video takes a while.
    with ProgressBar(unit="frames", shown=not quiet) as bar:
        whole = WholeVideo(
            classifier,
            every_frame=every_frame,
            features=features,
            weights=weights,
            reader=reader,
            progress=lambda name, done, total: bar.update(done, total, label=Path(name).name[-40:]),
        )
        for prediction in whole.predict_many(clips, top_k):
            bar.clear()
            yield prediction
