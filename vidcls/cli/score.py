"""``vidcls score``: folders of clips → one row each, resumable."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vidcls.cli import EXIT_INTERRUPTED, print_message
from vidcls.cli import options as o
from vidcls.cli.groups import Choices, Options, keywords
from vidcls.cli.view_options import AutoViewOptions
from vidcls.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from vidcls.score.run import Job, Summary
    from vidcls.score.scorer import Scorer
    from vidcls.score.setup import Setup

cluster_option = partial(Option, rich_help_panel="Advanced: cluster")
FormatOption = Annotated[
    str | None,
    Option("--format", "-f", help="Format of the rows.  [default: by the suffix of -o]"),
    Choices("vidcls.output.formats:FORMATS"),
]
ANNOUNCED = 2000  # clips that are counted beforehand, to choose an engine by: with so many any one pays


@dataclass(frozen=True)
class RowsOptions(Options):
    """How the rows are written."""

    format: FormatOption = None
    wide: o.WideOption = False


@dataclass(frozen=True)
class RunOptions(o.PipelineOptions):
    """How the work is done, and again."""

    retry_failed: Annotated[
        bool, Option("--retry-failed", help="Try clips again that failed in an earlier run.")
    ] = False
    overwrite: o.OverwriteOption = False
    log_json: Annotated[
        bool, o.scoring_option("--log-json", help="Progress and errors as JSON lines on stderr.")
    ] = False


@dataclass(frozen=True)
class ScoringOptions(RunOptions):
    """`RunOptions`, and what is written."""

    all_scores: Annotated[bool, Option("--all-scores", help="Also write the scores of all classes.")] = False


@dataclass(frozen=True)
class ClusterOptions(Options):
    """Which part of the work is done, and where."""

    shard: Annotated[
        str | None,
        cluster_option(
            metavar="I/N", help="Score only part I of N, for job arrays; `vidcls merge` joins the parts."
        ),
    ] = None
    runner: Annotated[
        str,
        cluster_option(help="ray: actors of Ray Data, on this machine or a cluster."),
        Choices(("local", "ray")),
    ] = "local"
    ray_address: Annotated[
        str | None,
        cluster_option(
            metavar="ADDRESS",
            help="The cluster: auto, local, or HOST:6379.  [default: RAY_ADDRESS, else a new one here]",
        ),
    ] = None
    ray_actors: Annotated[
        int | None,
        cluster_option(min=1, help="Models on the cluster.  [default: one per GPU, or per four CPUs]"),
    ] = None
    ray_gpus: Annotated[
        float | None, cluster_option(min=0, help="GPUs per model.  [default: 1 if there are any]")
    ] = None

    def scorer(self) -> Callable[[Setup], Scorer]:
        """Return what makes the scorer."""
        from vidcls.errors import UsageError
        from vidcls.score.multi_gpu import local_scorer

        ray = (self.ray_address, self.ray_actors, self.ray_gpus)
        if self.runner == "ray":
            from vidcls.score.ray import Cluster, RayRunner

            return lambda setup: RayRunner(setup, Cluster(*ray))
        if any(value is not None for value in ray):
            raise UsageError("--ray-…", "needs --runner ray", "add it, or leave the option out")
        return local_scorer


def score(
    source: o.Sources,
    output: Annotated[
        str,
        o.output_option(
            metavar="FILE", help="Where the rows go: a .jsonl, .csv, .tsv, .parquet or .json file."
        ),
    ],
    model: o.ModelOptions,
    views: AutoViewOptions,
    machine: o.ManyDevices,
    approximate: o.ApproximateOptions,
    rows: RowsOptions,
    scoring: ScoringOptions,
    cluster: ClusterOptions,
    inputs: o.InputOptions,
    top_k: o.TopKOption = 5,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Classify folders of clips, from a handful to millions, into one row per clip.

    Rows are safe on disk within a second. If the run is killed or interrupted, the same command resumes it; a clip
    that cannot be read gets a row with its error.

    Examples:
    - `vidcls score clips/ -o scores.parquet`
    - `vidcls score clips.csv -o part1.jsonl --shard 1/8`
    """
    from vidcls.score.run import Job

    setup = {"top_k": top_k, "all_scores": scoring.all_scores}
    job = Job(
        **work(source, output, (model, views, machine, approximate), setup, scoring, cluster, inputs),
        **rows.keywords(),
    )
    return run(job, scoring.log_json, quiet, verbose)


def work(
    source: list[str],
    output: str,
    load: tuple[o.ModelOptions, Unpack[tuple[Options, ...]]],
    setup: dict[str, Any],
    running: RunOptions,
    cluster: ClusterOptions,
    inputs: o.InputOptions,
) -> dict[str, Any]:
    """Return what a `vidcls.score.Job` is made of.

    Args:
        source: The clips.
        output: Where the rows go.
        load: The model and how it runs.
        setup: What else `vidcls.score.setup.Setup` takes.
        running: How the work is done.
        cluster: Where, and which part of it.
        inputs: How lists are read.
    """
    from vidcls.score import listing
    from vidcls.score.setup import Setup

    listed = listing.Inputs(listing.sources_of(source), **inputs.keywords())
    registry = load[0].registry
    more = {"registry": registry and str(registry), "clips": listed.at_least(ANNOUNCED)}
    model = {**keywords(*load), **more}
    return {
        "inputs": listed,
        "output": output,
        "setup": Setup(model, workers=running.workers, batch=running.batch_size, **setup),
        "shard": listing.parse_shard(cluster.shard),
        "retry_failed": running.retry_failed,
        "overwrite": running.overwrite,
        "make_scorer": cluster.scorer(),
    }


def run(job: Job, log_json: bool, quiet: bool, verbose: bool) -> int:
    """Run a job, print how it went and return the exit code."""
    from vidcls.score.run import score

    summary = score(job, {"json_lines": log_json, "quiet": quiet, "verbose": verbose})
    return _report(job, summary, log_json, quiet, verbose)


def _report(job: Job, summary: Summary, log_json: bool, quiet: bool, verbose: bool) -> int:
    """Print how it went and return the exit code."""
    counts = summary.counts
    if log_json:
        _log(summary)
    else:
        if not quiet:
            again = f", {counts.skipped:,} had been {job.kind.done} before" if counts.skipped else ""
            twice = f", {counted(counts.duplicates, 'duplicate')} ignored" if counts.duplicates else ""
            rows = f"{job.output} has {job.kind.content(summary.rows, summary.good)}"
            print_message(f"vidcls: {counted(counts.scored, 'clip')} {job.kind.done}{again}{twice}; {rows}")
            if summary.stats.get("frames"):
                print_message(f"vidcls: {_views(summary.stats)}")
        waited = summary.stats.get("wait_share")
        if verbose and waited is not None and counts.scored:
            print_message(f"vidcls: the model was busy {100 * (1 - waited):.0f} % of the time")
        for kind, count in summary.failed.most_common():
            example = summary.examples.get(kind)
            where = f", such as {example}" if example else " (in an earlier run)"
            print_message(f"vidcls: {count:,} failed: {kind}{where}")
        if summary.failed and not quiet and not job.retry_failed:
            print_message("vidcls: the same command with --retry-failed tries the failed clips again")
        if summary.interrupted:
            print_message(
                f"vidcls: interrupted; what was {job.kind.done} is kept, and the same command resumes"
            )
    if summary.interrupted:
        return EXIT_INTERRUPTED
    return 1 if summary.failed else 0


def _views(stats: dict[str, Any]) -> str:
    """Describe what `--views auto` cost and spared."""
    spared = stats["frames_spared"] / (stats["frames"] + stats["frames_spared"])
    views = stats["views"] / max(stats["clips"], 1)
    return f"{views:.2f} views per clip were scored; {spared:.0%} of the frames spared"


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
    print_message(json.dumps(facts))
