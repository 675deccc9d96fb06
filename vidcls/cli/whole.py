"""What ``--frames all`` and ``--features`` add to ``vidcls predict``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier, Prediction
    from vidcls.video.reader import VideoReader
    from vidcls.video.sources import Source

ALL = "all"
MAX_FRAMES = 65536


def parse_frames(text: str | None, views: int | None) -> tuple[int | None, bool]:
    """Return the number of frames of a clip, None for the model's, and whether every frame is meant.

    Raises:
        UsageError: It is neither a number nor ``all``, or several views are wanted of what is one.
    """
    if text is None:
        return None, False
    if text == ALL:
        if views is not None and views > 1:
            raise UsageError(
                f"--views {views}", "contradicts --frames all, which is one view", "give one of the two"
            )
        return None, True
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_FRAMES):
        raise UsageError("--frames", f"{text!r} is no number of frames", f"give 1 to {MAX_FRAMES}, or all")
    return int(text), False


def engine_for_features(engine: str) -> str:
    """Return the engine that runs a model in parts, for clips of any length.

    Raises:
        UsageError: The one asked for cannot.
    """
    if engine == "openvino":
        raise UsageError(
            "--engine openvino", "is built for clips of one length", "use --engine eager or compile"
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
