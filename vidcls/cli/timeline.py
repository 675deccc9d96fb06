"""``vidcls timeline``: what happens when in long videos."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vidcls.cli import EXIT_INTERRUPTED, print_error, print_message, print_notes
from vidcls.cli import options as o
from vidcls.cli.groups import Choices, Options, keywords
from vidcls.cli.view_options import ViewOptions
from vidcls.errors import InputError, UsageError, counted, printable
from vidcls.output.text import sharing

if TYPE_CHECKING:
    from vidcls.inference.classifier import Classifier
    from vidcls.output.progress import ProgressBar
    from vidcls.score.listing import Inputs
    from vidcls.timeline.result import Segment, Settings, Timeline

_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}


@dataclass(frozen=True)
class TimelineOptions(Options):
    """How windows become segments."""

    by: Annotated[
        str,
        Option(help="windows: dense, overlapping; shots: what lies between cuts, by PySceneDetect."),
        Choices(("windows", "shots")),
    ] = "windows"
    window: Annotated[
        str | None,
        Option(metavar="TIME", help="Window length, such as 2s.  [default: the model's own clip length]"),
    ] = None
    step: Annotated[
        str | None,
        Option(metavar="TIME", help="Step between windows, such as 1s.  [default: half a window]"),
    ] = None
    min_length: Annotated[
        str | None,
        Option(metavar="TIME", help="Shortest segment.  [default: 1s; by shots every shot]"),
    ] = None
    threshold: Annotated[
        float, Option(metavar="SCORE", help="Score that a label must reach, above 0 and at most 1.")
    ] = 0.5

    def settings(self, top_k: int) -> Settings:
        """Return what the library takes.

        Raises:
            UsageError: A time or another value is not valid.
        """
        from vidcls.timeline.make import check
        from vidcls.timeline.result import Settings

        times = {name: parse_seconds(name, getattr(self, name)) for name in ("window", "step", "min_length")}
        settings = Settings(by=self.by, threshold=self.threshold, top_k=top_k, **times)
        check(settings)
        return settings


@dataclass(frozen=True)
class TimelineOutput(Options):
    """Where timelines go."""

    output: Annotated[
        str | None,
        o.output_option(
            metavar="FILE",
            help="A .json, .csv, .srt, .vtt, .edl, .parquet or .html file, or a folder for one file per video.",
        ),
    ] = None
    format: Annotated[
        str | None,
        Option(
            "--format", "-f", help="Format.  [default: by the suffix of -o; a folder gets json, stdout lines]"
        ),
        Choices("vidcls.timeline.formats:FORMATS"),
    ] = None
    annotate: Annotated[
        Path | None,
        Option(
            metavar="FILE", help="Write the video with its labels and scores drawn in, as .mp4, .mkv or .mov."
        ),
    ] = None
    overwrite: o.OverwriteOption = False


def timeline(
    source: o.Sources,
    model: o.ModelOptions,
    timeline: TimelineOptions,
    views: ViewOptions,
    machine: o.MachineOptions,
    inputs: o.InputOptions,
    output: TimelineOutput,
    top_k: o.TopKOption = 3,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Find what happens when in long videos: segments with a label, start, end and score.

    A video that cannot be read gets one line on stderr and a row with its error; the others continue.

    Examples:
    - `vidcls timeline film.mp4 -o film.srt --annotate labeled.mp4`
    - `vidcls timeline films/ --by shots -o films.json`
    """
    from vidcls.score.listing import Inputs, sources_of
    from vidcls.score.setup import Setup

    settings = timeline.settings(top_k)
    if views.num_views is not None and settings.by == "windows":
        raise UsageError("num_views", "does not go with by=windows: each window is one view", "use --step")
    load = keywords(model, views, machine)
    load["registry"] = None if model.registry is None else str(model.registry)
    load["clips"] = 1  # what runs at once, without an export
    listed = Inputs(sources_of(source), **inputs.keywords())
    said = Comments(model.is_default, quiet, verbose)
    if output.annotate is not None:
        from vidcls.output.sinks import check_not_input
        from vidcls.timeline.annotate import check_target

        check_target(output.annotate, overwrite=output.overwrite)
        if (listed.at_least(2) or 0) > 1:
            raise UsageError("annotate", "writes one video, but several were given", "name one video")
        check_not_input(output.annotate, (one.location for one in listed) if listed.repeatable else ())
    setup = Setup(load, top_k)
    if output.output in (None, "-"):
        found = print_timelines(listed, setup, settings, output.format, said)
    else:
        found = write_timelines(listed, setup, settings, output, said)
    if output.annotate is not None and not said.interrupted:
        annotate(found, output.annotate, setup, said)
    if said.interrupted:
        return EXIT_INTERRUPTED
    return 1 if any(one.error is not None for one in found) else 0


class Comments:
    """What is printed on stderr, and the progress bar; a `vidcls.timeline.run.Listener`."""

    def __init__(self, default_model: bool, quiet: bool, verbose: bool) -> None:
        from vidcls.output.progress import ProgressBar

        self.quiet, self.verbose, self.interrupted = quiet, verbose, False
        self._default_model = default_model
        self.bar = ProgressBar(unit="windows", shown=not quiet)

    def loaded(self, classifier: Classifier) -> None:
        if not self.quiet:
            print_notes(classifier, hint=self._default_model)

    def windows(self, path: str, done: int, total: int, label: str) -> None:
        self.bar.update(done, total, label, label=Path(path).name[-30:])

    def failed(self, error: Any) -> None:
        self.bar.clear()
        print_error(error)

    def finish(self, one: Timeline) -> None:
        """Print the warnings of a video, and with ``verbose`` what was shared."""
        self.bar.clear()
        for warning in one.facts["warnings"] if not self.quiet else ():
            print_message(f"{printable(one.path)}: {warning}")

    def shared(self, units: tuple[int, int]) -> None:
        """Say what sharing saved."""
        if self.verbose and not self.quiet and units[0]:
            print_message(f"vidcls: {sharing(units)}")


def print_timelines(
    inputs: Inputs, setup: Any, settings: Settings, format: str | None, said: Comments
) -> list[Timeline]:
    """Print segments as they come, or with a format all together at the end."""
    import sys

    from vidcls.inference.load import load
    from vidcls.output.sinks import Stdout
    from vidcls.timeline import formats
    from vidcls.timeline.make import failed, follow

    if format is not None:
        formats.check_installed(format)
        formats.check_single(format, "stdout", inputs.at_least(2))
        if not formats.FORMATS[format].text and sys.stdout.isatty():
            raise UsageError(
                "format", f"{format} is not for a terminal", "name a file with -o, or use a pipe"
            )
    out, found = Stdout(), []
    with setup.reader() as reader, said.bar:
        classifier = load(**setup.load, reader=reader)
        said.loaded(classifier)
        for source in inputs:
            lines = _Lines(out, said.bar, source.path, format is None)
            try:
                one = follow(classifier, reader, source, settings, said.windows, lines)
            except InputError as error:
                said.failed(error)
                one = failed(source.path, classifier, settings, error)
            else:
                said.finish(one)
                said.shared(one.units or (0, 0))
            found.append(one)
            lines.finish(one)
    if format is not None:
        out.write(formats.encode(found, format, "stdout"))
    return found


class _Lines:
    """Segments as lines of text, each as soon as it is there."""

    def __init__(self, out: Any, bar: ProgressBar, path: str, wanted: bool) -> None:
        import sys

        self._out, self._path, self._wanted, self._any = out, path, wanted, False
        # Where both are on one terminal, lines must come above the bar.
        self._bar = bar if bar.shown and sys.stdout.isatty() else None

    def __call__(self, segment: Segment) -> None:
        from vidcls.timeline.page import clock

        self._head()
        times = f"{clock(segment.start)}  {clock(segment.end)}"
        self._print(f"{times}  {segment.score:.3f}  {printable(segment.label)}")

    def finish(self, one: Timeline) -> None:
        """Say it where there was nothing to print."""
        if not one.segments and one.error is None:
            self._head()
            self._print("no label reaches the threshold")

    def _head(self) -> None:
        if not self._any:
            self._print(printable(self._path))
        self._any = True

    def _print(self, line: str) -> None:
        if not self._wanted:
            return
        if self._bar is not None:
            self._bar.print(line)
        else:
            self._out.write(f"{line}\n".encode("utf-8", "backslashreplace"))


def write_timelines(
    inputs: Inputs, setup: Any, settings: Settings, output: TimelineOutput, said: Comments
) -> list[Timeline]:
    """Write timelines to a file, resumably."""
    from vidcls.timeline.run import Job, make_timelines

    job = Job(inputs, str(output.output), setup, settings, output.format, output.overwrite)
    with said.bar:
        summary = make_timelines(job, said)
    said.interrupted = summary.interrupted
    if summary.interrupted:
        print_message("vidcls: interrupted; what was scored is kept, and the same command resumes")
        return []
    said.shared(summary.units)
    for one in summary.timelines:
        said.finish(one)
    if not said.quiet:
        count = sum(len(one.segments) for one in summary.timelines)
        good = sum(one.error is None for one in summary.timelines)
        bad = len(summary.timelines) - good
        videos = counted(good, "video") + (f", {bad:,} failed," if bad else "")
        before = f" ({summary.earlier:,} scored before)" if summary.earlier else ""
        print_message(f"vidcls: wrote {counted(count, 'segment')} of {videos}{before} to {output.output}")
    return summary.timelines


def annotate(found: list[Timeline], target: Path, setup: Any, said: Comments) -> None:
    """Write the one video with its labels drawn in."""
    from vidcls.timeline.annotate import annotate as draw

    good = [one for one in found if one.error is None]
    if len(found) != 1:
        problem = f"writes one video, but there are {len(found)}"
        raise UsageError("annotate", problem, "name one video")
    for one in good:
        with said.bar, setup.reader() as reader, setup.reader() as sound:
            progress = partial(said.bar.update, label="annotating")
            draw(one, target, reader, sound, progress)
        if not said.quiet:
            print_message(f"vidcls: wrote {target}")


def parse_seconds(name: str, text: str | None) -> float | None:
    """Return seconds from ``2s``, ``500ms``, ``1.5`` or ``1m``."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(ms|s|min|m|)\s*", text, re.ASCII)
    if match is None:
        raise UsageError(name, f"{text[:40]!r} is not a time", "give seconds, such as 2s or 0.5s")
    return float(match[1]) * _UNITS[match[2]]
