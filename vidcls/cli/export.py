"""``vidcls export``: a model in the format of another runtime, or as one self-describing checkpoint."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Choices, Options
from vidcls.cli.values import whole_numbers
from vidcls.cli.view_options import ViewOptions
from vidcls.errors import UsageError

checkpoint_option = partial(Option, rich_help_panel="What the checkpoint leaves open")
int8_option = partial(Option, rich_help_panel="int8")


@dataclass(frozen=True)
class CheckpointOptions(Options):
    """What a checkpoint's tensors leave open; keywords of `vidcls.checkpoints.read_checkpoint`."""

    architecture: Annotated[
        str | None, checkpoint_option(metavar="NAME", help="Architecture, such as vivit-fdp.")
    ] = None
    source_format: Annotated[
        str | None,
        checkpoint_option(metavar="NAME", help="Format of the weights.  [default: detected]"),
    ] = None
    image_size: Annotated[
        str | None,
        checkpoint_option(
            metavar="N|HxW", help="Height and width of a view; positions are interpolated if necessary."
        ),
    ] = None
    num_heads: Annotated[int | None, checkpoint_option("--heads", min=1, help="Attention heads.")] = None
    temporal_num_heads: Annotated[
        int | None, checkpoint_option("--temporal-heads", min=1, help="Heads of the temporal encoder.")
    ] = None
    attention_order: Annotated[
        str | None,
        checkpoint_option(help="Order of attention of vivit-fsa."),
        Choices(("space_time", "time_space")),
    ] = None
    attention_window: Annotated[
        int | None, checkpoint_option(min=1, help="Attention window of vtn, both sides together.")
    ] = None

    def config(self) -> dict[str, Any]:
        """Return what was said, as keywords of the architecture."""
        said = self.keywords() | {"image_size": parse_size(self.image_size)}
        del said["architecture"], said["source_format"]
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class CalibrationOptions(Options):
    """Clips for int8."""

    calibrate: Annotated[
        list[str] | None,
        int8_option(
            metavar="CLIPS",
            help="Files, folders, globs or @list.txt of clips like those to classify; repeatable.",
        ),
    ] = None
    truth: Annotated[
        Path | None,
        int8_option(metavar="FILE", help="CSV of path,label: report the accuracy before and after."),
    ] = None
    limit: Annotated[int, int8_option(min=1, max=10000, help="Clips to use at most.")] = 32


VIEW = ("num_views", "num_crops", "num_frames", "stride", "average")


def export(
    model: o.ModelOptions,
    views: ViewOptions,
    checkpoint: CheckpointOptions,
    calibration: CalibrationOptions,
    format: Annotated[str, Option(help="Format to write."), Choices("vidcls.engines.artifact:FORMATS")],
    precision: Annotated[
        str, Option(help="Number format of the model."), Choices("vidcls.engines:PRECISIONS")
    ] = "fp32",
    output: Annotated[
        Path | None,
        o.output_option(
            metavar="PATH", help="File (safetensors) or folder to write.  [default for openvino: the cache]"
        ),
    ] = None,
    pixels: Annotated[
        bool, Option("--pixels", help="onnx, pt2: the model takes uint8 frames and normalizes them itself.")
    ] = False,
    overwrite: o.OverwriteOption = False,
    json: o.JsonOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Write a model for another runtime, or a checkpoint of any published format as one safetensors file.

    The output describes itself: preprocessing, labels, precision and the measured difference from PyTorch in fp32.
    Every command takes it as --weights. Without -o, an OpenVINO model goes into the cache, and --engine auto uses it
    from then on. No code in a checkpoint is run: files that need code to be opened are refused.

    Examples:
    - `vidcls export --model vivit-b-16x2-k400-hf --format openvino`
    - `vidcls export --weights model.pyth --format safetensors -o model.safetensors`
    """
    from vidcls.inference.export import Calibration, ExportRequest, export_model
    from vidcls.video.sources import expand
    from vidcls.zoo.find import CheckpointKeywords, find_model

    _refuse(model, views, calibration)
    request = ExportRequest(
        format,
        precision,
        output,
        overwrite,
        model.labels,
        {name: getattr(views, name) for name in VIEW},
        pixels,
    )
    request.check()
    clips = None
    if calibration.calibrate:
        clips = Calibration(expand(calibration.calibrate), calibration.limit, calibration.truth)
    keywords = model.keywords()
    del keywords["labels"]
    keywords["keywords"] = CheckpointKeywords(
        views.num_frames, checkpoint.architecture, checkpoint.source_format, checkpoint.config()
    )
    report = export_model(
        find_model(**keywords), request, clips, (lambda text: None) if quiet else print_message
    )
    if json:
        print(json_module.dumps(report, indent=2))
    elif not quiet:
        print_message(_summary(report))
        for name, value in report.items():
            if name not in _SHOWN:
                print_message(f"  {name}: {value}")


_SHOWN = (
    "model architecture source source_format format precision classes labels path bytes error seconds parameters"
).split()


def _refuse(model: o.ModelOptions, views: ViewOptions, calibration: CalibrationOptions) -> None:
    """Refuse options that an exported model cannot keep."""
    if model.random_weights:
        raise UsageError(
            "random_weights", "marks every result, which an exported model cannot", "pass weights=PATH"
        )
    if views.fps != "auto":
        raise UsageError("fps", "is not kept in a model", "pass it to the command that reads clips")
    if calibration.truth is not None and not calibration.calibrate:
        raise UsageError("truth", "is for clips that int8 is calibrated on", "pass calibrate=CLIPS")


def _summary(report: dict[str, Any]) -> str:
    source = f" from {report['source_format']}" if report["source_format"] else ""
    return (
        f"{report['path']}: {report['architecture']}{source}, {report['parameters']:,} parameters, "
        f"{report['classes']} classes{'' if report['labels'] else ' without names'}, {report['format']} "
        f"{report['precision']}, {report['bytes'] / 1e6:.1f} MB, logits within {report['error']:.1g} of PyTorch in fp32"
    )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``224`` or ``224x320`` → (h, w)."""
    if text is None:
        return None
    found = whole_numbers(text.lower().replace("×", "x"), "x", 99_999)
    if not 0 < len(found) <= 2:
        raise UsageError(
            f"image_size={text}", "is not a valid size", "give pixels as 224 or 224x320 (height x width)"
        )
    return found[0], found[-1]
