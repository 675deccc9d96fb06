"""``vidcls train``: train or fine-tune a model."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vidcls.cli import options as o
from vidcls.cli import print_message
from vidcls.cli.train_options import DataOptions, OptimizationOptions, ProbeOptions, RunOptions


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
    if probe.probe and not probe.attentive:
        from vidcls.training.probe.run import check_probe, train_probe

        recipe, _ = plan_run(output, run.config, overrides, run.settings or [], resume=False)
        if run.check:
            print("\n".join(check_probe(recipe, device=run.device).table()))
            return
        print(train_probe(recipe, output, device=run.device, quiet=quiet).weights)
        return
    recipe, resuming = plan_run(output, run.config, overrides, run.settings or [], run.resume)
    from vidcls.training.checkpointing import STATE
    from vidcls.training.plan import check

    if run.check:
        print("\n".join(check(recipe, output, device=run.device, quiet=quiet).table()))
        return
    from vidcls.training import attentive, trainer

    start: Callable[..., trainer.Result] = attentive.train_attentive if recipe.attentive else trainer.train
    try:
        result = start(
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
