"""One video → its timeline, while it is decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vidcls.engines import Floats
from vidcls.errors import InputError, UsageError
from vidcls.inference.classifier import Classifier
from vidcls.inference.clip import FramesSource, source_of
from vidcls.timeline.result import Segment, Settings, Timeline, segments_of
from vidcls.timeline.scan import Film, Scan
from vidcls.timeline.segments import Cell, Segmenter, Smoother
from vidcls.timeline.windows import check_lengths, plan_windows
from vidcls.video.fetch import opened
from vidcls.video.reader import VideoReader
from vidcls.video.sources import Source

if TYPE_CHECKING:
    import os


def open_film(
    classifier: Classifier,
    reader: VideoReader,
    clip: str | bytes,
    settings: Settings,
    progress: Callable[[str, int, int], None] | None = None,
) -> Film:
    """Open a video and cut it into windows or shots.

    Args:
        classifier: Scores the windows.
        reader: Reads the video.
        clip: A video file, or its bytes.
        settings: How timelines are made.
        progress: Called during cut detection with the video's path, the frames done, and all of them.

    Raises:
        VideoError: It cannot be read.
        UsageError: The settings are not valid.
        DependencyError: Shots are asked for and PySceneDetect is not installed.
    """
    info = reader.open(clip)
    if settings.by == "shots":
        from vidcls.timeline.shots import ShotScan, find_shots

        return ShotScan(classifier, reader, info, find_shots(reader, info, progress))
    windows = plan_windows(
        classifier.spec.input,
        info,
        window=settings.window,
        step=settings.step,
        fps=classifier.fps,
        unit_frames=classifier.engine.unit_frames,
    )
    return Scan(classifier, reader, info, windows)


class Builder:
    """Scores of windows, in order → segments, each as soon as nothing can change it.

    Args:
        labels: Of the model's classes.
        settings: How timelines are made.
        step: Seconds from window to window.
        duration: Of the video in seconds.

    Attributes:
        segments: Those that are there so far.
        cells: The smoothed scores so far.
    """

    def __init__(self, labels: tuple[str, ...], settings: Settings, step: float, duration: float) -> None:
        self.segments: list[Segment] = []
        self.cells: list[Cell] = []
        self._labels, self._settings = labels, settings
        self._smoother = Smoother(step, duration)
        self._segmenter = Segmenter(settings.threshold, settings.least)

    def push(self, start: float, end: float, scores: Floats) -> list[Segment]:
        """Take a window; returns new segments."""
        if self._settings.by == "shots":
            return self._shot(Cell(start, end, scores))
        return self._take(self._smoother.push(start, end, scores))

    def finish(self) -> list[Segment]:
        """Return the last segments, once all windows are there."""
        if self._settings.by == "shots":
            return []
        last = self._take(self._smoother.finish())
        rest = list(segments_of(self._segmenter.finish(), self._labels, self._settings.top_k))
        self.segments += rest
        return last + rest

    def _take(self, cells: Iterator[Cell]) -> list[Segment]:
        new: list[Segment] = []
        for cell in cells:
            self.cells.append(cell)
            new += segments_of(self._segmenter.push(cell), self._labels, self._settings.top_k)
        self.segments += new
        return new

    def _shot(self, cell: Cell) -> list[Segment]:
        """A shot is a segment where it is long enough and a label reaches the threshold."""
        self.cells.append(cell)
        alone = Segmenter(self._settings.threshold, 0.0)
        runs = [*alone.push(cell), *alone.finish()]
        long = cell.end - cell.start >= self._settings.least - 1e-6
        new = list(segments_of(runs, self._labels, self._settings.top_k)) if long else []
        self.segments += new
        return new


def facts_of(classifier: Classifier, settings: Settings, film: Film | None) -> dict[str, Any]:
    """Return what is written of a video beside its segments."""
    facts: dict[str, Any] = {
        "model": classifier.spec.name,
        "weights": classifier.weights,
        "by": settings.by,
        "window": settings.window,
        "step": settings.step,
        "threshold": settings.threshold,
        "min_length": settings.least,
        **dict.fromkeys(("fps", "duration", "width", "height", "decoder")),
        "windows": 0,
        "warnings": list(classifier.warnings),
    }
    if film is None:
        return facts
    info, windows = film.info, film.windows
    if settings.by == "windows":
        facts |= {
            "window": round(float(windows.ends[0] - windows.starts[0]), 6),
            "step": round(windows.step, 6),
        }
    warnings = dict.fromkeys((*classifier.warnings, *info.warnings, *windows.warnings, *film.warnings))
    return facts | {
        "fps": round(info.fps, 6) or None,
        "duration": round(info.duration, 6) or None,
        "width": info.width,
        "height": info.height,
        "decoder": film.decoder or info.decoder,
        "windows": len(windows),
        "warnings": list(warnings),
    }


def cuts_of(film: Film, settings: Settings) -> tuple[float, ...] | None:
    """Return where shots begin, but for the first; None by windows."""
    return tuple(film.windows.starts[1:].tolist()) if settings.by == "shots" else None


def check(settings: Settings) -> None:
    """Refuse settings that are not valid."""
    if settings.by not in ("windows", "shots"):
        raise UsageError("by", f"{settings.by!r} does not exist", "choose windows or shots")
    if settings.by == "shots" and (settings.window or settings.step) is not None:
        name = "window" if settings.window is not None else "step"
        raise UsageError(name, "does not go with by=shots: a shot is sampled as a clip is", "leave it out")
    check_lengths(settings.window, settings.step)
    Segmenter(settings.threshold, settings.least)
    if settings.top_k < 1:
        raise UsageError("top_k", f"{settings.top_k} is not a number of labels", "give at least 1")


def timeline(
    classifier: Classifier, path: str | os.PathLike[str] | bytes, *, reader: VideoReader, **settings: Any
) -> Timeline:
    """Make the timeline of one video; see `Classifier.timeline`, whose work this is.

    Raises:
        UsageError: The settings are not valid.
        VideoError: The video cannot be read.
        DependencyError: Shots are asked for and PySceneDetect is not installed.
        DeviceError: Memory ran out.
    """
    chosen = Settings(**settings)
    check(chosen)
    source = source_of(path)
    if isinstance(source, FramesSource):
        problem = f"is of type {type(path).__name__}, not a video"
        raise UsageError("path", problem, "give a path, a URL or a file's bytes; frames go to `predict`")
    return follow(classifier, reader, source, chosen)


def follow(
    classifier: Classifier,
    reader: VideoReader,
    source: Source,
    settings: Settings,
    progress: Callable[[str, int, int, str], None] = lambda path, done, total, label: None,
    take: Callable[[Segment], None] = lambda segment: None,
) -> Timeline:
    """Make the timeline of one video.

    Args:
        classifier: Scores the windows.
        reader: Reads the video.
        source: The video.
        settings: How timelines are made.
        progress: Called with the video's path, the windows done, all of them, and what the last one shows.
        take: Gets each segment as soon as nothing can change it.

    Raises:
        InputError: The video cannot be read.
        DependencyError: Shots are asked for and PySceneDetect is not installed.
        DeviceError: Memory ran out.
    """
    with opened(source) as clip:
        film = open_film(
            classifier,
            reader,
            clip,
            settings,
            lambda path, done, total: progress(path, done, total, "finding cuts"),
        )
        builder = Builder(classifier.labels, settings, film.windows.step, film.info.duration)
        with contextlib.closing(film.scores(film.parts())) as found:
            for part, scores in found:
                for number, row in zip(range(part.start, part.stop), scores, strict=True):
                    for segment in builder.push(film.windows.starts[number], film.windows.ends[number], row):
                        take(segment)
                progress(source.path, part.stop, len(film.windows), shown(classifier, scores))
        for segment in builder.finish():
            take(segment)
    return finished(source.path, classifier, settings, film, builder)


def shown(classifier: Classifier, scores: Floats) -> str:
    """Return the best label of the last of some windows, (n, k), and its score, for a progress bar."""
    best = int(scores[-1].argmax())
    return f"{classifier.labels[best]} {scores[-1][best]:.2f}"


def finished(path: str, classifier: Classifier, settings: Settings, film: Film, builder: Builder) -> Timeline:
    """Return the timeline of a video all of whose windows are there."""
    return Timeline(
        path,
        tuple(builder.segments),
        facts_of(classifier, settings, film),
        cuts_of(film, settings),
        tuple(builder.cells),
        film.units if film.units[0] else None,
    )


def failed(path: str, classifier: Classifier, settings: Settings, error: InputError) -> Timeline:
    """Return the timeline of a video that cannot be read: its error."""
    return Timeline(path, (), facts_of(classifier, settings, None), error=error)
