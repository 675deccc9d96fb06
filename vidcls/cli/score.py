"""``vidcls score``: folders of clips → one row each, resumable."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidcls.cli import EXIT_INTERRUPTED, say
from vidcls.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Callable

    from vidcls.score.pipeline import Scorer
    from vidcls.score.run import Job, Summary
    from vidcls.score.setup import Setup

SCORING, INPUTS, CLUSTER = "Scoring", "Inputs", "Cluster"
ANNOUNCED = 2000  # clips that are counted beforehand, to choose an engine by: with so many any one pays


class Runner(str, Enum):
    """Where the scoring is done."""

    local = "local"
    ray = "ray"


def score(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders (with all below them), globs, files, addresses, lists (@list.txt), manifests "
            "(CSV, TSV, Parquet with a column of paths), or - for a list on stdin.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            envvar="VIDCLS_SCORE_OUTPUT",
            metavar="FILE",
            help="Where the rows go: .jsonl, .csv or .parquet.",
        ),
    ],
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    top_k: o.TopKOption = 5,
    all_scores: Annotated[
        bool,
        typer.Option("--all-scores", envvar="VIDCLS_ALL_SCORES", help="Write the scores of all classes too."),
    ] = False,
    views: o.ViewsOption = None,
    crops: o.CropsOption = None,
    frames: o.FramesOption = None,
    stride: o.StrideOption = None,
    fps: o.FpsOption = "auto",
    average: o.AverageOption = o.Average.logits,
    labels: o.LabelsOption = None,
    decoder: o.DecoderOption = o.Decoder.auto,
    decode_timeout: o.DecodeTimeoutOption = 60.0,
    device: Annotated[
        str,
        typer.Option(
            envvar="VIDCLS_DEVICE",
            rich_help_panel=o.MACHINE,
            metavar="auto|cpu|cuda|mps|A,B",
            help="Where the model runs; several, such as cuda:0,cuda:1, run one process each.",
        ),
    ] = "auto",
    precision: o.PrecisionOption = o.Precision.auto,
    engine: o.EngineOption = o.EngineName.auto,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            envvar="VIDCLS_WORKERS",
            rich_help_panel=SCORING,
            help="Decoding processes for each model.  [default: as many as keep the model busy]",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            envvar="VIDCLS_BATCH",
            rich_help_panel=SCORING,
            help="Views that go through the model together; halved when memory runs out.  [default: by the device]",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", rich_help_panel=SCORING, help="Try clips again that failed in an earlier run."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=SCORING, help="Replace what an earlier run wrote.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            envvar="VIDCLS_SHARD",
            rich_help_panel=CLUSTER,
            metavar="I/N",
            help="Score only part I of N, for job arrays; `vidcls merge` joins the parts.",
        ),
    ] = None,
    runner: Annotated[
        Runner,
        typer.Option(
            envvar="VIDCLS_RUNNER",
            rich_help_panel=CLUSTER,
            help="ray: as actors of Ray Data, on this machine or a cluster.",
        ),
    ] = Runner.local,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            rich_help_panel=CLUSTER,
            metavar="ADDRESS",
            help="Of a cluster: auto, local, or ray://HOST:10001.  [default: RAY_ADDRESS, else a new one here]",
        ),
    ] = None,
    ray_actors: Annotated[
        int | None,
        typer.Option(
            "--ray-actors",
            min=1,
            rich_help_panel=CLUSTER,
            help="Models on the cluster.  [default: one for each GPU, or for four CPUs]",
        ),
    ] = None,
    ray_gpus: Annotated[
        float | None,
        typer.Option(
            "--ray-gpus", min=0, rich_help_panel=CLUSTER, help="GPUs of each.  [default: 1 if there are any]"
        ),
    ] = None,
    path_column: Annotated[
        str | None,
        typer.Option(
            "--path-column",
            rich_help_panel=INPUTS,
            metavar="NAME",
            help="A manifest's column of paths.  [default: path, video, file …]",
        ),
    ] = None,
    root: Annotated[
        str,
        typer.Option(
            rich_help_panel=INPUTS,
            metavar="FOLDER",
            help="Where relative paths in lists and manifests count from.  [default: the current folder]",
        ),
    ] = "",
    registry: o.RegistryOption = None,
    random_weights: o.RandomWeightsOption = False,
    offline: o.OfflineOption = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Progress and errors as JSON lines on stderr.")
    ] = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Score folders of clips into one row per clip, from a handful to millions.

    Rows are safe on the disk within a second. Killed or interrupted, the same command goes on where it was; a clip
    that cannot be read gets a row with its error.
    """
    rate = o.parse_fps(fps)
    from vidcls.score import listing
    from vidcls.score.run import Job
    from vidcls.score.run import score as run
    from vidcls.score.setup import Setup

    load = {
        "model": model,
        "weights": weights,
        "labels": labels,
        "precision": precision.value,
        "engine": engine.value,
        "views": views,
        "crops": crops,
        "frames": frames,
        "stride": stride,
        "fps": rate,
        "average": average.value,
        "decoder": decoder.value,
        "decode_timeout": decode_timeout,
        "registry": None if registry is None else str(registry),
        "random_weights": random_weights,
        "offline": offline,
    }
    inputs = listing.Inputs(listing.sources_of(source), path_column, root)
    load["clips"] = inputs.at_least(ANNOUNCED)
    job = Job(
        inputs=inputs,
        output=output,
        setup=Setup({**load, "device": device}, top_k, all_scores, workers, batch),
        shard=listing.parse_shard(shard),
        retry_failed=retry_failed,
        overwrite=overwrite,
        make_scorer=_scorer(runner, ray_address, ray_actors, ray_gpus),
    )
    summary = run(job, {"json_lines": log_json, "quiet": quiet, "verbose": verbose})
    return _report(job, summary, log_json, quiet)


def _scorer(
    runner: Runner, address: str | None, actors: int | None, gpus: float | None
) -> Callable[[Setup], Scorer]:
    from vidcls.errors import UsageError
    from vidcls.score.multi_gpu import local_scorer

    if runner is Runner.local:
        if address is not None or actors is not None or gpus is not None:
            raise UsageError("--ray-…", "means something to --runner ray only", "add that, or leave it out")
        return local_scorer
    from vidcls.score.ray import Cluster, RayRunner

    return lambda setup: RayRunner(setup, Cluster(address, actors, gpus))


def _report(job: Job, summary: Summary, log_json: bool, quiet: bool) -> int:
    """Say how it went and return the exit code."""
    counts = summary.counts
    if log_json:
        _log(summary)
    elif not quiet:
        again = f", {counts.skipped:,} were done before" if counts.skipped else ""
        twice = f", {counts.duplicates:,} were listed twice" if counts.duplicates else ""
        waited = summary.stats.get("wait_share")
        busy = (
            ""
            if waited is None or not counts.scored
            else f"; the model waited {100 * waited:.0f} % of the time"
        )
        say(
            f"vidcls: {counts.scored:,} clips scored{again}{twice}; {job.output} has {summary.rows:,} rows{busy}"
        )
    if not log_json:
        for kind, count in summary.failed.most_common():
            example = summary.examples.get(kind)
            say(f"vidcls: {count:,} failed: {kind}" + (f", such as {example}" if example else " (before)"))
        if summary.interrupted:
            say("vidcls: interrupted; what was scored is kept, and the same command goes on from there")
    if summary.interrupted:
        return EXIT_INTERRUPTED
    return 1 if summary.failed else 0


def _log(summary: Summary) -> None:
    import json
    import time

    facts: dict[str, Any] = {
        "event": "interrupted" if summary.interrupted else "finished",
        "time": round(time.time(), 3),
        "scored": summary.counts.scored,
        "done_before": summary.counts.skipped,
        "listed_twice": summary.counts.duplicates,
        "failed": dict(summary.failed),
        "examples": summary.examples,
        "rows": summary.rows,
        **summary.stats,
    }
    say(json.dumps(facts))
