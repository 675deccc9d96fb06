"""YAML from strangers: nothing but plain values, no repeated keys, no aliases, bounded in size and depth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from vidcls.errors import ConfigError, system_errors

MAX_YAML_BYTES = 1 << 20  # without libyaml, a MiB takes six seconds
MAX_YAML_DEPTH = 64

# libyaml's parser takes a sixth of the time, where PyYAML was built with it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _NoRepeats:
    """What a YAML loader needs to refuse repeated keys."""

    def construct_mapping(self, node: yaml.nodes.MappingNode, deep: bool = False) -> dict[Any, Any]:
        loader: Any = super()
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: duplicate key {key!r}")
            seen.add(key)
        return loader.construct_mapping(node, deep)


class _Loader(_NoRepeats, _SafeLoader):  # type: ignore[misc]  # one of two classes
    """safe_load without repeated keys."""


def parse_yaml(text: str, *, aliases: bool = False, trusted: bool = False) -> Any:
    """Parse a YAML document into plain values.

    Args:
        text: The document.
        aliases: Whether ``*name`` may stand for a value given elsewhere, as some libraries write lists that they hold
            twice. Merging mappings (``<<``), by which a small file grows without bound, is never allowed.
        trusted: Whether the document is vidcls's own, whose form its tests check; half of the time is the check.

    Raises:
        ValueError: It is not valid YAML, or uses what is not allowed; the message is one line.
    """
    try:
        if not trusted:
            _check_events(text, aliases)
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[:300]) from None


def _check_events(text: str, aliases: bool) -> None:
    """Refuse aliases, tags, and nesting that would exhaust the stack.

    A pass of its own, as libyaml composes a document in C, where none of them can be stopped.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise yaml.YAMLError("aliases (*name) are not allowed here; write the values out")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags (!name) are not allowed here; write plain values")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<":
            raise yaml.YAMLError("merged mappings (<<) are not allowed here; write the values out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_YAML_DEPTH:
                raise yaml.YAMLError(f"nested deeper than {MAX_YAML_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def read_yaml(path: str | os.PathLike[str], *, trusted: bool = False) -> dict[str, Any]:
    """Read a YAML file that holds one mapping; ``trusted`` is that of `parse_yaml`.

    Raises:
        ConfigError: The file is missing, too large, not YAML, or not a mapping.
    """
    path = Path(path)
    with system_errors(ConfigError, path, "cannot be read", "check the path", UnicodeDecodeError):
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(str(path), f"larger than {MAX_YAML_BYTES >> 20} MiB", "is it the right file?")
        text = path.read_text(encoding="utf-8")
    try:
        data = parse_yaml(text, trusted=trusted)
    except ValueError as error:
        raise ConfigError(str(path), f"not valid YAML: {error}", "correct it") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(str(path), "must hold a mapping of names to values", "see models.yaml of vidcls")
    return data
