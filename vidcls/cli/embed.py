"""``vidcls embed``: folders of clips → vectors, resumable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from vidcls.cli import options as o
from vidcls.cli.groups import Choices, Options
from vidcls.cli.score import ClusterOptions, RunOptions, run, work
from vidcls.cli.view_options import ViewOptions


@dataclass(frozen=True)
class VectorOptions(Options):
    """Which vectors are wanted."""

    layer: Annotated[
        str,
        Option(
            help="head: what the classifier's last layer reads; cls: the class token; mean: the mean of the other "
            "tokens after the last block."
        ),
        Choices("vidcls.engines.embedding:LAYERS"),
    ] = "head"
    per: Annotated[
        str,
        Option(help="One vector for each clip, each view, or each frame or tubelet."),
        Choices("vidcls.engines.embedding:PER"),
    ] = "clip"


def embed(
    source: o.Sources,
    output: Annotated[
        str, o.output_option(metavar="FILE", help="Where the vectors go: a .parquet or .npz file.")
    ],
    vectors: VectorOptions,
    model: o.ModelOptions,
    views: ViewOptions,
    machine: o.ManyDevices,
    running: RunOptions,
    cluster: ClusterOptions,
    inputs: o.InputOptions,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
) -> int:
    """Turn clips into vectors (embeddings) for search, clustering or a classifier.

    If the run is killed or interrupted, the same command resumes it; a clip that cannot be read gets a row with its
    error.

    Examples:
    - `vidcls embed clips/ -o clips.parquet`
    - `vidcls embed clips/ -o frames.npz --layer mean --per frame`
    """
    from vidcls.engines.embedding import EmbeddingRequest
    from vidcls.output.formats import EMBEDDED
    from vidcls.score.run import Job

    setup = {"embedding": EmbeddingRequest(vectors.layer, vectors.per)}
    parts = work(source, output, (model, views, machine), setup, running, cluster, inputs)
    return run(Job(**parts, kind=EMBEDDED), running.log_json, quiet, verbose)
