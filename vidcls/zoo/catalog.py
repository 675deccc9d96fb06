"""Which models there are, those that can run first. Imports no torch."""

from __future__ import annotations

import os

from vidcls.config import ModelSpec, Registry, load_registry

TOY = "tiny"  # part of the names of models that only tests use


def list_models(
    *,
    dataset: str | None = None,
    family: str | None = None,
    has_weights: bool = False,
    registry: str | os.PathLike[str] | Registry | None = None,
) -> list[str]:
    """Return the names of models, those whose weights are on this machine first.

    Args:
        dataset: Part of the name of the data set that they were trained on, such as ``kinetics400`` or ``k400``.
        family: What their architecture's name starts with, such as ``vivit``.
        has_weights: Leave out architectures without weights.
        registry: A registry, or a file that is laid over the one that comes with vidcls.

    Raises:
        ConfigError: A registry file is wrong.
    """
    known = registry if isinstance(registry, Registry) else load_registry(registry)
    return [spec.name for spec in select(known, dataset=dataset, family=family, has_weights=has_weights)]


def select(
    known: Registry,
    *,
    dataset: str | None = None,
    family: str | None = None,
    has_weights: bool = False,
    toys: bool = True,
) -> list[ModelSpec]:
    """Return a registry's entries, those whose weights are on this machine first; see `list_models`.

    Args:
        known: The registry.
        dataset: See `list_models`.
        family: See `list_models`.
        has_weights: See `list_models`.
        toys: Include models that only tests use.
    """
    found = [
        spec
        for spec in known.values()
        if (dataset is None or _is_of(spec, dataset))
        and (family is None or spec.architecture.startswith(family.lower()))
        and (spec.weights is not None or not has_weights)
        and (toys or not is_toy(spec))
    ]
    return sorted(found, key=lambda spec: _RANKS[is_present(spec)])


_RANKS = {True: 0, False: 1, None: 2}


def is_present(spec: ModelSpec) -> bool | None:
    """Whether a model's weights are on this machine; None for an architecture without weights."""
    if spec.weights is None:
        return None
    from vidcls.zoo import weights

    return weights.is_present(spec.weights)


def is_toy(spec: ModelSpec) -> bool:
    """Whether an entry is a model that only tests use."""
    return spec.weights is None and TOY in spec.name.split("-")


def _is_of(spec: ModelSpec, dataset: str) -> bool:
    """Whether a model is of a data set, by that one's name or by its short form in the model's: ``ssv2``, ``k400``."""
    return _plain(dataset) in _plain(spec.dataset or "") or dataset.lower() in spec.name.split("-")


def _plain(name: str) -> str:
    """A data set's name as people type it: ``Kinetics-400`` and ``kinetics400`` are the same."""
    return "".join(c for c in name.lower() if c.isalnum())
