"""Every architecture: its configuration, which needs no torch, and its module, which is imported when it is asked for.

To add a backbone: one file with its modules, one beside it with its configuration, and one line in `TABLE`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vidcls.errors import ConfigError
from vidcls.models import (
    t2t_config,
    timesformer_config,
    timm_frames_config,
    videomae_config,
    videoprism_config,
    visual_transformer_config,
    vit_config,
    vivit_config,
    vjepa2_config,
    vtn_config,
)
from vidcls.models.limits import check_numbers, check_sizes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURES", "CONFIGS", "build", "config_keys"]

# name → (its config dataclass, where its module is, which takes that config as its one argument)
TABLE: dict[str, tuple[type[Any], str]] = {
    "vivit-st": (vivit_config.SpaceTimeConfig, "vivit.SpaceTimeViViT"),
    "vivit-fe": (vivit_config.FactorizedEncoderConfig, "vivit.FactorizedEncoderViViT"),
    "vivit-fsa": (vivit_config.FactorizedSelfConfig, "vivit.FactorizedSelfViViT"),
    "vivit-fdp": (vivit_config.FactorizedDotConfig, "vivit.FactorizedDotViViT"),
    "timesformer-divided": (timesformer_config.TimeSformerConfig, "timesformer.DividedTimeSformer"),
    "timesformer-joint": (timesformer_config.TimeSformerConfig, "timesformer.JointTimeSformer"),
    "timesformer-space": (timesformer_config.TimeSformerConfig, "timesformer.SpaceTimeSformer"),
    "timesformer-local-global": (timesformer_config.TimeSformerConfig, "timesformer.LocalGlobalTimeSformer"),
    "timesformer-axial": (timesformer_config.TimeSformerConfig, "timesformer.AxialTimeSformer"),
    "videomae": (videomae_config.VideoMAEConfig, "videomae.VideoMAE"),
    "vjepa2": (vjepa2_config.VJEPA2Config, "vjepa2.VJEPA2"),
    "videoprism": (videoprism_config.VideoPrismConfig, "videoprism.VideoPrism"),
    "vtn": (vtn_config.VTNConfig, "vtn.VTN"),
    "vit-frames": (vit_config.ViTFramesConfig, "vit.ViTFrames"),
    "t2t-frames": (t2t_config.T2TConfig, "t2t.T2TFrames"),
    "timm-frames": (timm_frames_config.TimmFramesConfig, "timm_frames.TimmFrames"),
    "vt-frames": (visual_transformer_config.VTConfig, "visual_transformer.VTFrames"),
}

CONFIGS: dict[str, type[Any]] = {name: config for name, (config, _) in TABLE.items()}
"""Architecture → its config dataclass."""


class _Architectures(Mapping[str, "tuple[type[Any], type[nn.Module]]"]):
    """The table with the modules' classes in it; looking one up imports torch."""

    def __getitem__(self, name: str) -> tuple[type[Any], type[nn.Module]]:
        config, where = TABLE[name]
        module, _, class_name = where.partition(".")
        return config, getattr(import_module(f"{__name__}.{module}"), class_name)

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)

    def __contains__(self, name: object) -> bool:
        return name in TABLE


ARCHITECTURES: Mapping[str, tuple[type[Any], type[nn.Module]]] = _Architectures()
"""Architecture → (its config dataclass, its module's class)."""


def config_keys(architecture: str) -> frozenset[str]:
    """Names of the fields that the architecture's configuration has."""
    return frozenset(field.name for field in fields(CONFIGS[architecture]))


def build(architecture: str, **config: Any) -> nn.Module:
    """Build a model with random weights.

    Args:
        architecture: A key of `ARCHITECTURES`.
        **config: Fields of the architecture's config dataclass; what is left out keeps its default.

    Raises:
        ConfigError: Unknown architecture or field, or values that do not make a model.
    """
    if architecture not in TABLE:
        raise ConfigError(architecture, "no such architecture", _nearest(architecture, list(TABLE)))
    config_class, model_class = ARCHITECTURES[architecture]
    known = [field.name for field in fields(config_class)]
    unknown = [key for key in config if key not in known]
    if unknown:
        hints = ", ".join(f"{key} ({_nearest(key, known)})" for key in unknown)
        raise ConfigError(architecture, f"takes no {hints}", f"it takes {', '.join(known)}")
    check_numbers(architecture, config)
    try:
        sizes = config_class(**config)
        check_sizes(architecture, sizes, allocates=not _on_meta())
        return model_class(sizes)
    except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ConfigError(architecture, str(error), "change the configuration") from error


def _on_meta() -> bool:
    """Whether modules are built without memory for their parameters at the moment."""
    import torch

    return torch.empty(0).device.type == "meta"


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
