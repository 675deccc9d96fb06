"""Every architecture: its configuration, which needs no torch, and its module, which is imported when it is asked for.

To add a backbone: one file with its modules, one beside it with its configuration, and one line in `TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vidcls.errors import ConfigError
from vidcls.models.limits import check_numbers, check_sizes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURES", "CONFIGS", "build", "config_keys"]

# name → (where its config dataclass is, where its module is, which takes that config as its one argument)
TABLE: dict[str, tuple[str, str]] = {
    "vivit-st": ("vivit_config.SpaceTimeConfig", "vivit.SpaceTimeViViT"),
    "vivit-fe": ("vivit_config.FactorizedEncoderConfig", "vivit.FactorizedEncoderViViT"),
    "vivit-fsa": ("vivit_config.FactorizedSelfConfig", "vivit.FactorizedSelfViViT"),
    "vivit-fdp": ("vivit_config.FactorizedDotConfig", "vivit.FactorizedDotViViT"),
    "timesformer-divided": ("timesformer_config.TimeSformerConfig", "timesformer.DividedTimeSformer"),
    "timesformer-joint": ("timesformer_config.TimeSformerConfig", "timesformer.JointTimeSformer"),
    "timesformer-space": ("timesformer_config.TimeSformerConfig", "timesformer.SpaceTimeSformer"),
    "timesformer-local-global": (
        "timesformer_config.TimeSformerConfig",
        "timesformer.LocalGlobalTimeSformer",
    ),
    "timesformer-axial": ("timesformer_config.TimeSformerConfig", "timesformer.AxialTimeSformer"),
    "videomae": ("videomae_config.VideoMAEConfig", "videomae.VideoMAE"),
    "vjepa2": ("vjepa2_config.VJEPA2Config", "vjepa2.VJEPA2"),
    "videoprism": ("videoprism_config.VideoPrismConfig", "videoprism.VideoPrism"),
    "vtn": ("vtn_config.VTNConfig", "vtn.VTN"),
    "vit-frames": ("vit_config.ViTFramesConfig", "vit.ViTFrames"),
    "t2t-frames": ("t2t_config.T2TConfig", "t2t.T2TFrames"),
    "timm-frames": ("timm_frames_config.TimmFramesConfig", "timm_frames.TimmFrames"),
    "vt-frames": ("visual_transformer_config.VTConfig", "visual_transformer.VTFrames"),
    "attentive": ("attentive_config.AttentiveConfig", "attentive.Attentive"),
}


def _import(where: str) -> Any:
    module, _, name = where.partition(".")
    return getattr(import_module(f"{__name__}.{module}"), name)


class _Lazy(Mapping[str, Any]):
    """The architectures' names, with what is imported when it is looked up."""

    def __init__(self, load: Callable[[str, str], Any]) -> None:
        self._load = load

    def __getitem__(self, name: str) -> Any:
        return self._load(*TABLE[name])

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in TABLE


CONFIGS: Mapping[str, type[Any]] = _Lazy(lambda config, module: _import(config))
"""Architecture → its config dataclass; imports no torch."""

ARCHITECTURES: Mapping[str, tuple[type[Any], type[nn.Module]]] = _Lazy(
    lambda config, module: (_import(config), _import(module))
)
"""Architecture → (its config dataclass, its module's class); looking one up imports torch."""


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
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
