"""VTN as its release saves it: PySlowFast's ``.pyth``, or the bare state dict in safetensors.

The tensors tell all sizes but three: the heads of the backbone and of the temporal encoder, and the attention
window. The last two stand in the ``cfg`` that PySlowFast stores as YAML; a bare file needs keywords where the
released model's values are not meant.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw, count_layers, rename_known, require_tensor
from vidcls.checkpoints.families import Family
from vidcls.checkpoints.vit_tensors import ViTTensors, head_count, settle
from vidcls.config import parse_yaml

NAME = "vtn_slowfast"

MAX_CFG_CHARS = 1 << 17
RELEASED_WINDOW = 18

ENCODER = "temporal_encoder."
OUTSIDE = {
    "temporal_encoder.embeddings.position_embeddings": "temporal_encoder.position_embed",
    "temporal_encoder.embeddings.token_type_embeddings": "temporal_encoder.type_embed",
    "temporal_encoder.embeddings.LayerNorm": "temporal_encoder.norm",
    **{f"mlp_head.{number}": f"head.{number}" for number in (0, 1, 4)},
}
LAYER = {
    "attention.output.dense": "attn.proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}


FAMILY = Family(
    "a VTN of PySlowFast's names",
    r"temporal_encoder\.|mlp_head\.",
    ("temporal_encoder.embeddings.position_embeddings.weight", "mlp_head.4.weight"),
)


def matches(raw: Raw) -> bool:
    """Whether there is a Longformer over frames and VTN's classifier."""
    return raw.kind in ("torch", "safetensors") and all(name in raw.tensors for name in FAMILY.needed)


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a VTN with a ViT as its backbone, the only one that was released.

    Args:
        raw: The file.
        architecture: ``vtn`` or None.
        config: ``num_heads`` of the backbone, where 64 does not divide its width; ``temporal_num_heads`` and
            ``attention_window`` where there is no cfg or it is to be overruled; ``image_size`` to resize the
            backbone's position table as timm does; and any other keyword of the architecture.

    Raises:
        CheckpointError: The file is incomplete, its cfg is broken, or a keyword contradicts its tensors.
    """
    if not matches(raw):
        raise raw.error("holds no VTN of PySlowFast's names", "try without format=")
    raw.expect(architecture, "vtn", "a VTN")
    tensors = raw.tensors
    cfg = Cfg(raw)
    vit = {n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")}
    own = ("num_heads", "patch_size")  # keywords of the backbone, which our config keeps apart
    backbone, state, vit_notes = ViTTensors(raw, vit, "timm").backbone(config)
    settle(raw, backbone, {key: config[key] for key in own if key in config})
    size, channels = backbone.pop("image_size"), backbone.pop("in_channels")

    table = require_tensor(tensors, f"{ENCODER}embeddings.position_embeddings.weight", raw.path)
    if table.ndim != 2:
        raise raw.error(f"its position table has the shape {tuple(table.shape)}", "fetch it again")
    layer = f"{ENCODER}encoder.layer."
    found = {
        "backbone": backbone,
        "image_size": size,
        "in_channels": channels,
        "num_classes": require_tensor(tensors, "mlp_head.4.weight", raw.path).shape[0],
        "temporal_depth": count_layers(tensors, re.escape(layer) + r"(\d+)\.", raw.path),
        "temporal_mlp_dim": require_tensor(tensors, f"{layer}0.intermediate.dense.weight", raw.path).shape[0],
        "max_positions": table.shape[0],
        "mlp_dim": require_tensor(tensors, "mlp_head.1.weight", raw.path).shape[0],
    }
    heads = config.get("temporal_num_heads", cfg.number("VTN", "NUM_ATTENTION_HEADS", None))
    window = config.get("attention_window", cfg.windows(found["temporal_depth"]))
    chosen = {
        "attention_window": RELEASED_WINDOW if window is None else window,
        "dropout": cfg.number("VTN", "HIDDEN_DROPOUT_PROB", 0.1),
        "attn_dropout": cfg.number("VTN", "ATTENTION_PROBS_DROPOUT_PROB", 0.1),
        "head_dropout": cfg.number("MODEL", "DROPOUT_RATE", 0.5),
    }
    given = {key: value for key, value in config.items() if key not in own}
    found["temporal_num_heads"], head_notes = head_count(raw, table.shape[1], heads, "temporal_num_heads")
    renamed = {f"backbone.{name}": tensor for name, tensor in state.items()} | _temporal(raw, tensors)
    return Checkpoint(
        NAME,
        "vtn",
        {**chosen, **settle(raw, found, given)},
        renamed,
        input=cfg.input(size),
        notes=(*vit_notes, *head_notes, *_notes(window is None)),
    )


def _notes(window_unknown: bool) -> tuple[str, ...]:
    if not window_unknown:
        return ()
    return (f"the file has no cfg; attention_window={RELEASED_WINDOW} as in the released model",)


def _temporal(raw: Raw, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename everything but the backbone."""
    # The latter is a buffer of transformers 4, 0..n-1, which VTN does not read.
    ignored = ("backbone.", f"{ENCODER}embeddings.position_ids")
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(ignored)}
    layer = r"temporal_encoder\.encoder\.layer\.(\d+)"
    out = rename_known(rest, layer, f"{ENCODER}layers", LAYER, OUTSIDE)
    for number in range(count_layers(rest, rf"{layer}\.", raw.path)):
        source = f"{ENCODER}encoder.layer.{number}.attention.self"
        for kind in ("", "_global"):
            for part in ("weight", "bias"):
                names = [f"{source}.{role}{kind}.{part}" for role in ("query", "key", "value")]
                fused = torch.cat([require_tensor(rest, name, raw.path) for name in names])
                out[f"{ENCODER}layers.{number}.attn.qkv{kind}.{part}"] = fused
                for name in names:
                    del out[name]
    return out


class Cfg:
    """PySlowFast's configuration in the file, with the release's values where it is silent.

    Raises:
        CheckpointError: It is not YAML, or larger than any configuration.
    """

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        text = raw.meta.get("cfg", "")
        if not isinstance(text, str) or len(text) > MAX_CFG_CHARS:
            raise raw.error("its cfg is not a configuration", "fetch it again")
        try:
            tree = parse_yaml(text, aliases=True)
        except ValueError as error:
            raise raw.error(f"its cfg is not YAML ({error})", "fetch it again") from error
        self.tree: dict[str, Any] = tree if isinstance(tree, dict) else {}

    def number(self, section: str, key: str, default: float | None) -> Any:
        """Return one entry, which must be a number."""
        value = self._entry(section, key, default)
        if value is not default and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise self.raw.error(
                f"its cfg has {section}.{key}: {value!r}, which is not a number", "fetch it again"
            )
        return value

    def numbers(self, section: str, key: str, default: list[float] | None) -> Any:
        """Return one entry, which must be a list of numbers."""
        value = self._entry(section, key, default)
        if value is not default and not (
            isinstance(value, list) and value and all(type(item) in (int, float) for item in value)
        ):
            raise self.raw.error(
                f"its cfg has {section}.{key}: {value!r}, no list of numbers", "fetch it again"
            )
        return value

    def windows(self, depth: int) -> tuple[int, ...] | None:
        """Attention windows of the layers; the release's list may be longer than its number of layers."""
        windows = self.numbers("VTN", "ATTENTION_WINDOW", None)
        return None if windows is None else tuple(int(window) for window in windows[:depth])

    @property
    def num_frames(self) -> int:
        """Frames of one clip at test time."""
        if self._entry("TRAIN", "EVAL_FULL_VIDEO", True):
            return int(self.number("TRAIN", "EVAL_NUM_FRAMES", 250))
        return int(self.number("DATA", "NUM_FRAMES", 16))

    def input(self, image_size: tuple[int, int]) -> dict[str, Any]:
        """Fields of `vidcls.config.InputSpec`: the whole video, or a clip where the file says so."""
        full = bool(self._entry("TRAIN", "EVAL_FULL_VIDEO", True))
        return {
            "sampling": "vtn",
            "num_frames": self.num_frames,
            "stride": 1 if full else int(self.number("DATA", "SAMPLING_RATE", 8)),
            "fps": float(self.number("DATA", "TARGET_FPS", 25)),
            "num_views": int(self.number("TEST", "NUM_ENSEMBLE_VIEWS", 1)),
            "num_crops": int(self.number("TEST", "NUM_SPATIAL_CROPS", 1)),
            "image_size": image_size,
            "resize": max(int(self.numbers("DATA", "TRAIN_JITTER_SCALES", [256])[0]), *image_size),
            "resize_rule": "float",
            "center_crop": "ceil",
            "scale": 1 / 255,
            "offset": 0.0,
            "mean": tuple(self.numbers("DATA", "MEAN", [0.45, 0.45, 0.45])),
            "std": tuple(self.numbers("DATA", "STD", [0.225, 0.225, 0.225])),
        }

    def _entry(self, section: str, key: str, default: Any) -> Any:
        inner = self.tree.get(section)
        return inner.get(key, default) if isinstance(inner, dict) else default
