"""From a recipe to the things that train: the checked data, the model and how it sees a video, the loaders."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from torch import nn

from vidcls.config import (
    InputSpec,
    ModelSpec,
    Registry,
    WeightsSpec,
    load_registry,
    problems,
)
from vidcls.errors import ConfigError, UsageError, nearest
from vidcls.models import CONFIGS, config_keys
from vidcls.training.init.initialize import InitReport, initialize
from vidcls.training.recipe import Recipe


def find_model(recipe: Recipe, registry: Registry | None = None) -> ModelSpec:
    """The registry entry that a recipe names, its ``config`` and ``input`` laid over.

    Where it names none, the model is the one that its initial weights are of.

    Raises:
        UsageError: No model is named, or none is called so.
        ConfigError: The recipe's changes do not fit it.
    """
    known = registry if registry is not None else load_registry()
    name = recipe.model
    if name is None:
        spec = _model_of_start(recipe, known)
    elif name in known:
        spec = known[name]
    elif name in CONFIGS:
        spec = ModelSpec(name=name, architecture=name)
    else:
        raise UsageError(
            name,
            f"no such model{nearest(name, [*known, *CONFIGS])}",
            "`vidcls models` lists them all",
        )
    return _overlaid(spec, recipe)


def _model_of_start(recipe: Recipe, known: Registry) -> ModelSpec:
    """The model that a recipe means by its initial weights alone: the one that they are of.

    Raises:
        UsageError: No weights are named either.
    """
    source = recipe.init.source
    if source in (None, "none"):
        raise UsageError("model", "no model was given", "give model=NAME; `vidcls models` lists them")
    assert source is not None
    if source in known:
        return known[source]
    from vidcls.checkpoints import read_checkpoint
    from vidcls.zoo.entry import spec_of
    from vidcls.zoo.weights import resolve

    return spec_of(read_checkpoint(resolve(source)), source, known)


def _overlaid(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """Lay the recipe's settings over the entry; sizes that model and input share follow each other."""
    keys = config_keys(spec.architecture)
    wrong = [f"unknown key {key!r}{nearest(key, keys)}" for key in recipe.config if key not in keys]
    if wrong:
        raise ConfigError(
            "recipe", f"config: {', '.join(wrong)}", f"{spec.architecture} takes {', '.join(sorted(keys))}"
        )
    config, view = {**spec.config, **recipe.config}, {**spec.input.model_dump(), **recipe.input}
    for key in ("image_size", "num_frames"):
        if key not in keys:
            continue
        given = [recipe.input.get(key) is not None, recipe.config.get(key) is not None]
        if all(given) and _pair(config[key], key) != _pair(view[key], key):
            raise ConfigError(
                "recipe", f"config.{key} is {config[key]}, input.{key} {view[key]}", "make them equal"
            )
        if given[1]:
            view[key] = config[key]
        else:
            config[key] = view[key]
    side, old = min(_pair(view["image_size"], "image_size")), min(spec.input.image_size)
    if side != old and "resize" not in recipe.input and isinstance(view["resize"], int):
        view["resize"] = round(view["resize"] * side / old)
    if _starts_random(spec, recipe) and "resize_rule" not in recipe.input:
        view["resize_rule"] = "swscale"  # no published weights to be true to: the cheapest that antialiases
    try:
        return spec.model_copy(update={"config": config, "input": InputSpec(**view)})
    except ValidationError as error:
        raise ConfigError("recipe", "input: " + "; ".join(problems(error, InputSpec)), "fix it") from None


def _starts_random(spec: ModelSpec, recipe: Recipe) -> bool:
    source = recipe.init.source
    return source == "none" or (source is None and spec.weights is None)


def _pair(value: Any, key: str) -> tuple[int, ...]:
    if key == "image_size" and isinstance(value, int):
        return (value, value)
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def build_model(spec: ModelSpec, num_classes: int) -> nn.Module:
    """The model with random weights and a head for the classes.

    Raises:
        ConfigError: The configuration does not make a model.
    """
    from vidcls.models import build

    return build(spec.architecture, **{**spec.config, "num_classes": num_classes})


def start_weights(
    model: nn.Module, spec: ModelSpec, recipe: Recipe, registry: Registry | None = None
) -> InitReport | None:
    """Fill the model as the recipe says; None where it stays random.

    Raises:
        WeightsError: The source cannot be fetched.
        CheckpointError: It cannot be read, or does not fit.
    """
    name = recipe.init.source
    known = registry if registry is not None else load_registry()
    source: str | WeightsSpec | None = name
    if name == "none":
        return None
    if name is None:
        source = spec.weights
    elif name in known:
        source = known[name].weights
        if source is None:
            raise UsageError(f"init_from={name}", "this model has no weights of its own", "name another")
    if source is None:
        return None
    from vidcls.zoo.weights import resolve

    path = resolve(source)
    return initialize(model, path, recipe.init.method, recipe.init.positions, recipe.init.temporal)
