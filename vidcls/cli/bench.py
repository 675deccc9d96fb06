"""Measure how fast models, decoders, the whole command and the batch pipeline are on this machine."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Choices, Options, arguments
from vidcls.cli.values import whole_numbers
from vidcls.cli.view_options import ViewOptions
from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.config import Registry

MAX_BATCH = 4096
Clip = Annotated[str, Argument(metavar="CLIP", help="A video file.")]


@dataclass(frozen=True)
class TimingOptions(Options):
    """How long something is measured."""

    seconds: Annotated[
        float,
        Option(
            min=0.0, max=3600.0, help="Time for one figure; from 10 on, `models` measures whole clips too."
        ),
    ] = 3.0
    repetitions: Annotated[
        int | None,
        Option(
            min=1,
            max=1000,
            help="Calls of one figure, at least.  [default: 3, or 2 where one takes longer than 1 s]",
        ),
    ] = None
    spread: Annotated[
        float, Option(min=0.0, max=1.0, help="Relative spread at which a figure is good enough.")
    ] = 0.05


@dataclass(frozen=True)
class ReportOptions(Options):
    """Where the figures go."""

    json: o.JsonOption = False
    output: Annotated[
        Path | None, o.output_option(metavar="FILE", help="Write everything as JSON to this file.")
    ] = None
    overwrite: o.OverwriteOption = False
    quiet: o.QuietOption = False

    def check(self, *others: Path | None) -> None:
        """Refuse to replace a file unasked, before anything is measured."""
        from vidcls.output.sinks import check_absent

        for path in (self.output, *others):
            check_absent(path, self.overwrite)


@dataclass(frozen=True)
class ModelsOptions(Options):
    """Which models are measured, each in every engine, precision and batch size."""

    model: Annotated[
        list[str] | None,
        Option(
            "--model",
            "-m",
            autocompletion=o.complete_models,
            metavar="NAME",
            help="Model name, or all: every model with a published accuracy. Repeatable.",
        ),
    ] = None
    engine: Annotated[
        list[str] | None,
        Option(help="Repeatable.  [default: eager, and openvino where it is installed]"),
        Choices("vidcls.engines:ENGINES"),
    ] = None
    precision: Annotated[
        list[str] | None,
        Option(help="Repeatable.  [default: fp32 and bf16]"),
        Choices("vidcls.engines:PRECISIONS"),
    ] = None
    batch_size: Annotated[str, Option(metavar="N,N,...", help="Views in one forward pass.")] = "1"
    device: Annotated[str, Option(metavar="auto|cpu|cuda|mps", help="Where the model runs.")] = "auto"
    weights: Annotated[
        str | None, Option(metavar="PATH|URL|hub:ID", help="Checkpoint to use instead of the model's own.")
    ] = None
    merge_tokens: Annotated[
        float,
        Option(min=0.0, max=0.9, metavar="SHARE", help="Also measure with this share of the tokens merged."),
    ] = 0.0
    compare: Annotated[
        str | None,
        Option(help="Also measure the same weights in another library."),
        Choices(("transformers",)),
    ] = None
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Plot accuracy against speed, as .png, .svg or .pdf.")
    ] = None
    registry: o.RegistryOption = None


def models(measured: ModelsOptions, views: ViewOptions, timing: TimingOptions, report: ReportOptions) -> int:
    """Measure models' forward passes, and check every answer against eager fp32.

    Models without weights on this machine run with random ones, which does not change the speed; the output says so.

    Examples:
    - `vidcls bench --model vivit-fe`
    - `vidcls bench models -m vivit-fe --engine openvino --precision fp32`
    """
    from vidcls.bench.models import Plan, measure
    from vidcls.bench.report import HEADINGS, cells, notes, plot
    from vidcls.config import load_registry
    from vidcls.engines import is_installed

    report.check(measured.plot)
    known = load_registry(measured.registry)
    others = ["openvino"] if is_installed("openvino") and not measured.merge_tokens else []
    engines = measured.engine or ["eager", *others]
    precisions = measured.precision or ["fp32", "bf16"]
    if "auto" in engines or "auto" in precisions:
        raise UsageError("bench", "measures engines and precisions by name", "name them instead of auto")
    plan = Plan(
        models=_models(measured.model, known),
        engines=tuple(dict.fromkeys(engines)),
        precisions=tuple(dict.fromkeys(precisions)),
        batches=_batches(measured.batch_size),
        device=measured.device,
        weights=measured.weights,
        num_views=views.num_views,
        num_crops=views.num_crops,
        num_frames=views.num_frames,
        merge_tokens=measured.merge_tokens,
        compare=measured.compare is not None,
        spread=timing.spread,
        seconds=timing.seconds,
        least=timing.repetitions,
        registry=None if measured.registry is None else str(measured.registry),
    )
    with _Progress(report, plan.steps) as progress:
        rows = list(measure(plan, known, progress.notify))
    if measured.plot is not None:
        plot(measured.plot, rows)
    _write("models", rows, HEADINGS, [cells(row) for row in rows], report, notes(rows))
    return 1 if any(row["failed"] for row in rows) else 0


def decode(
    clip: Clip,
    timing: TimingOptions,
    report: ReportOptions,
    model: o.ModelOption = None,
    registry: o.RegistryOption = None,
) -> None:
    """Measure how fast each decoder reads the frames that a model needs of a clip.

    Examples:
    - `vidcls bench decode clip.mp4`
    - `vidcls bench decode clip.mp4 -m timesformer-base-k400`
    """
    from vidcls.bench import decode as bench
    from vidcls.config import load_registry

    report.check()
    known = load_registry(registry)
    (name,) = _models(None if model is None else [model], known)
    with _Progress(report, bench.STEPS) as progress:
        rows = bench.decode(
            clip,
            known[name].input,
            progress.notify,
            spread=timing.spread,
            seconds=timing.seconds,
            least=timing.repetitions,
        )
    _write("decode", rows, bench.HEADINGS, [bench.cells(row) for row in rows], report)


def predict(
    clip: Clip,
    model: o.ModelOptions,
    views: ViewOptions,
    machine: o.MachineOptions,
    approximate: o.ApproximateOptions,
    report: ReportOptions,
) -> None:
    """Measure the whole command `vidcls predict CLIP`, start-up and imports included.

    Examples:
    - `vidcls bench predict clip.mp4`
    - `vidcls bench predict clip.mp4 --engine openvino`
    """
    from vidcls.bench import predict as bench

    report.check()
    with _Progress(report, bench.STEPS) as progress:
        rows = bench.time_command(clip, arguments(model, views, machine, approximate), progress.notify)
    _write("predict", rows, bench.HEADINGS, [bench.cells(row) for row in rows], report)


def score(
    clip: Annotated[list[str], Argument(metavar="CLIP", help="Sources, as `vidcls score` takes them.")],
    model: o.ModelOptions,
    views: ViewOptions,
    machine: o.MachineOptions,
    approximate: o.ApproximateOptions,
    report: ReportOptions,
) -> None:
    """Measure how busy `vidcls score` keeps the model.

    Examples:
    - `vidcls bench score clips/`
    - `vidcls bench score clips/ -m vivit-fe --views 1`
    """
    from vidcls.bench import score as bench

    report.check()
    with _Progress(report, 1) as progress:
        progress.notify("vidcls score")
        row = bench.time_scoring(clip, arguments(model, views, machine, approximate))
    _write("score", [row], bench.HEADINGS, [bench.cells(row)], report)


COMMANDS = (models, decode, predict, score)


class _Progress:
    """What is being measured: a bar with the time left on a terminal, else one line for each step.

    Args:
        report: Whether to be quiet.
        steps: How many there are.
    """

    def __init__(self, report: ReportOptions, steps: int) -> None:
        from vidcls.output.progress import ProgressBar

        self._quiet = report.quiet
        self._total, self._begun = steps, 0
        self._bar = ProgressBar(unit="steps", shown=not report.quiet)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def notify(self, text: str, step: bool = True) -> None:
        """Say that a step begins; without ``step``, say something else."""
        if self._bar.shown and step:
            self._bar.update(self._begun, self._total, label=text)
        elif self._bar.shown:
            self._bar.print(text)
        elif not self._quiet:
            print_message(text)
        self._begun += step


def _models(names: list[str] | None, known: Registry) -> tuple[str, ...]:
    if names == ["all"]:
        return tuple(name for name, spec in known.items() if spec.published.top1 is not None)
    return tuple(dict.fromkeys(names or [known.default or "vivit-fe"]))


def _batches(text: str) -> tuple[int, ...]:
    found = whole_numbers(text, ",", MAX_BATCH)
    if not found:
        raise UsageError(
            "batch_size",
            f"{text!r} is not a list of sizes",
            f"give numbers from 1 to {MAX_BATCH}, as in 1,4,8",
        )
    return tuple(dict.fromkeys(found))


def _write(
    mode: str,
    rows: list[dict[str, Any]],
    headings: tuple[str, ...],
    table: list[tuple[str, ...]],
    report: ReportOptions,
    notes: list[str] | None = None,
) -> None:
    from vidcls.bench.machine import describe
    from vidcls.bench.report import print_table, write_json

    record = {"machine": describe(), "mode": mode, "rows": rows}
    if report.output is not None:
        write_json(report.output, record)
    if report.json:
        print(json_module.dumps(record, indent=2))
        return
    hidden = print_table(headings, table, sys.stdout.isatty())
    narrow = [f"a wider terminal or --json shows {', '.join(hidden)} too"] if hidden else []
    for line in [*narrow, *(notes or [])] if not report.quiet else []:
        print_message(line)
