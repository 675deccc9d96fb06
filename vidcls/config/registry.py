"""models.yaml → all known models by name.

The registry is built from several files, later ones winning: the one that ships with vidcls, the user's own
(``models.yaml`` in the configuration folder), ``./models.yaml``, and the file given with ``--registry``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidcls.config.specs import MAX_SHOWN, SHIPPED, ModelSpec, problems
from vidcls.config.yaml import read_yaml
from vidcls.errors import ConfigError, UsageError, nearest
from vidcls.paths import user_config_dir

MAX_KEYS = 200  # of one mapping of an entry; no architecture has as many


class Registry(Mapping[str, ModelSpec]):
    """All known models by name, in the order of the files.

    Args:
        models: Name → entry.
        default: Name of the model that is used when none is asked for.
    """

    def __init__(self, models: dict[str, ModelSpec], default: str | None) -> None:
        self._models = models
        self.default = default

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __getitem__(self, name: str) -> ModelSpec:
        """Return the entry called ``name``.

        Raises:
            UsageError: There is none; the message names the nearest ones.
        """
        try:
            return self._models[name]
        except KeyError:
            raise UsageError(
                name, f"no such model{self._nearest(name)}", "`vidcls models` lists them all"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._models

    def _nearest(self, name: str) -> str:
        """Suggest a model that can run where ``name`` is how the names of several start, else the nearest name."""
        found = [
            spec for spec in self._models.values() if spec.weights and spec.name.startswith(name.lower())
        ]
        if not name or not found:
            return nearest(name, self._models)
        # Bundled weights need no network, and those of the hub are fetched in the most reliable way.
        best = min(found, key=lambda spec: (*_reach(spec), len(spec.name)))
        return f", did you mean {best.name!r}?"

    def with_weights(self, architecture: str) -> list[str]:
        """Return the names of an architecture's entries that have weights, those that are easiest to have first."""
        found = [spec for spec in self._models.values() if spec.weights and spec.architecture == architecture]
        return [spec.name for spec in sorted(found, key=_reach)]


def _reach(spec: ModelSpec) -> tuple[bool, bool]:
    """Sort by how easily weights are had: bundled ones first, then those of the hub."""
    weights = spec.weights
    return weights is None or weights.bundled is None, weights is None or weights.hub is None


def builtin_registry_path() -> Path:
    """Return the models.yaml that ships with vidcls: inside the wheel, or at the checkout's top level."""
    inside = Path(__file__).parents[1] / "models.yaml"
    return inside if inside.is_file() else Path(__file__).parents[2] / "models.yaml"


def registry_paths(extra: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the registry files that exist, weakest first; ``extra`` must exist."""
    optional = [user_config_dir() / "models.yaml", Path("models.yaml")]
    paths = [builtin_registry_path()]
    for path in [p for p in optional if p.is_file()] + ([Path(extra)] if extra is not None else []):
        if not any(path.exists() and path.samefile(known) for known in paths):
            paths.append(path)
    return paths


def load_registry(extra: str | os.PathLike[str] | None = None) -> Registry:
    """Read and check all registry files.

    An entry may name another as its ``base``: what it leaves out is taken from there, and its ``config``,
    ``input`` and ``published`` are laid over the base's key by key. An entry of a later file replaces one of
    the same name whole, unless it names that one as its base.

    Args:
        extra: A file given with ``--registry``.

    Raises:
        ConfigError: With all problems of all files together.
    """
    raw: dict[str, dict[str, Any]] = {}
    default: str | None = None
    found = _Problems()
    shipped: dict[str, dict[str, Any]] = {}
    for path in registry_paths(extra):
        default = _add_file(path, raw, found) or default
        shipped = shipped or dict(raw)  # the first file
    specs: dict[str, ModelSpec] = {}
    for name, entry in raw.items():
        try:
            fields = {**{str(key): value for key, value in entry.items()}, "name": name}
            specs[name] = ModelSpec.model_validate(
                fields, context=SHIPPED if entry is shipped.get(name) else None
            )
        except ValidationError as error:
            found.add(*problems(error, ModelSpec, f"models.{name}."))
    if default is not None and default not in raw:
        found.add(f"default: no model is called {default!r}{nearest(str(default), raw)}")
    found.raise_any()
    return Registry(specs, default)


class _Problems:
    """All that is wrong with the files; the first few in words."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def add(self, *lines: str) -> None:
        self.count += len(lines)
        self.lines += lines[: max(MAX_SHOWN - len(self.lines), 0)]

    @property
    def full(self) -> bool:
        """Whether no more will be shown, so that hints need not be looked for."""
        return len(self.lines) >= MAX_SHOWN

    def raise_any(self) -> None:
        if self.count:
            count = "1 problem" if self.count == 1 else f"{self.count} problems"
            rest = [f"and {self.count - len(self.lines)} more"] if self.count > len(self.lines) else []
            raise ConfigError("models.yaml", f"{count}:\n  " + "\n  ".join(self.lines + rest), "")


def _add_file(path: Path, raw: dict[str, dict[str, Any]], found: _Problems) -> str | None:
    """Lay one file's entries over those before it; returns its default."""
    data = read_yaml(path, trusted=path == builtin_registry_path())
    for key in data:
        if key not in ("default", "models"):
            found.add(f"{path}: {key}: unknown key{nearest(key, ('default', 'models'))}")
    models = data.get("models") or {}
    if not isinstance(models, dict):
        raise ConfigError(str(path), "models: must be a mapping of names to entries", "see `vidcls models`")
    for name, entry in models.items():
        if not isinstance(entry, dict):
            found.add(f"{path}: models.{name}: must be a mapping")
            continue
        raw[str(name)] = _resolve_paths(_with_base(str(name), entry, raw, path, found), path.parent)
    return data.get("default")


def _with_base(
    name: str, entry: dict[str, Any], known: dict[str, dict[str, Any]], path: Path, found: _Problems
) -> dict[str, Any]:
    """Lay ``entry`` over the entry that it names as its base, which must stand before it."""
    own = {key: value for key, value in entry.items() if key != "base"}
    for key, value in entry.items():
        if (
            isinstance(value, dict) and len(value) > MAX_KEYS
        ):  # every entry that is laid over it would be as large
            found.add(f"{path}: models.{name}.{key}: has {len(value)} entries, more than any model")
            del own[key]
    if "base" not in entry:
        return own
    base = known.get(str(entry["base"]))
    if base is None:
        hint = "" if found.full else nearest(str(entry["base"]), known)
        found.add(f"{path}: models.{name}.base: no entry before it is called {entry['base']!r}{hint}")
        return own
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if key in ("config", "input", "published") and isinstance(value, dict) and isinstance(below, dict):
            merged[key] = {**below, **value}
        else:
            merged[key] = value
    return merged


def _resolve_paths(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let paths in an entry count from the folder of the file that holds it."""
    weights = entry.get("weights")
    if isinstance(weights, dict) and isinstance(weights.get("path"), str):
        entry = {**entry, "weights": {**weights, "path": str(folder / Path(weights["path"]).expanduser())}}
    labels = entry.get("labels")
    if isinstance(labels, str) and (folder / labels).is_file():
        entry = {**entry, "labels": str(folder / labels)}
    return entry
