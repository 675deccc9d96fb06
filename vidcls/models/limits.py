"""Sizes beyond those of any model, refused before anything is built from a configuration. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vidcls.errors import ConfigError
from vidcls.models.sizes import pair

# Key of a configuration → largest value. The largest published models have 48 layers of width 1664.
LIMITS: dict[str, float] = {
    "depth": 512,
    "num_heads": 4096,
    "mlp_ratio": 256,
    "num_classes": 1 << 20,
    "num_frames": 1 << 16,
    "image_size": 1 << 13,
    "in_channels": 1 << 10,
}
MAX_NUMBER = 1 << 20  # of any other size
MAX_TOKENS = 1 << 20  # of one view; 96 frames of 224 pixels make 19 thousand
MAX_POSITIONS = 1 << 27  # numbers in a table of positions; 96 frames of 224 pixels take 15 million
BYTES = 4  # of one parameter in float32


def excess(config: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The first entry of a configuration that is beyond every model, None where there is none."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            found = excess(value)
            if found is not None:
                return found
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, (int, float)) and not abs(number) <= _limit(key):
                return key, number
    return None


def _limit(key: str) -> float:
    return next(
        (limit for name, limit in LIMITS.items() if key == name or key.endswith(f"_{name}")), MAX_NUMBER
    )


def check_numbers(architecture: str, values: Mapping[str, Any]) -> None:
    """Refuse entries beyond every model, before a config dataclass is made of them; raises ConfigError."""
    found = excess(values)
    if found is not None:
        raise ConfigError(architecture, f"{found[0]} = {show(found[1])} is beyond every model", "correct it")


def check_sizes(architecture: str, config: Any, *, allocates: bool = True) -> None:
    """Refuse a configuration whose model this machine cannot hold.

    Args:
        architecture: What errors are about.
        config: The architecture's config dataclass.
        allocates: Whether memory will be taken for the parameters; not so on the meta device.

    Raises:
        ConfigError: A size is beyond every model, or the parameters need more memory than there is.
    """
    values = asdict(config)
    check_numbers(architecture, values)
    tokens = _tokens(values)
    if tokens > MAX_TOKENS or (allocates and tokens * _number(values, "embed_dim") > MAX_POSITIONS):
        raise ConfigError(
            architecture,
            f"views of {values.get('num_frames')} frames of {values.get('image_size')} pixels make too many tokens",
            "choose fewer frames or a smaller image_size",
        )
    needed = BYTES * _parameters(values)
    if allocates and needed > memory():
        raise ConfigError(
            architecture,
            f"its parameters take {needed / 2**30:,.0f} GiB, and this machine has {memory() / 2**30:,.0f}",
            "choose a smaller model",
        )


def _tokens(values: Mapping[str, Any]) -> int:
    """Tokens of one view, where the configuration tells."""
    step, patch = 1, values.get("patch_size")
    if values.get("tubelet_size") is not None:
        step, *patch = values["tubelet_size"]
    if patch is None or values.get("image_size") is None:
        return 0
    height, width = pair(values["image_size"])
    down, across = pair(patch)
    frames = values.get("num_frames") or 1
    return (frames // max(step, 1)) * (height // max(down, 1)) * (width // max(across, 1))


def _parameters(values: Mapping[str, Any]) -> float:
    """A lower bound of the number of parameters: blocks, pooler and classifier of a transformer."""
    inner = values.get("backbone")
    below = _parameters(inner) if isinstance(inner, Mapping) else 0.0
    width = _number(values, "embed_dim")
    blocks = _number(values, "depth") + _number(values, "temporal_depth")
    ratio = float(values.get("mlp_ratio") or 0)
    pooler = 1 + _number(values, "pooler_depth") if "pooler_depth" in values else 0
    below += pooler * width**2 * (3 + 2 * float(values.get("pooler_mlp_ratio") or 0))
    return below + width * (blocks * width * (4 + 2 * ratio) + _number(values, "num_classes"))


def _number(values: Mapping[str, Any], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) else 0


def known_memory() -> int | None:
    """Return the machine's memory in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def memory() -> int:
    """Return the machine's memory in bytes, or 8 GiB where that cannot be told."""
    return known_memory() or 8 << 30


def show(number: float) -> str:
    """A number that may have any number of digits, short enough to be read."""
    if isinstance(number, int) and abs(number) >= 10**15:
        return (
            f"10^{int(math.log10(abs(number)))}" if number.bit_length() < 1000 else "a number of many digits"
        )
    return str(number)
