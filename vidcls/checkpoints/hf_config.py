"""What the readers of Hugging Face folders have in common: entries of config.json, checked."""

from __future__ import annotations

from typing import Any

from vidcls.checkpoints.base import Raw

# ``gelu_new``, ``gelu_fast`` and ``gelu_pytorch_tanh`` are the tanh approximation with its constants spelled out.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
MAX_LABELS = 100_000


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
        CheckpointError: It is unknown.
    """
    name = raw.meta["config"].get("hidden_act", default)
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


def labels(raw: Raw, num_classes: int) -> tuple[str, ...] | None:
    """Class names of config.json; None where they are placeholders or do not name every class."""
    names = raw.meta["config"].get("id2label")
    if not isinstance(names, dict) or len(names) != num_classes or num_classes > MAX_LABELS:
        return None
    found = tuple(str(names.get(str(index), "")) for index in range(num_classes))
    placeholders = tuple(f"LABEL_{index}" for index in range(num_classes))
    return None if not all(found) or found == placeholders else found


def preprocessing(raw: Raw) -> dict[str, Any]:
    """Fields of `vidcls.config.InputSpec` that the folder's preprocessor determines; empty where there is none.

    Raises:
        CheckpointError: It is damaged.
        ConfigError: It asks for what we do not have.
    """
    from vidcls.views.transform import input_from_preprocessor

    if not raw.meta["preprocessor"]:
        return {}
    try:
        return dict(input_from_preprocessor(raw.meta["config"], raw.meta["preprocessor"]))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise raw.error(f"preprocessor_config.json: {error}", "fetch the folder again") from error
