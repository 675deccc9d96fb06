"""``vidcls convert``: a checkpoint of any published format to vidcls's own."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from vidcls.cli import options as o
from vidcls.cli import say
from vidcls.errors import UsageError


class Storage(str, Enum):
    """Number format of the stored weights."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class AttentionOrder(str, Enum):
    """Order of attention in Model 3's blocks."""

    space_time = "space_time"
    time_space = "time_space"


OPEN = "What the file does not tell"


def convert(
    src: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Checkpoint: a path, an http(s) address, or hub:owner/name."),
    ],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="File to write, such as model.safetensors.")],
    architecture: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=OPEN, help="Architecture, such as vivit-fdp."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Format of SRC.  [default: told by its content]"),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=OPEN, help="Frames of a view; positions are interpolated if need be."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            rich_help_panel=OPEN,
            help="Height and width of a view; positions are interpolated if need be.",
        ),
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, rich_help_panel=OPEN, help="Attention heads.")] = None,
    temporal_heads: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=OPEN, help="Heads of the temporal encoder.")
    ] = None,
    attention_order: Annotated[
        AttentionOrder | None, typer.Option(rich_help_panel=OPEN, help="Order of attention of vivit-fsa.")
    ] = None,
    attention_window: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=OPEN, help="Attention window of vtn, both sides together."),
    ] = None,
    labels: o.LabelsOption = None,
    dtype: Annotated[
        Storage, typer.Option(help="Number format of the stored weights; loading gives fp32.")
    ] = Storage.fp32,
    offline: o.OfflineOption = False,
    quiet: o.QuietOption = False,
) -> None:
    """Write a checkpoint of any published format as vidcls's own safetensors file.

    The file says itself which architecture it holds, with which sizes, labels and preprocessing. Nothing in SRC is
    run: files that need code to be opened are refused.
    """
    if dst.is_dir():
        raise UsageError(str(dst), "is a folder", "name the file to write, such as model.safetensors")
    config: dict[str, Any] = {
        "num_frames": frames,
        "image_size": parse_size(image_size),
        "num_heads": heads,
        "temporal_num_heads": temporal_heads,
        "attention_order": attention_order.value if attention_order is not None else None,
        "attention_window": attention_window,
    }
    from vidcls.checkpoints import build_model, read_checkpoint, save_checkpoint
    from vidcls.zoo.labels import check_labels, load_labels
    from vidcls.zoo.weights import resolve

    checkpoint = read_checkpoint(resolve(src, offline=offline), architecture, format, **config)
    model = build_model(checkpoint, src)
    names = checkpoint.labels
    if labels is not None:
        names = load_labels(labels)
        check_labels(names, int(model.num_classes), labels)  # type: ignore[arg-type]
    extra = {**checkpoint.extra, "source": Path(src.rstrip("/")).name, "source_format": checkpoint.format}
    save_checkpoint(model, dst, labels=names, input=checkpoint.input, extra=extra, dtype=_torch_dtype(dtype))
    if quiet:
        return
    for note in checkpoint.notes:
        say(f"{src}: {note}")
    count = sum(parameter.numel() for parameter in model.parameters())
    say(
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
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < len(part) < 6 for part in parts):
        raise UsageError(
            f"--image-size {text}", "is no size", "give pixels as 224 or 224x320 (height x width)"
        )
    height, width = int(parts[0]), int(parts[-1])
    if min(height, width) < 1:
        raise UsageError(
            f"--image-size {text}", "is no size", "give pixels as 224 or 224x320 (height x width)"
        )
    return height, width


def _torch_dtype(storage: Storage) -> Any:
    import torch

    return {Storage.fp32: torch.float32, Storage.bf16: torch.bfloat16, Storage.fp16: torch.float16}[storage]
