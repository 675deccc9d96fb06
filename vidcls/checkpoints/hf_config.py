"""What the readers of Hugging Face folders have in common: entries of config.json, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from vidcls.checkpoints.base import HEADLESS, Checkpoint, Raw, Rename, each, joined
from vidcls.checkpoints.class_names import class_names
from vidcls.errors import ConfigError
from vidcls.models.sizes import ACTIVATIONS as ACTIVATION_NAMES
from vidcls.views.hf_preprocessor import assumed_preprocessor, input_from_preprocessor

# ``gelu_new`` and the like are the tanh approximation with its constants spelled out.
TANH_GELUS = ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh", "gelu_pytorch_tanh")
ACTIVATIONS = {
    **{name: name for name in ACTIVATION_NAMES if name != "gelu_tanh"},
    **dict.fromkeys(TANH_GELUS, "gelu_tanh"),
    "gelu_python": "gelu",
    "swish": "silu",
}
PARAMETRIC = ("prelu", "xielu")
"""Activations with trained weights of their own."""

ROLES = ("query", "key", "value")
BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""Our names of a block's layers → those of Hugging Face's ViT and of what was made after it."""


def block(ours: str, theirs: str, bias: bool) -> Iterator[Rename]:
    """All tensors of a block of Hugging Face's ViT; ``bias`` says whether queries, keys and values have biases."""
    roles = (f"{theirs}.attention.attention.{role}" for role in ROLES)
    yield from joined(f"{ours}.attn.qkv", *roles, bias=bias)
    yield from each(ours, theirs, BLOCK)


def with_prefix(tensors: Mapping[str, Tensor], prefix: str, sign: str = "embeddings.") -> dict[str, Tensor]:
    """The tensors under a classifier's names, also where they were saved from the model without one.

    Args:
        tensors: Names → tensors.
        prefix: What a classifier's names have before those of the model without one.
        sign: How a name starts that only the model without a classifier has.
    """
    bare = any(name.startswith(sign) for name in tensors)
    return {f"{prefix}{name}" if bare else name: tensor for name, tensor in tensors.items()}


def is_headless(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether there is an encoder, whose names start with ``prefix``, and nothing of what stands on it."""
    return all(name.startswith(prefix) for name in tensors)


def number(raw: Raw, key: str, default: float) -> float:
    """A number of config.json.

    Raises:
        CheckpointError: The entry is not a number from 0 to 2³¹.
    """
    value = raw.meta["config"].get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**31:
        raise raw.error(f"config.json: {key} is {value!r}, not a number in range", "fetch the folder again")
    return float(value)


def whole(raw: Raw, key: str, default: int) -> int:
    """A whole number of config.json, at least 1.

    Raises:
        CheckpointError: The entry is not a whole number.
    """
    value = number(raw, key, default)
    if value != int(value) or value < 1:
        raise raw.error(f"config.json: {key} is {value:g}, not a whole number", "fetch the folder again")
    return int(value)


def activation(raw: Raw, default: str = "gelu") -> str:
    """Our name of config.json's ``hidden_act``.

    Raises:
        CheckpointError: It is unknown, or has trained weights of its own.
    """
    name = raw.meta["config"].get("hidden_act", default)
    if name in PARAMETRIC:
        raise raw.error(
            f"config.json: hidden_act {name!r} has trained weights of its own in every block, which no model here has",
            "run it with transformers",
        )
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise raw.error(f"config.json: unknown hidden_act {name!r}", f"known: {known}")
    return ACTIVATIONS[name]


def sides(raw: Raw, key: str, default: int) -> tuple[int, int]:
    """A size (h, w) of config.json, which may be one number.

    Raises:
        CheckpointError: It is neither a whole number nor two.
    """
    size = raw.meta["config"].get(key, default)
    both = [size, size] if isinstance(size, int) else size
    if not isinstance(both, list) or len(both) != 2 or not all(type(n) is int and n > 0 for n in both):
        raise raw.error(f"config.json: {key} is {size!r}", "fetch the folder again")
    return both[0], both[1]


def dropouts(raw: Raw) -> dict[str, float]:
    """The rates of dropout in config.json, under our names."""
    return {
        "dropout": number(raw, "hidden_dropout_prob", 0.0),
        "attn_dropout": number(raw, "attention_probs_dropout_prob", 0.0),
    }


def labels(raw: Raw, num_classes: int) -> tuple[str, ...] | None:
    """Class names of config.json; None where there are none, or only placeholders."""
    return class_names(raw, num_classes)[0]


def checkpoint(
    raw: Raw,
    name: str,
    architecture: str,
    config: dict[str, Any],
    state: dict[str, Tensor],
    seen: dict[str, Any],
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    """Put a checkpoint together, with its labels, and a note where its tensors have no classifier."""
    head = state.get("head.weight")
    notes = notes if head is not None else (*notes, HEADLESS)
    names = labels(raw, 0 if head is None else len(head))
    return Checkpoint(name, architecture, config, state, labels=names, input=seen, notes=notes)


def preprocessing(raw: Raw) -> dict[str, Any]:
    """Fields of `vidcls.config.InputSpec` that the folder's preprocessor determines.

    Where no file describes one, the published models' of the same family is assumed; `notes` says so.

    Raises:
        CheckpointError: It is damaged, or asks for what we do not have.
    """
    config, preprocessor = raw.meta["config"], raw.meta["preprocessor"]
    try:
        return dict(input_from_preprocessor(config, preprocessor or assumed_preprocessor(config)))
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise raw.error(f"preprocessor: {error}", "fetch the folder again") from error


def notes(raw: Raw, num_classes: int) -> tuple[str, ...]:
    """What the user should know about the files beside the weights."""
    said = class_names(raw, num_classes)[1]
    if raw.meta["preprocessor"]:
        return said
    seen = preprocessing(raw)
    mean = (
        f"mean {_short(seen['mean'])}, std {_short(seen['std'])}" if seen.get("mean") else "no mean and std"
    )
    size = seen.get("resize")
    return (
        *said,
        "no preprocessor file lies beside the weights; as in the published models of this family, frames are resized "
        f"to {size if isinstance(size, tuple) else f'a short side of {size}'}, cropped to {seen.get('image_size')}, "
        f"scaled by {seen.get('scale', 1.0):.4g} {seen.get('offset', 0.0):+g}, {mean}",
    )


def _short(numbers: tuple[float, ...]) -> str:
    return "/".join(f"{number:g}" for number in dict.fromkeys(numbers))
