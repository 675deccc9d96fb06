"""Recipes as YAML files: read, merged with flags, written, and compared with those of a run that is resumed.

Recipes of the published systems ship in ``vidcls/training/recipes``; one may name another as its ``base`` and change
keys. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vidcls.config import problems, read_yaml
from vidcls.errors import ConfigError, UsageError, nearest
from vidcls.training.recipe import NO_VAL, Recipe

RECIPE = "recipe.yaml"
"""A run's recipe in its folder."""

MAY_CHANGE = (
    "workers",
    "save_every",
    "frame_cache",
    "token_cache",
    "description",
    "patience",
    "schedule.epochs",
)
"""Keys of a recipe that a resumed run may change: the result does not depend on them, or they set its length."""

PARAMETERS = {
    "schedule.epochs": "epochs",
    "optimizer.lr": "lr",
    "optimizer.layer_decay": "layer_decay",
    "init.from": "init_from",
    "input.num_views": "num_views",
    "frame_cache": "cache_frames",
    "token_cache": "cache_tokens",
}
"""Keys that have another name as a parameter of `vidcls train`."""

RECIPES = Path(__file__).with_name("recipes")
"""Folder of the recipes that ship with vidcls."""


def recipe_names() -> list[str]:
    """Names of the recipes that ship with vidcls."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe, given by its name or its path.

    Raises:
        ConfigError: There is neither; the message names the nearest one.
    """
    builtin = RECIPES / f"{name}.yaml"
    if "/" not in name and "\\" not in name and builtin.is_file():
        return builtin
    if Path(name).is_file():
        return Path(name)
    known = recipe_names()
    hint = nearest(name, known)
    raise ConfigError(name, f"no such recipe{hint}", f"give a YAML file or one of {', '.join(known)}")


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``: mappings key by key, everything else whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def read_recipe(name: str | None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe and lay ``overrides`` (from flags, nested like the YAML) over it.

    Args:
        name: A shipped recipe's name, a YAML file, or None for the defaults alone.
        overrides: Keys that win over the file.

    Raises:
        ConfigError: With all problems of the recipe together, each with the nearest known key.
    """
    data = _read_with_base(name, ()) if name is not None else {}
    return _validated(merge(data, overrides or {}), name)


def _validated(data: dict[str, Any], name: str | None) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        found = problems(error, Recipe)
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise ConfigError(str(name or "recipe"), f"{count}:\n  " + "\n  ".join(found)) from None


def _read_with_base(name: str, above: tuple[Path, ...]) -> dict[str, Any]:
    """Read one file and, below it, the one it names as its base."""
    path = recipe_path(name).resolve()
    if path in above:
        raise ConfigError(str(path), "is its own base", "give it another base")
    data = read_yaml(path)
    base = data.pop("base", None)
    if base is None:
        return data
    beside = path.parent / str(base)
    below = _read_with_base(str(beside) if beside.is_file() else str(base), (*above, path))
    return merge(below, data)


def recipe_text(recipe: Recipe) -> str:
    """A recipe in full as YAML, so that a run folder says how it was made."""
    data = recipe.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Make a recipe's paths absolute."""
    changes: dict[str, Any] = {}
    for key in ("data", "val", "videos", "registry", "labels"):
        value = getattr(recipe, key)
        if value not in (None, NO_VAL) and not value.startswith("synthetic:") and Path(value).exists():
            changes[key] = str(Path(value).absolute())
    source = recipe.init.source
    if source is not None and Path(source).exists():
        changes["init"] = recipe.init.model_copy(update={"source": str(Path(source).absolute())})
    return recipe.model_copy(update=changes)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``KEY.KEY=VALUE`` strings as nested mappings; the value is YAML.

    Raises:
        UsageError: One has no ``=``, or its value is no YAML.
    """
    nested: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(
                f"settings={setting}", "is not KEY=VALUE", "write, for example, schedule.epochs=3"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"settings={setting}", f"its value is not YAML ({error})", "quote it") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given: None, and mappings that hold nothing else."""
    kept = {key: without_empty(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def plan_run(
    out: Path, config: str | None, flags: dict[str, Any], settings: Sequence[str], resume: bool
) -> tuple[Recipe, bool]:
    """Settle a run's recipe: from file and flags, or from the run that is resumed.

    Args:
        out: Folder of the run.
        config: Recipe file or name.
        flags: Nested like the recipe; None is not given.
        settings: ``KEY=VALUE`` strings, which win over all.
        resume: Whether to continue a run.

    Returns:
        The recipe, and whether there is a run to continue: one that was killed before it began starts anew.

    Raises:
        UsageError: There is no such recipe, a flag or a setting is wrong, or a resumed run was given other settings
            than it was begun with.
        ConfigError: The recipe is wrong.
    """
    if config is not None:
        _check_there(config)
    given = merge(without_empty(flags), parse_settings(settings))
    stored = out / RECIPE
    if not resume or not stored.is_file():
        data = _read_with_base(config, ()) if config else {}
        return with_absolute_paths(_with_given(config, data, given, settings)), False
    begun = read_recipe(str(stored))
    if config is None and not given:
        return begun, True
    base = merge(begun.model_dump(mode="json", by_alias=True), _read_with_base(config, ()) if config else {})
    wanted = with_absolute_paths(_with_given(config, base, given, settings))
    changed = _changed(begun, wanted)
    if changed:
        raise UsageError(
            str(out),
            f"the run was begun with another {', '.join(changed)}",
            "leave the change out, or start a new run with output=FOLDER",
        )
    return wanted, True


def _check_there(config: str) -> None:
    """Refuse a recipe that does not exist."""
    try:
        recipe_path(config)
    except ConfigError as error:
        raise UsageError("config", f"{error.subject}: {error.problem}", error.remedy) from None


def _with_given(
    name: str | None, data: dict[str, Any], given: dict[str, Any], settings: Sequence[str]
) -> Recipe:
    """Lay what was given by flags and settings over a recipe.

    Raises:
        UsageError: With the first fault in what was given.
        ConfigError: With all problems of the recipe itself.
    """
    try:
        return Recipe.model_validate(merge(data, given))
    except ValidationError as error:
        _validated(data, name)  # a recipe's own problems come first: without any, what was given is wrong
        key = ".".join(map(str, error.errors()[0]["loc"]))
        problem = problems(error, Recipe)[0].removeprefix(f"{key}: ").removesuffix(".0")
        own = next((one for one in reversed(settings) if key and _concerns(one, key)), None)
        subject = PARAMETERS.get(key, key or name or "recipe") if own is None else f"settings='{own}'"
        raise UsageError(subject, problem.replace("input should be", "must be")) from None


def _concerns(setting: str, key: str) -> bool:
    """Whether a setting gives a key, what is below it, or what it is in."""
    mine = setting.partition("=")[0]
    return f"{mine}.".startswith(f"{key}.") or f"{key}.".startswith(f"{mine}.")


def _changed(begun: Recipe, wanted: Recipe) -> list[str]:
    """Keys in which two recipes differ, but for those of `MAY_CHANGE`."""
    before, after = (recipe.model_dump(mode="json", by_alias=True) for recipe in (begun, wanted))
    for key in MAY_CHANGE:
        *path, last = key.split(".")
        for record in (before, after):
            for name in path:
                record = record[name]
            record.pop(last)
    return [key for key in before if before[key] != after[key]]
