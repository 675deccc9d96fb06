"""``vidcls train --probe --probe-kind attentive``: an attentive pooler and a head on a frozen model's tokens.

The trainer trains it as any model whose backbone is frozen; what is here says how good it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidcls.config import load_registry
from vidcls.inference.load import load
from vidcls.training import checkpointing, setup
from vidcls.training.data.sets import Data, load_data
from vidcls.training.groups import number_groups
from vidcls.training.logs import message
from vidcls.training.probe import figures
from vidcls.training.probe.run import check_data, write_report
from vidcls.training.recipe import Recipe
from vidcls.training.trainer import Result, train


def train_attentive(
    recipe: Recipe, out: Path, *, device: str = "auto", quiet: bool = False, **running: Any
) -> Result:
    """Train an attentive probe, and write its figures as the linear probe's are written.

    Args:
        recipe: The whole run, with ``attentive``.
        out: Its folder.
        device: ``auto`` or ``cpu``.
        quiet: Print nothing but warnings.
        **running: Further arguments of `vidcls.training.trainer.train`.

    Raises:
        UsageError: The data has mistakes, or several labels a clip.
    """
    spec = setup.find_model(recipe, load_registry(recipe.registry))
    check_data(load_data(recipe, spec, out), recipe)
    result = train(recipe, out, device=device, quiet=quiet, **running)
    if result.main:
        _report(recipe, load_data(recipe, spec, out), out, device, quiet)
    return result


def _report(recipe: Recipe, data: Data, out: Path, device: str, quiet: bool) -> None:
    """Predict the validation clips by the best checkpoint, as `vidcls predict` does, and say how many are right."""
    found = None if data.val is None else measure(out / checkpointing.BEST, data, device)
    about = {
        "labels": list(data.labels),
        "figures": None if found is None else found.as_dict(),
        "recipe": recipe.model_dump(mode="json", by_alias=True),
    }
    write_report(out, about, data.labels, found)
    for line in figures.lines(found, data.labels) if found and not quiet else []:
        message(line)


def measure(weights: Path, data: Data, device: str = "auto") -> figures.Figures | None:
    """Figures of a checkpoint on the validation clips; None where none of them can be read."""
    assert data.val is not None
    samples, ids = data.val
    with load(weights=weights, device=device, engine="eager", precision="fp32") as classifier:
        predictions = list(classifier.predict_many([sample.path for sample in samples]))
    kept = [index for index, found in enumerate(predictions) if found.error is None]
    if not kept:
        return None
    scores = np.array([predictions[index].scores for index in kept], dtype=np.float64)
    paths, names = [samples[i].path for i in kept], [samples[i].group for i in kept]
    method = "the validation set, by which the best epoch was chosen too"
    return figures.measure(
        method, scores, np.array([ids[index][0] for index in kept]), number_groups(paths, names)
    )
