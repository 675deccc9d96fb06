"""State dicts out of what training scripts wrap them in: ``state_dict``, ``model.``, ``module.``, ``net.``, ….

Trainers store the weights under an entry of a dictionary, and classes around the model (DistributedDataParallel,
``torch.compile``, Lightning's modules, moving averages) put a word before each name, in any order and number. Formats
are told apart by what is left when those words are gone, see `views`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from vidcls.checkpoints.base import Raw

AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_model", "ema_state_dict", "module_ema", "teacher")
"""Words under which a moving average of the weights lies."""

WRAPPERS = frozenset(
    (
        "state_dict model_state_dict model_state model module net network backbone student weights "
        "_forward_module _orig_mod"
    ).split()
    + list(AVERAGES)
)

# What frameworks put before a name at any depth: compiled, sharded or checkpointed blocks inside a model.
_INSIDE = re.compile(r"(?:(?<=^)|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

MAX_VIEWS = 64
MAX_WORDS = 8  # of one stack of wrappers


def views(raw: Raw) -> Iterator[Raw]:
    """Each way to look at a file: as it is, then without one word in front of its names, then without two, ….

    Of views with as many words gone, the weights themselves come before their moving averages. A Hugging Face folder
    has one view: its configuration says what it is, so only the words in front of its names can go.
    """
    if raw.kind not in ("torch", "safetensors", "hf", "timm"):
        yield raw
        return
    level = [replace(raw, tensors=_without_inner_words(raw.tensors))]
    if raw.kind == "hf":
        yield _innermost(level[0])
        return
    number = 0
    for _ in range(MAX_WORDS + 1):
        for view in level:
            yield view
            number += 1
            if number == MAX_VIEWS:
                return
        level = [below for view in level for below in _views_below(view)]


def is_average(raw: Raw) -> bool:
    """Whether a view shows a moving average of the weights."""
    return any(word in AVERAGES for word in raw.wrappers)


def _without_inner_words(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_INSIDE.sub("", name): tensor for name, tensor in tensors.items()}


def _views_below(raw: Raw) -> list[Raw]:
    """The views with one more word gone; averages last."""
    below: dict[str, dict[str, Tensor]] = {}
    for name, tensor in raw.tensors.items():
        word, dot, rest = name.partition(".")
        if dot and word in WRAPPERS:
            below.setdefault(word, {})[rest] = tensor
    found = [replace(raw, tensors=below[word], wrappers=(*raw.wrappers, word)) for word in below]
    return sorted(found, key=is_average)


def _innermost(raw: Raw) -> Raw:
    """Take words off while most of the tensors are below one; ``backbone`` only where all of them are."""
    for _ in range(MAX_WORDS):
        largest = max(_views_below(raw), key=lambda view: len(view.tensors), default=None)
        if largest is None:
            break
        share = len(largest.tensors) / len(raw.tensors)
        if share < 1 and (share <= 0.5 or largest.wrappers[-1] == "backbone"):
            break
        raw = largest
    return raw
