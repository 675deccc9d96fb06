"""Safe YAML, and the registry: ``models.yaml`` → frozen records. Imports no torch."""

from vidcls.config.registry import (
    Figures,
    InputSpec,
    ModelSpec,
    Published,
    Registry,
    Spec,
    WeightsSpec,
    builtin_registry_path,
    load_registry,
    nearest,
    pair,
    problems,
    read_yaml,
    registry_paths,
)

__all__ = [
    "Figures",
    "InputSpec",
    "ModelSpec",
    "Published",
    "Registry",
    "Spec",
    "WeightsSpec",
    "builtin_registry_path",
    "load_registry",
    "nearest",
    "pair",
    "problems",
    "read_yaml",
    "registry_paths",
]
