"""What ``--frames all`` and ``--features`` add to ``vidcls predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vidcls.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

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

    with _Bar(shown=sys.stderr.isatty() and not quiet) as bar:
        whole = WholeVideo(
            classifier,
            every_frame=every_frame,
            features=features,
            weights=weights,
            reader=reader,
            progress=bar.show,
        )
        for prediction in whole.predict_many(clips, top_k):
            bar.clear()
            yield prediction


class _Bar:
    """Frames done of the clip at hand, on stderr; an hour of video takes a while."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._progress: Progress | None = None

    def __enter__(self) -> _Bar:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, name: str, done: int, total: int) -> None:
        """Move the bar of the clip called ``name``."""
        if self._progress is not None:
            if not self._progress.tasks:
                self._progress.add_task(Path(name).name[-40:], total=total)
            self._progress.update(self._progress.tasks[0].id, completed=done, total=total)

    def clear(self) -> None:
        """Take the bar away until the next clip."""
        if self._progress is not None:
            for task in self._progress.tasks:
                self._progress.remove_task(task.id)
