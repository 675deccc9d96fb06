"""The whole of ``vidcls timeline -o``: what is done is noted in a journal as it comes; the output is made of it.

The journal and the file of rows beside it are those of ``vidcls score``. A row is a part of a video's windows with all
their scores, or the video itself once all its parts are there. So a run that was killed goes on within a video, and
the same command with another threshold makes the output anew without decoding.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vidcls.engines import Floats
from vidcls.errors import InputError, UsageError, printable
from vidcls.output.jsonl import RowLines
from vidcls.output.sinks import write_error, writing
from vidcls.paths import replacing, temporary_path
from vidcls.score.interrupts import interrupts
from vidcls.score.listing import Inputs
from vidcls.score.resume_log import Journal, Status, open_journal
from vidcls.score.row_file import RowFile, foreign, remove_output
from vidcls.score.rows import Result
from vidcls.score.setup import Setup
from vidcls.timeline import formats
from vidcls.timeline.make import Builder, check, cuts_of, facts_of, open_film, shown
from vidcls.timeline.result import Settings, Timeline
from vidcls.timeline.scan import Film
from vidcls.video.fetch import opened
from vidcls.video.sources import Source

if TYPE_CHECKING:
    import threading

    from vidcls.inference.classifier import Classifier
    from vidcls.video.reader import VideoReader

JOURNAL = "timeline"  # of an output that is a folder


class Listener(Protocol):
    """Is called as the work advances."""

    def loaded(self, classifier: Classifier) -> None:
        """The model is ready."""

    def windows(self, path: str, done: int, total: int, label: str) -> None:
        """Some windows of a video were scored; ``label`` is what the last one shows, with its score and time."""

    def failed(self, error: InputError) -> None:
        """A video cannot be read."""


@dataclass(frozen=True)
class Job:
    """What is to be made.

    Attributes:
        inputs: The videos.
        output: A file, whose suffix tells the format, or a folder that gets a file for each video.
        setup: The model and how it is run.
        settings: How timelines are made.
        format: A key of `formats.FORMATS`; None goes by the suffix, and is ``json`` in a folder.
        overwrite: Begin anew, whatever is there.
    """

    inputs: Inputs
    output: str
    setup: Setup
    settings: Settings = field(default_factory=Settings)
    format: str | None = None
    overwrite: bool = False


@dataclass
class Summary:
    """How a run went.

    Attributes:
        timelines: Of all videos, also those of earlier runs; empty where it was interrupted.
        made: Videos done in this run.
        earlier: Videos that had been done before.
        units: As in `Timeline`, of this run.
        interrupted: Whether it was stopped; the same command goes on.
        written: Files that were written.
    """

    timelines: list[Timeline] = field(default_factory=list)
    made: int = 0
    earlier: int = 0
    units: tuple[int, int] = (0, 0)
    interrupted: bool = False
    written: list[Path] = field(default_factory=list)


class Places:
    """The files of one output.

    Raises:
        UsageError: The format is not clear, or holds one video.
        OutputError: The folder does not exist.
    """

    def __init__(self, output: str, format: str | None) -> None:
        self.target = Path(output)
        self.folder = output.endswith(("/", os.sep)) or self.target.is_dir()
        self.format = (format or "json") if self.folder else formats.choose(output, format)
        self.single = formats.FORMATS[self.format].single and not self.folder
        base = self.target / JOURNAL if self.folder else self.target
        self.journal, self.rows = Path(f"{base}.journal"), Path(f"{base}.rows")
        if self.folder:
            with writing(self.target):
                self.target.mkdir(parents=True, exist_ok=True)

    def kept(self, timelines: list[Timeline]) -> list[Timeline]:
        """Return what goes into the output: of one video, not those that an earlier, mistyped command named."""
        good = [one for one in timelines if one.error is None]
        return good if self.single and good else timelines[-1:] if self.single else timelines

    def files(self, timelines: list[Timeline]) -> Iterator[tuple[Path, list[Timeline]]]:
        """Yield each file that is to be written, and what goes into it."""
        if not self.folder:
            yield self.target, timelines
            return
        taken: set[str] = set()
        for timeline in timelines:
            if timeline.error is not None and formats.FORMATS[self.format].single:
                continue
            stem = name = Path(timeline.path.rstrip("/").rpartition("/")[2]).stem[:150] or "video"
            number = 1
            while name.casefold() in taken:
                number += 1
                name = f"{stem}-{number}"
            taken.add(name.casefold())
            yield self.target / f"{name}.{self.format}", [timeline]


def make_timelines(job: Job, listener: Listener) -> Summary:
    """Make the timelines of a job's videos; see `Job`.

    Raises:
        UsageError: The settings make no sense, or do not fit what is in the output already.
        OutputError: Another process writes it, or the disk is full; what was made so far is kept.
        VidclsError: Something is wrong with the model or the machine.
    """
    check(job.settings)
    places = Places(job.output, job.format)
    formats.check_installed(places.format)
    if places.single:
        formats.check_single(places.format, printable(job.output), job.inputs.at_least(2))
    from vidcls.inference.load import load

    journal = open_journal(places.journal, printable(job.output), overwrite=job.overwrite)
    try:
        with job.setup.reader() as reader:
            # Loaded while the lock is held and before anything is thrown away: a mistyped model costs no results.
            classifier = load(**job.setup.load, reader=reader)
            listener.loaded(classifier)
            return _Run(job, places, journal, classifier, reader, listener).run()
    finally:
        journal.close()


class _StoppedError(Exception):
    """Somebody pressed Ctrl-C while cuts were looked for."""


class _Run:
    def __init__(
        self,
        job: Job,
        places: Places,
        journal: Journal,
        classifier: Classifier,
        reader: VideoReader,
        listener: Listener,
    ) -> None:
        self._job, self._places, self._journal = job, places, journal
        self._classifier, self._reader, self._listener = classifier, reader, listener
        self.summary = Summary()

    def run(self) -> Summary:
        settings = self._settings()
        self._make_ready(settings)
        self._journal.check(settings)
        store = RowFile(self._places.rows, self._journal, RowLines())
        try:
            self._check_video(store)
        except UsageError:
            store.close()
            raise
        self._journal.put(settings=json.dumps(settings), run=self._journal.run, finished=0)
        try:
            with interrupts() as stopped:
                self._videos(store, stopped)
            store.pack()
            if not self.summary.interrupted:
                self.summary.timelines = self._places.kept(self._timelines(store))
                self._write()
                self._journal.put(finished=1)
        finally:
            store.close()
        return self.summary

    def _settings(self) -> dict[str, Any]:
        """All that the scores of windows depend on, and nothing that only the segments do."""
        settings = self._job.setup.describe(self._classifier)
        del settings["top_k"], settings["all_scores"]
        chosen = self._job.settings
        return {**settings, "task": "timeline", "by": chosen.by, "window": chosen.window, "step": chosen.step}

    def _make_ready(self, settings: dict[str, Any]) -> None:
        places, journal = self._places, self._journal
        remove_output([temporary_path(places.rows, alone=True)])
        if self._job.overwrite and not journal.is_replacement_under_way(settings):
            journal.reset()
            remove_output([places.rows])
        elif not places.folder and journal.settings() is None and places.target.exists():
            raise foreign(places.target)

    def _check_video(self, store: RowFile) -> None:
        """Refuse a second video where the output holds one, before it is decoded."""
        if not (self._places.single and self._job.inputs.repeatable):
            return
        named = {source.path for source in self._job.inputs}
        for row in store.live_rows():
            other = row.get("video", row["path"])
            if other not in named and "failure" not in row:
                problem = f"is the timeline of {printable(other)}"
                raise UsageError(
                    printable(self._job.output), problem, "choose another output, or pass overwrite=True"
                )

    def _videos(self, store: RowFile, stopped: threading.Event) -> None:
        try:
            for source in self._job.inputs:
                claim = self._journal.claim(source, retry_failed=True)
                if claim.status is Status.DONE:
                    self.summary.earlier += 1
                elif claim.status is Status.NEW:
                    self._video(source, store, stopped)
                if stopped.is_set():
                    self.summary.interrupted = True
                    return
        finally:
            store.commit()

    def _video(self, source: Source, store: RowFile, stopped: threading.Event) -> None:
        row: dict[str, Any] = {"path": source.path}
        kind = None

        def cuts(path: str, done: int, total: int) -> None:
            if stopped.is_set():
                raise _StoppedError
            self._listener.windows(path, done, total, "finding cuts")

        try:
            with opened(source, stopped) as clip:
                film = open_film(self._classifier, self._reader, clip, self._job.settings, cuts)
                if not self._parts(source, film, store, stopped):
                    return
            row |= {
                "facts": facts_of(self._classifier, self._job.settings, film),
                "step": film.windows.step,
                "duration": film.info.duration,
                "cuts": cuts_of(film, self._job.settings),
            }
        except _StoppedError:
            return
        except InputError as error:
            if stopped.is_set():
                return
            kind = error.kind
            row |= {"failure": [error.subject, error.problem, error.remedy, kind]}
            row["facts"] = facts_of(self._classifier, self._job.settings, None)
            self._listener.failed(error)
        self.summary.made += 1
        self._journal.accepts(source.path)
        store.add(Result(source, row, kind))

    def _parts(self, source: Source, film: Film, store: RowFile, stopped: threading.Event) -> bool:
        """Score the parts that are not there yet; False where it was stopped before the last one."""
        wanted = {}
        for part in film.parts():
            item = Source(_name(source.path, part), source.location)
            if self._journal.claim(item).status is Status.NEW:
                wanted[part.stop] = item, part
        total = len(film.windows)
        with contextlib.closing(film.scores([part for _, part in wanted.values()])) as found:
            rows: list[Floats] = []
            for piece, scores in found:
                rows.append(scores)
                self._listener.windows(source.path, piece.stop, total, shown(self._classifier, scores))
                if piece.stop in wanted:
                    item, part = wanted.pop(piece.stop)
                    self._journal.accepts(item.path)
                    store.add(
                        Result(item, _part_row(item.path, source.path, part, film, np.concatenate(rows)))
                    )
                    rows = []
                store.tick()
                if stopped.is_set() and wanted:
                    return False
        before = self.summary.units
        self.summary.units = before[0] + film.units[0], before[1] + film.units[1]
        return True

    def _timelines(self, store: RowFile) -> list[Timeline]:
        parts: dict[str, dict[int, dict[str, Any]]] = {}
        videos: dict[str, dict[str, Any]] = {}
        for row in store.live_rows():
            if "video" in row:
                parts.setdefault(row["video"], {})[row["first"]] = row
            else:
                videos[row["path"]] = row
        return [self._timeline(path, row, parts.pop(path, {})) for path, row in videos.items()]

    def _timeline(self, path: str, row: dict[str, Any], parts: dict[int, dict[str, Any]]) -> Timeline:
        facts = {
            **row["facts"],
            "threshold": self._job.settings.threshold,
            "min_length": self._job.settings.least,
        }
        if "failure" in row:
            subject, problem, remedy, kind = row["failure"]
            return Timeline(path, (), facts, error=InputError(subject, problem, remedy, kind=kind))
        builder = Builder(self._classifier.labels, self._job.settings, row["step"], row["duration"])
        count = 0
        while count < facts["windows"]:
            part = parts[count]
            scores = np.frombuffer(base64.b64decode(part["scores"]), np.float32)
            scores = scores.reshape(len(part["starts"]), -1)
            for start, end, values in zip(part["starts"], part["ends"], scores, strict=True):
                builder.push(start, end, values)
            count += len(scores)
        builder.finish()
        cuts = None if row["cuts"] is None else tuple(row["cuts"])
        return Timeline(path, tuple(builder.segments), facts, cuts, tuple(builder.cells))

    def _write(self) -> None:
        for path, timelines in self._places.files(self.summary.timelines):
            name = printable(str(path))
            data = formats.encode(timelines, self._places.format, name, path.parent)
            try:
                with replacing(path, alone=True) as place:
                    place.write_bytes(data)
            except OSError as error:
                again = "; the scores are kept, start the same command again"
                raise write_error(name, error, again) from None
            self.summary.written.append(path)


def _name(path: str, part: slice) -> str:
    """What the journal calls a part of a video."""
    return f"{path}#windows={part.start}-{part.stop}"


def _part_row(name: str, video: str, part: slice, film: Film, scores: Floats) -> dict[str, Any]:
    return {
        "path": name,
        "video": video,
        "first": part.start,
        "starts": film.windows.starts[part].tolist(),
        "ends": film.windows.ends[part].tolist(),
        "scores": base64.b64encode(scores.astype(np.float32).tobytes()).decode(),
    }
