"""``vidcls bench``: how fast models, decoders, the command and the batch pipeline are here."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import say
from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.config import Registry

MODES = ("models", "decode", "predict", "score")


def bench(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[decode CLIP | predict CLIP | score CLIP...]",
            help="Decoders, the whole command, or the batch pipeline; without it, models' forward passes.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            autocompletion=o.complete_models,
            metavar="NAME",
            help="Name in the registry; may be given several times. `all`: all with a published accuracy.",
        ),
    ] = None,
    weights: o.WeightsOption = None,
    engine: Annotated[
        list[o.EngineName] | None,
        typer.Option(
            help="May be given several times.  [default: eager, and openvino where it is installed]"
        ),
    ] = None,
    precision: Annotated[
        list[o.Precision] | None,
        typer.Option(help="May be given several times.  [default: fp32 and bf16]"),
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="N,N,...", help="Views that go through the model together.")
    ] = "1",
    views: o.ViewsOption = None,
    crops: o.CropsOption = None,
    frames: o.FramesOption = None,
    device: o.DeviceOption = "auto",
    compare: Annotated[
        str | None,
        typer.Option(metavar="transformers", help="Measure transformers' model of the same weights too."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="Time for one figure, beyond its first three calls.")
    ] = 20.0,
    spread: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Spread at which a figure is good enough.")
    ] = 0.05,
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON on stdout.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write everything as JSON here.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Plot accuracy against speed, as .png, .svg or .pdf.")
    ] = None,
    registry: o.RegistryOption = None,
    quiet: o.QuietOption = False,
) -> int:
    """Measure speed, and check every answer against eager fp32 while at it.

    Models without weights on this machine run with random ones: speed does not depend on them, and it is said.
    """
    if compare not in (None, "transformers"):
        raise UsageError("--compare", f"cannot compare with {compare!r}", "use --compare transformers")
    from vidcls.config import load_registry

    known = load_registry(registry)
    mode, *clips = what or ["models"]
    if mode not in MODES or (mode == "models") == bool(clips):
        raise UsageError(
            mode, "no such thing to measure", "use decode CLIP, predict CLIP, score CLIP..., or none"
        )
    talk = (lambda text: None) if quiet else say
    if mode != "models":
        if mode != "score" and len(clips) != 1:
            raise UsageError(mode, f"takes one clip, not {len(clips)}", "name one")
        options = _shared_options(model, weights, engine, precision, views, crops, frames, device, registry)
        headings, rows, lines = _other(mode, clips, known, model, options, spread, seconds)
        return _write({"mode": mode, "rows": rows}, headings, lines, [], json, output, talk)
    from vidcls.bench.models import Plan, measure
    from vidcls.bench.report import HEADINGS, cells, notes
    from vidcls.bench.report import plot as make_plot
    from vidcls.engines import has_openvino

    engines = [e.value for e in engine or []] or ["eager", *(["openvino"] if has_openvino() else [])]
    plan = Plan(
        models=_models(model, known),
        engines=tuple(dict.fromkeys(engines)),
        precisions=tuple(dict.fromkeys(p.value for p in precision or [o.Precision.fp32, o.Precision.bf16])),
        batches=_batches(batch),
        device=device,
        weights=weights,
        views=views,
        crops=crops,
        frames=frames,
        compare=compare is not None,
        spread=spread,
        seconds=seconds,
        registry=None if registry is None else str(registry),
    )
    if "auto" in plan.engines or "auto" in plan.precisions:
        raise UsageError("bench", "measures engines and precisions by name", "name them instead of auto")
    rows = list(measure(plan, known, talk))
    if plot is not None:
        make_plot(plot, rows)
    table = [cells(row) for row in rows]
    code = _write({"mode": "models", "rows": rows}, HEADINGS, table, notes(rows), json, output, talk)
    return code or (1 if any(row["failed"] for row in rows) else 0)


def _models(names: list[str] | None, known: Registry) -> tuple[str, ...]:
    if names == ["all"]:
        return tuple(name for name, spec in known.items() if spec.published.top1 is not None)
    return tuple(dict.fromkeys(names or [known.default or "vivit-fe"]))


def _batches(text: str) -> tuple[int, ...]:
    try:
        batches = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        batches = (0,)
    if not all(1 <= batch <= 4096 for batch in batches):
        raise UsageError(
            "--batch", f"{text!r} is no list of sizes", "give numbers from 1 to 4096, such as 1,4,8"
        )
    return batches


def _shared_options(
    model: list[str] | None,
    weights: str | None,
    engine: list[o.EngineName] | None,
    precision: list[o.Precision] | None,
    views: int | None,
    crops: int | None,
    frames: int | None,
    device: str,
    registry: Path | None,
) -> list[str]:
    """Options for ``predict`` and ``score``, which take one of each."""
    for name, values in (("--model", model), ("--engine", engine), ("--precision", precision)):
        if values is not None and len(values) > 1:
            raise UsageError(name, "is given several times", "give it once here")
    given: dict[str, Any] = {
        "--model": model[0] if model else None,
        "--weights": weights,
        "--engine": engine[0].value if engine else None,
        "--precision": precision[0].value if precision else None,
        "--views": views,
        "--crops": crops,
        "--frames": frames,
        "--device": device,
        "--registry": registry,
    }
    return [part for key, value in given.items() if value is not None for part in (key, str(value))]


def _other(
    mode: str,
    clips: list[str],
    known: Registry,
    model: list[str] | None,
    options: list[str],
    spread: float,
    seconds: float,
) -> tuple[tuple[str, ...], list[dict[str, Any]], list[tuple[str, ...]]]:
    """Measure something other than models → headings, rows, and the rows as text."""
    if mode == "decode":
        from vidcls.bench import decode as module

        rows = module.decode(clips[0], known[_models(model, known)[0]].input, spread=spread, seconds=seconds)
        return module.HEADINGS, rows, [module.cells(row) for row in rows]
    if mode == "predict":
        from vidcls.bench import predict

        rows = predict.whole(clips[0], options)
        return predict.HEADINGS, rows, [predict.cells(row) for row in rows]
    from vidcls.bench import score

    row = score.pipeline(clips, options)
    return score.HEADINGS, [row], [score.cells(row)]


def _write(
    record: dict[str, Any],
    headings: tuple[str, ...],
    table: list[tuple[str, ...]],
    notes: list[str],
    json: bool,
    output: Path | None,
    talk: Any,
) -> int:
    from vidcls.bench.machine import describe
    from vidcls.bench.report import print_table, write_json

    record = {"machine": describe(), **record}
    if output is not None:
        write_json(output, record)
    if json:
        print(json_module.dumps(record, indent=2))
    else:
        print_table(headings, table, sys.stdout.isatty())
        for line in notes:
            talk(line)
    return 0
