"""``vidcls convert``: a checkpoint of any published format to vidcls's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.groups import Choices, Options
from vidcls.errors import UsageError

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
OPEN = "What the file does not tell"


@dataclass(frozen=True)
class OpenOptions(Options):
    """What a checkpoint's tensors leave open; keywords of `vidcls.checkpoints.read_checkpoint`."""

    num_frames: Annotated[
        int | None,
        typer.Option(
            "--frames",
            min=1,
            rich_help_panel=OPEN,
            help="Frames of a view; positions are interpolated if need be.",
        ),
    ] = None
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            rich_help_panel=OPEN,
            help="Height and width of a view; positions are interpolated if need be.",
        ),
    ] = None
    num_heads: Annotated[
        int | None, typer.Option("--heads", min=1, rich_help_panel=OPEN, help="Attention heads.")
    ] = None
    temporal_num_heads: Annotated[
        int | None,
        typer.Option("--temporal-heads", min=1, rich_help_panel=OPEN, help="Heads of the temporal encoder."),
    ] = None
    attention_order: Annotated[
        str | None,
        typer.Option(rich_help_panel=OPEN, help="Order of attention of vivit-fsa."),
        Choices(("space_time", "time_space")),
    ] = None
    attention_window: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=OPEN, help="Attention window of vtn, both sides together."),
    ] = None

    def keywords(self) -> dict[str, Any]:
        return {**super().keywords(), "image_size": parse_size(self.image_size)}


def convert(
    src: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Checkpoint: a path, an http(s) address, or hub:owner/name."),
    ],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="File to write, such as model.safetensors.")],
    sizes: OpenOptions,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=OPEN, help="Architecture, such as vivit-fdp."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Format of SRC.  [default: told by its content]"),
    ] = None,
    labels: o.LabelsOption = None,
    dtype: Annotated[
        str,
        typer.Option(help="Number format of the stored weights; loading gives fp32."),
        Choices(tuple(DTYPES)),
    ] = "fp32",
    offline: o.OfflineOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Write a checkpoint of any published format as vidcls's own safetensors file.

    The file says itself which architecture it holds, with which sizes, labels and preprocessing. Nothing in SRC is
    run: files that need code to be opened are refused.
    """
    if dst.is_dir():
        raise UsageError(str(dst), "is a folder", "name the file to write, such as model.safetensors")
    import torch

    from vidcls.checkpoints import build_model, read_checkpoint, save_checkpoint
    from vidcls.zoo.labels import check_labels, load_labels
    from vidcls.zoo.weights import resolve

    checkpoint = read_checkpoint(resolve(src, offline=offline), architecture, format, **sizes.keywords())
    model = build_model(checkpoint, src)
    names = checkpoint.labels
    if labels is not None:
        names = load_labels(labels)
        check_labels(names, int(model.num_classes), labels)  # type: ignore[arg-type]
    extra = {**checkpoint.extra, "source": Path(src.rstrip("/")).name, "source_format": checkpoint.format}
    save_checkpoint(
        model, dst, labels=names, input=checkpoint.input, extra=extra, dtype=getattr(torch, DTYPES[dtype])
    )
    if quiet:
        return
    for note in checkpoint.notes:
        print_message(f"{src}: {note}")
    count = sum(parameter.numel() for parameter in model.parameters())
    print_message(
        f"{dst}: {checkpoint.architecture} from {checkpoint.format}, {count:,} parameters, "
        f"{model.num_classes} classes{'' if names else ' without names'}, {dst.stat().st_size / 1e6:.1f} MB"
    )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``224`` or ``224x320`` → (h, w).

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(
        part.isascii() and part.isdigit() and 0 < int(part[:6]) < 100_000 for part in parts
    ):
        raise UsageError(
            f"image_size={text}", "is not a valid size", "give pixels as 224 or 224x320 (height x width)"
        )
    return int(parts[0]), int(parts[-1])
