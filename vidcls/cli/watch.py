"""``vidcls watch``: what a camera or a stream shows now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message, print_notes
from vidcls.cli.groups import keywords

if TYPE_CHECKING:
    from vidcls.inference.live import Moment


def watch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Number of a camera (0), rtsp://…, http(s)://…/stream.ts, or a video file.",
        ),
    ],
    model: o.ModelOptions,
    machine: o.MachineOptions,
    every: Annotated[float, typer.Option(min=0.0, max=3600.0, help="Seconds between two answers.")] = 1.0,
    hold: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Answers in a row that a new label must win before it is printed."
        ),
    ] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    quiet: o.QuietOption = False,
) -> int:
    """Print a line whenever the label of a camera or a stream changes, until Ctrl-C or its end.

    One view of the last seconds is classified again and again. Frames that arrive while the model is busy are dropped,
    so that the answers never lag; a file is processed from start to end, and nothing of it is dropped.

    Examples:
    - `vidcls watch 0`
    - `vidcls watch rtsp://camera.local/stream --json --every 2 -m vivit-b-16x2-k400-hf`
    """
    from vidcls.errors import UsageError

    if machine.decoder not in ("auto", "pyav"):
        raise UsageError("decoder", "a live source is read by PyAV", "leave it out")
    from vidcls.inference.live import span
    from vidcls.inference.live import watch as run
    from vidcls.inference.load import load
    from vidcls.video.urls import is_live

    with load(**keywords(model, machine), num_views=1, num_crops=1) as classifier:
        if not quiet:
            print_notes(classifier, hint=model.is_default)
            print_message(f"vidcls: each answer is about the last {span(classifier):.1f} s; Ctrl-C ends it")
        live = is_live(source)
        moments = run(classifier, source, every=every, live=live, timeout=machine.decode_timeout)
        shown = candidate = None
        count = 0
        for moment in moments:
            label = moment.prediction.label
            count = count + 1 if label == candidate else 1
            candidate = label
            if label != shown and count >= hold:
                print(_line(moment, shown, json), flush=True)
                shown = label
    return 0


def _line(moment: Moment, before: str | None, as_json: bool) -> str:
    from vidcls.errors import printable

    prediction = moment.prediction
    if not as_json:
        return f"{moment.time:9.1f} s  {100 * (prediction.score or 0):5.1f}%  {printable(prediction.label or '')}"
    from vidcls.output.text import json_text

    facts: dict[str, Any] = {
        "time": round(moment.time, 3),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "source": prediction.row["path"],
        "label": prediction.label,
        "score": prediction.score,
        "before": before,
        "delay": round(moment.delay, 3),
        "predictions": prediction.row["predictions"],
    }
    return json_text(facts)
