"""Shape of a Visual Transformer (Wu et al. 2021); `vidcls.models.visual_transformer` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidcls.errors import ConfigError, nearest
from vidcls.models.sizes import pair
from vidcls.models.transformer_config import check_known

# name → whether its blocks are bottlenecks, and their number in layer1 to layer4
RESNETS: dict[str, tuple[bool, tuple[int, int, int, int]]] = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
}

# The number of modules that replace stage 5; as many as it has residual blocks (section 3.5).
MODULES = {name: depths[3] for name, (_, depths) in RESNETS.items()}
VARIANTS = tuple(f"{kind}-{name}" for kind in ("vt", "vt-fpn") for name in RESNETS)
READINGS = ("table", "printed")
VALUE_MAPS = ("needed", "first", "all")


@dataclass(frozen=True)
class VTConfig:
    """Shape of a Visual Transformer; None takes what the reading says (see the module's docstring).

    Attributes:
        variant: One of `VARIANTS`.
        reading: One of `READINGS`; sets what is left None below.
        image_size: Height and width of a frame in pixels that the model is meant for; it takes any from 32 on.
        in_channels: Channels of a frame.
        num_classes: Length of the logits.
        num_frames: Frames of the clips that the model is meant for. It takes any number.
        num_tokens: Visual tokens L: 16, or 8 for each level of a VT-FPN.
        map_dim: Channels C of the maps that tokens are read from and projected to.
        token_dim: Channels C_T of a token.
        attn_dim: Width of the token transformer's keys and queries.
        hidden_dim: Width inside the token transformer's feed-forward part.
        value_map: Which tokenizers have a W_V, C × C_T: ``needed`` where C ≠ C_T, ``first`` besides in the first
            module, ``all`` in all.
        fpn_modules: VT modules of a VT-FPN one behind the other; those after the first have recurrent tokenizers.
        width: Channels of the ResNet's stem; 64 in the published networks.
        dropout: Before the classifier; the paper's advanced recipe takes 0.2.
    """

    variant: str = "vt-resnet18"
    reading: str = "table"
    image_size: int | tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    num_frames: int = 8
    num_tokens: int | None = None
    map_dim: int | None = None
    token_dim: int | None = None
    attn_dim: int | None = None
    hidden_dim: int | None = None
    value_map: str | None = None
    fpn_modules: int = 1
    width: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("variant", VARIANTS), ("reading", READINGS)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(
                    name,
                    f"none is called {value!r}{nearest(value, known)}",
                    f"choose one of {', '.join(known)}",
                )
        object.__setattr__(self, "image_size", pair(self.image_size))
        for name, value in self._defaults().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_known("value_map", str(self.value_map), VALUE_MAPS)
        for name in ("in_channels", "num_classes", "num_frames", "fpn_modules", "width", *NUMBERS):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"must be at least 1, got {getattr(self, name)}", "change it")

    def _defaults(self) -> dict[str, Any]:
        printed = self.reading == "printed"
        expansion = 4 if RESNETS[self.resnet][0] else 1
        map_dim = self.map_dim or (256 if self.fpn else 4 * self.width * expansion if printed else 1024)
        token_dim = self.token_dim or (map_dim if printed and not self.fpn else 1024)
        return {
            "num_tokens": 8 if self.fpn else 16,
            "map_dim": map_dim,
            "token_dim": token_dim,
            "attn_dim": token_dim if printed else max(1, token_dim // 4),
            "hidden_dim": token_dim if printed else max(1, token_dim // 2),
            "value_map": "needed" if printed else "first",
        }

    def value_dim(self, index: int) -> int | None:
        """Width of the W_V of tokenizers in module ``index``; None where they have none."""
        mapped = self.map_dim != self.token_dim or self.value_map == "all"
        return self.number("token_dim") if mapped or (self.value_map == "first" and index == 0) else None

    @property
    def fpn(self) -> bool:
        """Whether the variant is a VT-FPN."""
        return self.variant.startswith("vt-fpn-")

    @property
    def resnet(self) -> str:
        """Name of the ResNet below, a key of `vidcls.models.resnet.RESNETS`."""
        return self.variant.rpartition("-")[2]

    def number(self, name: str) -> int:
        """One of the widths, which are numbers once the reading has filled them in."""
        return int(getattr(self, name))


NUMBERS = ("num_tokens", "map_dim", "token_dim", "attn_dim", "hidden_dim")
