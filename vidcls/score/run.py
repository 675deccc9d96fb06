"""The whole of ``vidcls score``: list, skip what is done, score, write, note, and say how it went."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vidcls.errors import OutputError, printable
from vidcls.output.base import Format
from vidcls.output.formats import SCORED, RowKind, check_wide, complete_format
from vidcls.output.jsonl import RowLines
from vidcls.output.row import Layout
from vidcls.paths import temporary_path
from vidcls.score.interrupts import interrupts
from vidcls.score.listing import Inputs
from vidcls.score.multi_gpu import local_scorer
from vidcls.score.progress import Counts, Reporter
from vidcls.score.resume_log import Journal, Status, in_shard, open_journal
from vidcls.score.row_file import RowFile, foreign, remove_output, write_whole
from vidcls.score.scorer import Scorer
from vidcls.score.setup import Setup
from vidcls.video import object_store
from vidcls.video.sources import Source


@dataclass(frozen=True)
class Job:
    """What is to be scored, how, and where to.

    Attributes:
        inputs: The clips.
        output: A path, or an address such as ``s3://bucket/scores.parquet``; its suffix tells the format.
        setup: The model and how it is run.
        shard: (I, N): only part I of N of the clips.
        retry_failed: Score clips anew that failed in an earlier run.
        overwrite: Begin anew, whatever is there.
        make_scorer: Makes what scores; by default this machine.
        format: A key of the kind's formats; None goes by the suffix of ``output``.
        wide: One line for each clip in CSV and TSV, not for each prediction.
        kind: What the rows are; it goes with ``setup``.
    """

    inputs: Inputs
    output: str
    setup: Setup = field(default_factory=Setup)
    shard: tuple[int, int] = (1, 1)
    retry_failed: bool = False
    overwrite: bool = False
    make_scorer: Callable[[Setup], Scorer] = local_scorer
    format: str | None = None
    wide: bool = False
    kind: RowKind = SCORED


@dataclass
class Summary:
    """How a run went.

    Attributes:
        counts: What happened in it.
        rows: Rows that the output has.
        good: Those without an error.
        interrupted: Whether it was stopped before its end; the same command goes on.
        examples: One error for each kind of failure.
        stats: See ``Scorer.stats``.
    """

    counts: Counts
    rows: int = 0
    good: int = 0
    interrupted: bool = False
    examples: dict[str, str] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> Counter[str]:
        """Clips of this run's inputs that have a row with an error, by kind, whenever they failed."""
        return self.counts.failed + self.counts.failed_before


class OutputPaths:
    """The files that belong to one output: where the text of the rows is, and the journal.

    Args:
        output: A path or an address; for an address the other two are in the current folder.
        job: Says what the output is, and which format and kind its rows have.

    Raises:
        UsageError: The format is unclear, or is not one for ``wide``.
    """

    def __init__(self, output: str, job: Job) -> None:
        self.output = output
        name = complete_format(output, job.format, job.kind)
        check_wide(name, job.wide)
        self.format = job.kind.formats[name]
        self.remote = object_store.is_remote(output)
        base = Path(urlsplit(output).path).name if self.remote else output
        self.target = Path(base)
        self.journal = Path(f"{base}.journal")
        # Only text that is final at every moment goes straight into the output.
        direct = self.format.appendable and not self.remote
        self.rows = Path(base) if direct else Path(f"{base}.rows")

    def row_format(self, layout: Layout) -> Format:
        """Return what makes the text of the rows."""
        return self.format(layout) if self.format.appendable else RowLines(layout)


def score(job: Job, reporter_options: dict[str, Any] | None = None) -> Summary:
    """Score all clips of a job that have no row yet; see ``Job``.

    Raises:
        UsageError: The job does not fit what is in the output already, or its inputs make no sense.
        OutputError: Another process writes it, or the disk is full; rows that were made so far are kept.
        VidclsError: Something is wrong with the model or the machine.
    """
    places = OutputPaths(job.output, job)
    places.format()  # what it needs is installed, or this says so before anything is done
    columns = job.inputs.columns()
    journal = open_journal(places.journal, printable(job.output), overwrite=job.overwrite)
    try:
        # Loaded while the lock is held and before anything is thrown away: a mistyped model costs no results.
        scorer = job.make_scorer(job.setup)
        try:
            settings = {**scorer.settings(), "columns": columns, "shard": "{}/{}".format(*job.shard)}
            if places.format.flat:
                settings["wide"] = job.wide
            return _score(job, places, journal, scorer, settings, reporter_options or {})
        finally:
            scorer.close()
    finally:
        journal.close()


def _score(
    job: Job,
    places: OutputPaths,
    journal: Journal,
    scorer: Scorer,
    settings: dict[str, Any],
    reporter_options: dict[str, Any],
) -> Summary:
    _make_ready(job, places, journal, settings)
    journal.check(settings)
    layout = job.kind.layout(settings, job.wide)
    store = RowFile(places.rows, journal, places.row_format(layout))
    journal.put(settings=json.dumps(settings), run=journal.run, finished=0)
    counts = Counts()
    summary = Summary(counts)
    try:
        with (
            Reporter(counts, job.inputs, job.shard, **reporter_options) as reporter,
            interrupts() as stopped,
        ):
            for note in scorer.notes():
                reporter.note(note)
            reporter.started()
            _consume(job, journal, store, scorer, reporter, stopped, summary)
        summary.stats = scorer.stats()
        _count_once(summary, journal)
        _finalize(places, journal, store, layout, summary)
    finally:
        store.close()
    return summary


def _make_ready(job: Job, places: OutputPaths, journal: Journal, settings: dict[str, Any]) -> None:
    """Sweep what a killed process left, and take away what is to be overwritten."""
    for path in {places.rows, places.target}:
        # What a killed process left: nobody else writes here while the journal is locked.
        remove_output([temporary_path(path, alone=True)])
    # The same command goes on where it was when it was killed, with ``overwrite`` too.
    if job.overwrite and not journal.is_replacement_under_way(settings):
        journal.reset()
        remove_output([places.rows, *([] if places.remote else [places.target])])
    elif (
        places.rows != places.target
        and not places.remote
        and journal.settings() is None
        and places.target.exists()
    ):
        raise foreign(places.target)


def _consume(
    job: Job,
    journal: Journal,
    store: RowFile,
    scorer: Scorer,
    reporter: Reporter,
    stopped: threading.Event,
    summary: Summary,
) -> None:
    """Write results as they come, until there are no more or somebody presses Ctrl-C."""
    results = scorer.run(_pending(job, journal, summary.counts, stopped))
    try:
        with contextlib.closing(results):  # type: ignore[type-var]
            for result in results:
                if result is not None and journal.accepts(result.item.path):
                    _note(store, result, summary)
                    if result.kind is not None:
                        reporter.failed(result)
                store.tick()
                reporter.tick(scorer.stats().get("wait_share"))
                if stopped.is_set():
                    summary.interrupted = True
                    break
    finally:
        # Whatever ended it, what was computed is kept; a full disk has said so already.
        for result in scorer.leftovers():
            if journal.accepts(result.item.path):
                _note(store, result, summary)
        store.commit()


def _note(store: RowFile, result: Any, summary: Summary) -> None:
    result = store.add(result)
    summary.counts.add(result)
    if result.kind is not None:
        summary.examples.setdefault(result.kind, result.row["error"])


def _pending(job: Job, journal: Journal, counts: Counts, stopped: threading.Event) -> Iterator[Source]:
    """Yield the clips that need scoring, each once."""
    for item in job.inputs:
        if stopped.is_set():
            return
        if not in_shard(item.path, job.shard):
            continue
        claim = journal.claim(item, job.retry_failed)
        if claim.status is Status.NEW:
            yield item
        elif claim.status is Status.DUPLICATE:
            counts.duplicates += 1
        else:
            counts.skipped += 1
            if claim.kind is not None:
                counts.failed_before[claim.kind] += 1


def _finalize(
    places: OutputPaths, journal: Journal, store: RowFile, layout: Layout, summary: Summary
) -> None:
    """Bring the output into its final form, unless the run was interrupted."""
    store.pack()
    if summary.interrupted:
        return
    if not places.format.appendable:
        write_whole(places.target, places.format(layout), store.live_rows())
    if places.remote:
        _upload(places.rows if places.format.appendable else places.target, places)
    journal.put(finished=1)


def _upload(source: Path, places: OutputPaths) -> None:
    try:
        object_store.upload(source, places.output)
    except Exception as error:
        # Each store's library has errors of its own, without a common root.
        problem = f"cannot be written ({type(error).__name__}: {str(error)[:300]})"
        hint = f"all rows are in {places.rows}; start the same command again"
        raise OutputError(places.output, problem, hint) from None
    if source != places.rows:
        source.unlink(missing_ok=True)


def _count_once(summary: Summary, journal: Journal) -> None:
    """Correct the counts by the journal's, which knows a clip that was listed twice from two clips."""
    counts = summary.counts
    summary.rows, failed = journal.counts()
    summary.good = summary.rows - sum(failed.values())
    earlier = summary.rows - counts.worked
    if counts.skipped > earlier:
        counts.duplicates += counts.skipped - earlier
        counts.skipped = earlier
    for kind, count in counts.failed_before.items():
        counts.failed_before[kind] = min(count, failed.get(kind, 0) - counts.failed[kind])
