"""Which keys of a recipe a probe takes: the others would do nothing, and are refused. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from vidcls.errors import UsageError
from vidcls.training.recipe import Recipe
from vidcls.training.recipe_file import PARAMETERS

DATA = {
    "description", "model", "registry", "input", "init.from", "data", "val", "videos", "multi_label", "labels",
    "labels_format", "delimiter", "skip_missing", "augment.flip", "augment.directions_matter", "class_weights", "seed",
    "workers", "attentive", "folds",
}  # fmt: skip
"""What every probe takes."""
TRAINED = {"optimizer", "schedule", "batch_size", "clip_grad", "label_smoothing", "ema", "token_cache"}
"""What an attentive probe takes besides."""
_ONCE = ("a linear probe is fitted at once, not by steps", "leave it out, or use probe_kind=attentive")
_FROZEN = ("a probe freezes the whole model", "leave it out, or train without probe=True")
_KEPT = ("a probe keeps what the model makes of each clip, not its frames", "leave it out")
_SAME = (
    "a probe learns from the same views of a clip each time",
    "leave it out; num_views=4 gives more of them",
)
_ALL = ("a probe learns from all clips alike", "use class_weights=balanced")
_OTHER = ("a probe does not take it", "leave it out, or train without probe=True")
REASONS = {
    **dict.fromkeys(TRAINED - {"token_cache"}, _ONCE),
    "token_cache": ("a linear probe keeps no tokens", "leave it out, or use probe_kind=attentive"),
    **dict.fromkeys(("lora", "freeze", "config", "init", "optimizer.layer_decay"), _FROZEN),
    "frame_cache": _KEPT,
    "precision": ("a probe computes in fp32", "leave it out"),
    "sampler": _ALL,
    "clips_per_epoch": _ALL,
    **dict.fromkeys(("augment", "mixup"), _SAME),
    **dict.fromkeys(
        ("best", "patience", "save_every"), ("a probe is not validated by epochs", "leave it out")
    ),
    "micro_batch": ("a probe's steps are not divided", "lower batch_size"),
    **dict.fromkeys(
        ("heads", "synthetic"), ("needs clips with one label each, or a column of labels", "leave it out")
    ),
}
"""Why a key is refused, and what to do instead."""


def check_keys(recipe: Recipe) -> None:
    """Refuse what was set and would do nothing.

    Raises:
        UsageError: With the first such key.
    """
    taken = DATA | TRAINED if recipe.attentive else DATA
    for key in set_keys(recipe):
        first = key.split(".")[0]
        if key in taken or (first in taken and key not in REASONS):
            continue
        problem, remedy = REASONS.get(key) or REASONS.get(first, _OTHER)
        raise UsageError(PARAMETERS.get(key, key), problem, remedy)
    if recipe.init.source == "none":
        problem = "a probe freezes the model, and random weights have learned nothing"
        raise UsageError("init_from=none", problem, "leave it out")


def set_keys(record: BaseModel, above: str = "") -> Iterator[str]:
    """Yield the dotted keys that were given, whatever their value."""
    for name in type(record).model_fields:
        if name not in record.model_fields_set:
            continue
        value: Any = getattr(record, name)
        key = above + (type(record).model_fields[name].alias or name)
        if isinstance(value, BaseModel) and value.model_fields_set:
            yield from set_keys(value, f"{key}.")
        else:
            yield key
