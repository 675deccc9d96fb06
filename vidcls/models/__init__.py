"""The video models, by the names that `models.yaml` and the command line use.

To add an architecture: one file here with a frozen config dataclass and a module, and one line below.
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from torch import nn

from vidcls.errors import ConfigError
from vidcls.models import (
    timesformer,
    videomae,
    videomae_config,
    vit,
    vivit,
    vivit_config,
    vjepa2,
    vjepa2_config,
    vtn,
)
from vidcls.models.visual_transformer import VTConfig, VTFrames

# name → (its config dataclass, its module, which takes that config as its one argument)
ARCHITECTURES: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "vivit-st": (vivit_config.SpaceTimeConfig, vivit.SpaceTimeViViT),
    "vivit-fe": (vivit_config.FactorizedEncoderConfig, vivit.FactorizedEncoderViViT),
    "vivit-fsa": (vivit_config.FactorizedSelfConfig, vivit.FactorizedSelfViViT),
    "vivit-fdp": (vivit_config.FactorizedDotConfig, vivit.FactorizedDotViViT),
    "timesformer-divided": (timesformer.TimeSformerConfig, timesformer.DividedTimeSformer),
    "timesformer-joint": (timesformer.TimeSformerConfig, timesformer.JointTimeSformer),
    "timesformer-space": (timesformer.TimeSformerConfig, timesformer.SpaceTimeSformer),
    "timesformer-local-global": (timesformer.TimeSformerConfig, timesformer.LocalGlobalTimeSformer),
    "timesformer-axial": (timesformer.TimeSformerConfig, timesformer.AxialTimeSformer),
    "videomae": (videomae_config.VideoMAEConfig, videomae.VideoMAE),
    "vjepa2": (vjepa2_config.VJEPA2Config, vjepa2.VJEPA2),
    "vtn": (vtn.VTNConfig, vtn.VTN),
    "vit-frames": (vit.ViTFramesConfig, vit.ViTFrames),
    "vt-frames": (VTConfig, VTFrames),
}


def build(architecture: str, **config: Any) -> nn.Module:
    """Build a model with random weights.

    Args:
        architecture: A key of `ARCHITECTURES`.
        **config: Fields of the architecture's config dataclass; what is left out keeps its default.

    Raises:
        ConfigError: Unknown architecture or field, or values that do not make a model.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(architecture, "no such architecture", _nearest(architecture, list(ARCHITECTURES)))
    config_class, model_class = ARCHITECTURES[architecture]
    known = [field.name for field in fields(config_class)]
    unknown = [key for key in config if key not in known]
    if unknown:
        hints = ", ".join(f"{key} ({_nearest(key, known)})" for key in unknown)
        raise ConfigError(architecture, f"takes no {hints}", f"it takes {', '.join(known)}")
    try:
        return model_class(config_class(**config))
    except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ConfigError(architecture, str(error), "change the configuration") from error


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
