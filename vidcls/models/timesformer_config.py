"""Shape of a TimeSformer (Bertasius et al. 2021); `vidcls.models.timesformer` builds it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vidcls.errors import ConfigError
from vidcls.models.sizes import pair
from vidcls.models.transformer_config import PatchConfig


@dataclass(frozen=True)
class TimeSformerConfig(PatchConfig):
    """Shape of a TimeSformer; the defaults are the base model on Kinetics-400, 8 frames at 224 pixels.

    Attributes:
        image_size: Height and width of a frame in pixels; one number stands for both. With ``num_frames`` it
            fixes the shapes of the position embeddings; views of other sizes are taken too, see
            `TimeSformer.positions`.
        num_frames: Frames of one view.
        patch_size: Height and width of a patch in pixels; what is left of a frame beyond whole patches is not
            looked at.
        num_classes: Length of the logits.
        any_size: Whether views of other sizes than ``image_size`` and ``num_frames`` are taken. HF's divided
            attention is not defined for them (it raises, or mixes up the tokens), so its checkpoints set False.
    """

    num_frames: int = 8
    num_classes: int = 400
    drop_path_rate: float = 0.1
    any_size: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_frames", "in_channels", "num_classes", "embed_dim", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"{getattr(self, name)} is not positive", "give 1 or more")
        if min(pair(self.patch_size)) < 1 or min(self.grid_size) < 1:
            problem = f"no patch of {self.patch_size} fits into {self.image_size} pixels"
            raise ConfigError("patch_size", problem, "change one")
