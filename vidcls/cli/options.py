"""Options that several commands share, each declared once with one help text; see `vidcls.cli.groups`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vidcls.cli.groups import Choices, Options

DATA = "Advanced: data"
data_option = partial(Option, rich_help_panel=DATA)
model_option, views_option, machine_option, inputs_option, scoring_option = (
    partial(Option, rich_help_panel=f"Advanced: {panel}")
    for panel in ("model", "views", "machine", "inputs", "scoring")
)
output_option = partial(Option, "--output", "-o")


def complete_models(incomplete: str) -> list[str]:
    """Offer the registry's names to the shell; a broken registry offers none."""
    from vidcls.config import load_registry
    from vidcls.errors import VidclsError

    try:
        return [name for name in load_registry() if name.startswith(incomplete)]
    except VidclsError:
        return []


ModelOption = Annotated[
    str | None,
    Option(
        "--model",
        "-m",
        autocompletion=complete_models,
        metavar="NAME",
        help="Model name or checkpoint; `vidcls models` lists the names.",
    ),
]
RegistryOption = Annotated[
    Path | None,
    model_option(metavar="FILE", help="A models.yaml laid over the one that comes with vidcls."),
]
LabelsOption = Annotated[
    str | None,
    model_option(metavar="FILE", help="One label per line, or the name of a list that comes with vidcls."),
]
OfflineOption = Annotated[bool, model_option("--offline", help="Never use the network for weights.")]
_sources = Argument(
    metavar="SOURCE",
    help="Files, folders, globs, URLs, lists (@list.txt), manifests (CSV, TSV or Parquet with a column of paths), "
    "or - for one clip or a list on stdin.",
)
Sources = Annotated[list[str], _sources]
SomeSources = Annotated[list[str] | None, _sources]
TopKOption = Annotated[int, Option("--top-k", "-k", min=1, help="Number of labels to report per clip.")]
JsonOption = Annotated[bool, Option("--json", help="Print everything as JSON.")]
QuietOption = Annotated[bool, Option("--quiet", "-q", help="Print only errors on stderr.")]
VerboseOption = Annotated[bool, Option("--verbose", "-v", help="Print details on stderr.")]
WideOption = Annotated[
    bool,
    Option(
        "--wide", help="CSV, TSV: one line for each clip, its labels side by side.  [default: one per label]"
    ),
]
ThumbnailsOption = Annotated[
    int, Option(min=0, max=10_000, help="Number of clips whose frames the page shows; 0 for none.")
]
OverwriteOption = Annotated[bool, Option("--overwrite", help="Replace existing output.")]


@dataclass(frozen=True)
class ModelOptions(Options):
    """Which model, with which weights and labels; keywords of `vidcls.load`."""

    model: ModelOption = None
    weights: Annotated[
        str | None, Option(metavar="PATH|URL|hub:ID", help="Checkpoint to use instead of the model's own.")
    ] = None
    labels: LabelsOption = None
    registry: RegistryOption = None
    random_weights: Annotated[
        bool, model_option("--random-weights", help="Run the architecture untrained; every result says so.")
    ] = False
    offline: OfflineOption = False

    @property
    def is_default(self) -> bool:
        """Whether no model was named."""
        return self.model is None and self.weights is None


@dataclass(frozen=True)
class MachineOptions(Options):
    """What decodes the clips and runs the model; keywords of `vidcls.load`."""

    device: Annotated[str, Option(metavar="auto|cpu|cuda|mps", help="Where the model runs.")] = "auto"
    precision: Annotated[
        str,
        machine_option(help="auto: fp32 on CPU, bf16 on a CUDA device."),
        Choices("vidcls.engines:PRECISIONS", also=("auto",)),
    ] = "auto"
    engine: Annotated[
        str,
        machine_option(help="auto: the fastest that does not change answers."),
        Choices("vidcls.engines:ENGINES", also=("auto",)),
    ] = "auto"
    decoder: Annotated[
        str,
        machine_option(help="auto: PyAV; decord for what it fails on."),
        Choices("vidcls.video.decoders:DECODERS", also=("auto",)),
    ] = "auto"
    decode_timeout: Annotated[
        float, machine_option(min=0.1, help="Seconds after which a decoder that hangs is killed.")
    ] = 60.0


@dataclass(frozen=True)
class ApproximateOptions(Options):
    """What makes a model faster and its answers approximate; keywords of `vidcls.load`."""

    merge_tokens: Annotated[
        float,
        machine_option(
            min=0.0,
            max=0.9,
            metavar="SHARE",
            help="Merge this share of similar tokens, as 0.5: faster, approximate; engine eager.",
        ),
    ] = 0.0


@dataclass(frozen=True)
class ManyDevices(MachineOptions):
    """`MachineOptions` where several devices may share the work."""

    device: Annotated[
        str,
        Option(
            metavar="auto|cpu|cuda|mps|A,B",
            help="Where the model runs; several, such as cuda:0,cuda:1, run one process each.",
        ),
    ] = "auto"


@dataclass(frozen=True)
class PipelineOptions(Options):
    """How many decoders feed a model, and how much it takes at once."""

    workers: Annotated[
        int | None,
        scoring_option(
            min=1, max=256, help="Decoding processes per model.  [default: as many as keep the model busy]"
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        scoring_option(
            min=1,
            max=4096,
            help="Views in one forward pass; halved when memory runs out.  [default: by the device]",
        ),
    ] = None


@dataclass(frozen=True)
class InputOptions(Options):
    """How folders, lists and manifests are read."""

    path_column: Annotated[
        str | None,
        inputs_option(metavar="NAME", help="Column of paths in a manifest.  [default: path, video, file …]"),
    ] = None
    root: Annotated[
        str,
        inputs_option(
            metavar="FOLDER",
            help="Folder that relative paths in lists and manifests start from.  [default: the current one]",
        ),
    ] = ""
    recursive: Annotated[
        bool,
        inputs_option("--recursive/--no-recursive", help="Whether subfolders are searched too."),
    ] = True


@dataclass(frozen=True)
class LabeledOptions(Options):
    """How a labeled set is read."""

    videos: Annotated[
        Path | None, data_option(metavar="FOLDER", help="Folder that relative paths in a list start from.")
    ] = None
    labels_format: Annotated[
        str | None,
        data_option(help="Format of the list.  [default: detected]"),
        Choices("vidcls.training.data.forms:FORMS"),
    ] = None
    delimiter: Annotated[
        str | None,
        data_option(metavar="CHARACTER", help="Separator of the list's columns.  [default: detected]"),
    ] = None
    multi_label: Annotated[
        bool,
        data_option(
            "--multi-label",
            help="A clip may have several labels: run|jump; a column called labels says so too.",
        ),
    ] = False


@dataclass(frozen=True)
class OutputOptions(Options):
    """Where results go, in which format."""

    output: Annotated[Path | None, output_option(metavar="FILE", help="Write the results to this file.")] = (
        None
    )
    format: Annotated[
        str | None,
        Option(
            "--format",
            "-f",
            help="Format of the results.  [default: by the suffix of -o; table on a terminal, tsv in a pipe]",
        ),
        Choices("vidcls.output.formats:FORMATS"),
    ] = None
    overwrite: OverwriteOption = False


@dataclass(frozen=True)
class RowsOutput(OutputOptions):
    """`OutputOptions` for rows of clips."""

    wide: WideOption = False
