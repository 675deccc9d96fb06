"""Safe YAML, and the registry: ``models.yaml`` → frozen records. Imports no torch."""

from vidcls.config.registry import (
    Registry,
    builtin_registry_path,
    load_registry,
    registry_paths,
)
from vidcls.config.specs import (
    Figures,
    InputSpec,
    ModelSpec,
    Published,
    Spec,
    WeightsSpec,
    pair,
    problems,
)
from vidcls.config.yaml import parse_yaml, read_yaml

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
    "pair",
    "parse_yaml",
    "problems",
    "read_yaml",
    "registry_paths",
]
