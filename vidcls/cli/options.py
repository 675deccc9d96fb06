"""Options that several commands share: one meaning, one help text, one environment variable each."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from vidcls.errors import UsageError


class Average(str, Enum):
    """What is averaged over a clip's views."""

    logits = "logits"
    probs = "probs"


class Decoder(str, Enum):
    """What reads the video."""

    auto = "auto"
    decord = "decord"
    pyav = "pyav"


class Precision(str, Enum):
    """Number format of the forward pass."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class EngineName(str, Enum):
    """What runs the model."""

    auto = "auto"
    eager = "eager"
    compile = "compile"
    openvino = "openvino"
    numpy = "numpy"


def complete_models(incomplete: str) -> list[str]:
    """Offer the registry's names to the shell; a broken registry offers none."""
    from vidcls.config import load_registry
    from vidcls.errors import VidclsError

    try:
        return [name for name in load_registry() if name.startswith(incomplete)]
    except VidclsError:
        return []


VIEWS = "Views"
MODEL = "Model"
MACHINE = "Machine"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="VIDCLS_MODEL",
        autocompletion=complete_models,
        rich_help_panel=MODEL,
        metavar="NAME",
        help="Name in the registry, or a checkpoint; `vidcls models` lists the names.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        envvar="VIDCLS_WEIGHTS",
        rich_help_panel=MODEL,
        metavar="PATH|URL|hub:ID",
        help="Checkpoint to use instead of the registry's.",
    ),
]
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        envvar="VIDCLS_REGISTRY",
        rich_help_panel=MODEL,
        metavar="FILE",
        help="A models.yaml laid over the one that ships with vidcls.",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        envvar="VIDCLS_LABELS",
        rich_help_panel=MODEL,
        metavar="FILE",
        help="One label a line, or the name of a list that ships with vidcls.",
    ),
]
RandomWeightsOption = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        envvar="VIDCLS_RANDOM_WEIGHTS",
        rich_help_panel=MODEL,
        help="Run the architecture untrained; every result says so.",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline", envvar="VIDCLS_OFFLINE", rich_help_panel=MODEL, help="Never use the network for weights."
    ),
]
TopKOption = Annotated[
    int, typer.Option("--top-k", "-k", min=1, envvar="VIDCLS_TOP_K", help="Labels to give for each clip.")
]
ViewsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        envvar="VIDCLS_VIEWS",
        rich_help_panel=VIEWS,
        help="Clips in time, averaged.  [default: the model's, mostly 4]",
    ),
]
CropsOption = Annotated[
    int | None,
    typer.Option(
        envvar="VIDCLS_CROPS",
        rich_help_panel=VIEWS,
        metavar="1|3",
        help="Crops in space of each clip.  [default: the model's, mostly 1]",
    ),
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65536,
        envvar="VIDCLS_FRAMES",
        rich_help_panel=VIEWS,
        help="Frames of a clip.  [default: the model's, mostly 32]",
    ),
]
FramesOrAllOption = Annotated[
    str | None,
    typer.Option(
        "--frames",
        envvar="VIDCLS_FRAMES",
        rich_help_panel=VIEWS,
        metavar="N|all",
        help="Frames of a clip; all: every frame of the file, for models that look at each frame first.  "
        "[default: the model's, mostly 32]",
    ),
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option(
        "--features",
        envvar="VIDCLS_FEATURES",
        rich_help_panel=VIEWS,
        metavar="FOLDER",
        help="Keep the frames' features here and use them again, for models that look at each frame first.",
    ),
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=4096,
        envvar="VIDCLS_STRIDE",
        rich_help_panel=VIEWS,
        help="Frames from one sampled frame to the next.  [default: the model's, mostly 2]",
    ),
]
FpsOption = Annotated[
    str,
    typer.Option(
        envvar="VIDCLS_FPS",
        rich_help_panel=VIEWS,
        metavar="auto|native|N",
        help="auto: frames spaced in time as in training; native: as counted in the file; N: as at N per second.",
    ),
]
AverageOption = Annotated[
    Average,
    typer.Option(
        envvar="VIDCLS_AVERAGE", rich_help_panel=VIEWS, help="What is averaged over the views of a clip."
    ),
]
DecoderOption = Annotated[
    Decoder,
    typer.Option(
        envvar="VIDCLS_DECODER",
        rich_help_panel=MACHINE,
        help="auto: decord, and PyAV for what it cannot read.",
    ),
]
DecodeTimeoutOption = Annotated[
    float,
    typer.Option(
        "--decode-timeout",
        min=0.1,
        envvar="VIDCLS_DECODE_TIMEOUT",
        rich_help_panel=MACHINE,
        help="Seconds after which a decoder that hangs is killed.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        envvar="VIDCLS_DEVICE",
        rich_help_panel=MACHINE,
        metavar="auto|cpu|cuda|mps",
        help="Where the model runs.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        envvar="VIDCLS_PRECISION",
        rich_help_panel=MACHINE,
        help="auto: fp32 on CPU, bf16 on a CUDA device; int8 wants `vidcls quantize` first.",
    ),
]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        envvar="VIDCLS_ENGINE",
        rich_help_panel=MACHINE,
        help="auto: the fastest that does not change answers.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]


def parse_fps(text: str) -> Literal["auto", "native"] | float:
    """Return ``auto``, ``native`` or a rate in 1/s.

    Raises:
        UsageError: It is none of these.
    """
    if text == "auto":
        return "auto"
    if text == "native":
        return "native"
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise UsageError("--fps", f"{text!r} is no frame rate", "use auto, native or a number from 0 to 1000")
    return rate
