"""``vidcls train``: train or fine-tune a model."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from vidcls.cli import options as o

DATA, OPTIMIZATION, MACHINE = "Data", "Optimization", "Machine"


class TrainPrecision(str, Enum):
    """Number format of the forward pass."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def complete_recipes(incomplete: str) -> list[str]:
    """Offer the names of the shipped recipes to the shell."""
    from vidcls.training.recipe_file import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def train(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the run.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", autocompletion=o.complete_models, metavar="NAME", help="Name in the registry."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="LIST|FOLDER",
            rich_help_panel=DATA,
            help="CSV or TSV with path,label; a Kinetics list; a folder with labels.csv or one folder a class; "
            "or synthetic:camera-motion.",
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="LIST|FOLDER", rich_help_panel=DATA, help="The like, to validate with."),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=DATA, help="Where a list's relative paths count from."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", rich_help_panel=DATA, help="Class names, one a line, in the order of their ids."
        ),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", rich_help_panel=DATA, help="Leave out clips whose file is missing."),
    ] = False,
    directions_matter: Annotated[
        bool,
        typer.Option(
            "--directions-matter", rich_help_panel=DATA, help="Left and right carry meaning: never flip."
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check recipe, data and model, and train nothing.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            autocompletion=complete_recipes,
            metavar="RECIPE",
            help="A recipe: a YAML file, or vivit-k400, vivit-epic, vivit-ssv2, timesformer-k400, vtn-k400, "
            "camera-motion. Flags win over it.",
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL|hub:ID|NAME|none",
            help="Where the weights start: an image ViT, a video checkpoint, a model of the registry, or none for "
            "random weights.  [default: the model's own weights]",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out exactly where it was broken off.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=OPTIMIZATION, help="Length of the run.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=OPTIMIZATION, help="Clips of one step, over all devices."),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=OPTIMIZATION, help="Clips on one device at once; the rest is accumulated."
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(rich_help_panel=OPTIMIZATION, help="Base learning rate.")
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=OPTIMIZATION, help="Factor on the rate from each layer to the one before it."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=OPTIMIZATION,
            help="Parameters that stay as they are: a name, a pattern, or backbone for all but the head. Repeatable.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the recipe, such as schedule.kind=cosine. Repeatable.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, rich_help_panel=OPTIMIZATION, help="Of everything random.")
    ] = None,
    precision: Annotated[
        TrainPrecision | None, typer.Option(rich_help_panel=MACHINE, help="Number format.  [default: fp32]")
    ] = None,
    device: Annotated[
        str, typer.Option(rich_help_panel=MACHINE, metavar="auto|cpu", help="auto: what accelerate finds.")
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, rich_help_panel=MACHINE, help="Processes that read clips.  [default: spare cores]"
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the metrics for TensorBoard too.")
    ] = False,
    registry: o.RegistryOption = None,
    quiet: o.QuietOption = False,
) -> None:
    """Train or fine-tune a model; several GPUs with ``accelerate launch -m vidcls train …``.

    The folder of the run then holds best.safetensors, which `vidcls predict --weights` takes, metrics.jsonl,
    curves.png, and all that --resume needs. The path of the best weights is printed.
    """
    if device not in ("auto", "cpu"):
        from vidcls.errors import UsageError

        raise UsageError(
            "--device", f"{device!r} is not known", "use auto or cpu; accelerate launch chooses GPUs"
        )
    overrides: dict[str, Any] = {
        "model": model,
        "data": data,
        "val": val,
        "videos": str(videos) if videos else None,
        "labels": labels,
        "skip_missing": skip_missing or None,
        "augment": {"directions_matter": directions_matter or None},
        "init": {"from": init_from},
        "schedule": {"epochs": epochs},
        "optimizer": {"lr": lr, "layer_decay": layer_decay},
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "freeze": freeze or None,
        "seed": seed,
        "precision": precision.value if precision else None,
        "workers": workers,
        "registry": str(registry) if registry else None,
    }
    from vidcls.training.recipe_file import plan_run

    recipe, resuming = plan_run(out, config, overrides, settings or [], resume)
    from vidcls.training.prepare import Prepared
    from vidcls.training.trainer import train

    if check:
        Prepared(recipe, device, quiet)
        return
    result = train(recipe, out, resume=resuming, device=device, tensorboard=tensorboard, quiet=quiet)
    if result.main:
        print(result.weights)
