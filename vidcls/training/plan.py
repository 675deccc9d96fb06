"""What a run is about to do, said before its first step: clips, classes, steps, batch, rate, device, expected time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vidcls.doctor.machine import cores
from vidcls.output.text import duration
from vidcls.training.data.classes import class_counts
from vidcls.training.data.dataset import Batch
from vidcls.training.data.sets import Data
from vidcls.training.prepare import Prepared
from vidcls.training.recipe import Recipe

SHOWN = 12
"""Classes that are named with their counts."""


def check(recipe: Recipe, out: Path, *, device: str = "auto", quiet: bool = False) -> Data:
    """Check a run and say what it would do, without training or writing anything.

    Args:
        recipe: The whole run.
        out: Its folder, which need not exist.
        device: ``auto`` (accelerate's choice) or ``cpu``.
        quiet: Say nothing.

    Returns:
        The clips.
    """
    parts = Prepared(recipe, device, quiet, run=out)
    if not quiet:
        parts.message(*lines(parts))
    return parts.data


def lines(parts: Prepared, done: int = 0) -> list[str]:
    """Return the plan of a run of which ``done`` epochs are behind it, a line for each matter.

    The expected time is measured: a clip is read, and goes through the model.
    """
    recipe, steps = parts.recipe, parts.loader.steps
    left = recipe.schedule.epochs - done
    total = sum(p.numel() for p in parts.plain.parameters())
    frozen = f", {parts.frozen:,} of them frozen" if parts.frozen else ""
    found = {
        "clips": _clips(parts),
        "classes": _classes(parts),
        "model": f"{parts.spec.name}, {total:,} parameters{frozen}",
        "steps": f"{steps} per epoch, batch size {recipe.batch_size}; {left * steps:,} in {left} epoch"
        + "s" * (left > 1),
        "learning rate": f"{recipe.optimizer.lr:g}, {recipe.optimizer.name}, {recipe.schedule.kind} schedule",
        "device": _device(parts),
        "expected time": f"about {duration(seconds(parts, left))}",
    }
    return [f"{name:<14} {text}" for name, text in found.items()]


def _clips(parts: Prepared) -> str:
    data = parts.data
    if data.train is None:
        return f"made on the fly, {parts.recipe.clips_per_epoch:,} per epoch"
    text = f"{len(data.train[0]):,} to train on"
    if data.val is None:
        return f"{text}, none to validate with: figures are on training clips, the last epoch counts as best"
    share = len(data.val[0]) / (len(data.train[0]) + len(data.val[0]))
    how = f" (held out: {share:.0%} of the clips, sources kept together)" if data.held_out else ""
    return f"{text}, {len(data.val[0]):,} to validate with{how}"


def _classes(parts: Prepared) -> str:
    data = parts.data
    if data.train is None:
        return f"{len(data.labels)}: {', '.join(data.labels)}"
    texts, found = [], class_counts(data.classes, data.train[1])
    for head, names in enumerate(data.classes):
        counts = found[head]
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        shown = ", ".join(f"{name} {counts[i]}" for i, name in enumerate(names[:SHOWN]))
        texts.append(f"{len(names)} (training clips): {shown}{more}")
    return "; ".join(texts)


def _device(parts: Prepared) -> str:
    accelerator, workers = parts.accelerator, parts.workers
    count = f"{accelerator.num_processes} x " if accelerator.num_processes > 1 else ""
    reading = f"{workers} process{'es' * (workers > 1)} read{'s' * (workers == 1)} clips"
    return f"{count}{accelerator.device.type}, {parts.recipe.precision}" + (f", {reading}" if workers else "")


def seconds(parts: Prepared, epochs: int) -> float:
    """Return about how long so many epochs take.

    A step costs a forward pass, and twice that for the gradients of what is not frozen. Reading runs beside it, but
    on a CPU it takes cores from it.
    """
    _time(parts.loader.example)  # starts the process that decodes
    reading, example = _time(parts.loader.example)
    parts.loader.close()
    clips = max(1, len(example))
    reading, computing = reading / clips, _forward_seconds(parts, example) / clips if len(example) else 0.0
    share = 1 - parts.frozen / max(1, sum(p.numel() for p in parts.plain.parameters()))
    if parts.recipe.lora is not None:  # the gradients go through all layers, but to few weights
        share = max(share, 0.5)
    processes = int(parts.accelerator.num_processes)
    train = parts.loader.steps * parts.recipe.batch_size / processes
    val = len(parts.data.val[0]) / processes if parts.data.val is not None else 0
    return epochs * (
        train * _both(parts, reading, computing * (1 + 2 * share)) + val * _both(parts, reading, computing)
    )


def _both(parts: Prepared, reading: float, computing: float) -> float:
    """Seconds per clip of reading and computing at the same time."""
    if not parts.workers:
        return reading + computing
    if parts.accelerator.device.type == "cpu":
        return max(reading / parts.workers, computing + reading / cores())
    return max(reading / parts.workers, computing)


def _time(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


@torch.no_grad()
def _forward_seconds(parts: Prepared, example: Batch) -> float:
    """Seconds of a forward pass over some clips; nothing of the model or of the random states changes."""
    model, device = parts.plain, parts.accelerator.device
    batch = example.to(device)

    def forward() -> None:
        with parts.accelerator.autocast():
            model(batch.views, batch.indices) if parts.uses_indices else model(batch.views)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    training = model.training
    model.eval()
    try:
        forward()
        return min(_time(forward)[0] for _ in range(2))
    finally:
        model.train(training)
