"""``vidcls train``: train or fine-tune a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.train_options import DataOptions, OptimizationOptions, ProbeOptions, RunOptions

if TYPE_CHECKING:
    from vidcls.training.recipe import Recipe


def train(
    output: Annotated[Path, Option("--output", "-o", metavar="FOLDER", help="Folder of the run.")],
    data: DataOptions,
    optimization: OptimizationOptions,
    probe: ProbeOptions,
    run: RunOptions,
    clips: Annotated[
        str | None, Argument(metavar="[CLIPS]", help="Training set, as --data.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        Option("--model", "-m", autocompletion=o.complete_models, metavar="NAME", help="Model name."),
    ] = None,
    registry: o.RegistryOption = None,
    quiet: o.QuietOption = False,
) -> None:
    """Train or fine-tune a model; several GPUs with ``accelerate launch -m vidcls train …``.

    With --probe the model is frozen and only a linear classifier is fitted: `vidcls train clips/ --probe -o mine/`.

    The run's folder gets best.safetensors, which `vidcls predict --weights` takes, metrics.jsonl, curves.png, and
    all that --resume needs. Prints the path of the best weights.

    Examples:
    - `vidcls train -o run --data clips/ --model vivit-fe-tiny --epochs 30`
    - `vidcls train -o run --resume`
    """
    if run.device not in ("auto", "cpu"):
        from vidcls.errors import UsageError

        raise UsageError(
            "device", f"{run.device!r} is unknown", "use auto or cpu; accelerate launch chooses GPUs"
        )
    from vidcls.training.recipe_file import merge, plan_run

    overrides = merge(data.overrides(clips), probe.overrides())
    overrides |= {"model": model, "registry": str(registry) if registry else None, **optimization.overrides()}
    if probe.probe:
        run.check_probe()
        recipe, _ = plan_run(output, run.config, overrides, run.settings or [], resume=False)
        _probe(recipe, output, run, quiet)
        return
    recipe, resuming = plan_run(output, run.config, overrides, run.settings or [], run.resume)
    from vidcls.training.checkpointing import STATE
    from vidcls.training.plan import check

    if run.check:
        print("\n".join(check(recipe, output, device=run.device, quiet=quiet).table()))
        return
    from vidcls.training import trainer

    try:
        result = trainer.train(
            recipe,
            output,
            resume=resuming,
            device=run.device,
            tensorboard=run.tensorboard,
            tracker=run.tracker,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        if not quiet and (output / STATE).exists():
            print_message(
                f"the run is saved; go on with `vidcls train -o {shlex.quote(str(output))} --resume`"
            )
        raise
    if result.main:
        print(result.weights)


def _probe(recipe: Recipe, output: Path, run: RunOptions, quiet: bool) -> None:
    from vidcls.training.probe.run import check_probe, train_probe

    if run.check:
        found = check_probe(recipe, device=run.device)
        for note in () if quiet else found.notes:
            print_message(note)
        print("\n".join(found.table()))
        return
    try:
        print(train_probe(recipe, output, device=run.device, quiet=quiet).weights)
    except KeyboardInterrupt:
        if not quiet:
            print_message(
                "what was computed of the clips is in the cache; the same command goes on from there"
            )
        raise
