"""VideoMAE's classifiers as their authors save them: ``.pth`` files of MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2.

Weights lie under ``model`` or, where DeepSpeed saved the file, under ``module``. The file holds neither the number of
heads nor the size of the views: the heads follow from the width by the authors' table, the views are 16 frames of
224 pixels unless the caller says otherwise, and the position table is computed for whatever they are. A pre-trained
file is read as a start for training, without its decoder and its last norm: the authors fine-tune with the tokens' mean
and a new one.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vidcls.checkpoints.base import HEADLESS, Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.kinetics import ALL, SELECTED, select_classes
from vidcls.checkpoints.vit_tensors import head_count, settle
from vidcls.models.sizes import pair
from vidcls.models.videomae_config import VideoMAEConfig
from vidcls.views.hf_preprocessor import IMAGENET_MEAN, IMAGENET_STD

NAME = "videomae"

KINETICS_VIEWS: dict[str, Any] = {"sampling": "videomae", "stride": 4, "num_views": 5}
SSV2_VIEWS: dict[str, Any] = {"sampling": "videomae-sparse", "stride": 1, "num_views": 2}
SSV2_CLASSES = 174


def matches(raw: Raw) -> bool:
    """Whether there is a video ViT of timm's names with no positions and no bias on its keys."""
    return raw.kind in ("torch", "safetensors") and find_root(raw) is not None


def find_root(raw: Raw) -> str | None:
    """Return what is before VideoMAE's names, ``encoder.`` in pre-trained files; None where there is no VideoMAE."""
    for root in ("", "encoder."):
        kernel = raw.tensors.get(f"{root}patch_embed.proj.weight")
        foreign = ("pos_embed", "cls_token", "blocks.0.attn.qkv.bias")
        if kernel is None or kernel.ndim != 5 or any(root + name in raw.tensors for name in foreign):
            continue
        if f"{root}blocks.0.attn.qkv.weight" in raw.tensors:
            return root
    return None


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a VideoMAE of the authors' names.

    Args:
        raw: The file.
        architecture: ``videomae`` or None.
        config: ``num_heads`` where the width is none of the released models'; ``num_frames`` and ``image_size`` where
            the views are not 16 frames of 224 pixels; ``num_classes=400`` for Kinetics-400's rows of a classifier of
            Kinetics-710; any other keyword of the architecture.

    Raises:
        CheckpointError: It is incomplete, uses cosine attention, or contradicts a keyword.
    """
    root = find_root(raw)
    if root is None:
        raise raw.error("holds no VideoMAE of its authors' names", "try without format=")
    raw.expect(architecture, NAME)
    state = {name.removeprefix(root): t for name, t in raw.tensors.items() if name.startswith(root)}
    refuse_unfit(raw, state)
    found = found_sizes(raw, state)
    if "num_classes" not in found:
        state = {name: t for name, t in state.items() if not name.startswith("norm.")}
    heads, notes = head_count(raw, found["embed_dim"], config.get("num_heads"))
    found["num_heads"] = heads
    wanted = config.get("num_classes")
    if (found.get("num_classes"), wanted) == (ALL, SELECTED):
        config = {**config, "num_classes": ALL}
    sized = "num_frames" in config or "image_size" in config
    settled = {"any_size": not sized, **settle(raw, found, config)}
    size = pair(settled.get("image_size", VideoMAEConfig.image_size))
    whole = Checkpoint(
        NAME,
        NAME,
        settled,
        state,
        input=authors_input(size, found.get("num_classes")),
        notes=notes if "num_classes" in found else (*notes, HEADLESS),
    )
    return select_classes(whole, wanted)


def refuse_unfit(raw: Raw, state: dict[str, Tensor]) -> None:
    """Refuse what is a VideoMAE, but not of the published form; raises CheckpointError."""
    if "blocks.0.attn.scale" in state:
        raise raw.error(
            "uses VideoMAE V2's optional cosine attention (blocks.0.attn.scale), which no released classifier has "
            "and vidcls does not implement",
            "choose another checkpoint",
        )


def found_sizes(raw: Raw, state: dict[str, Tensor]) -> dict[str, Any]:
    """What the tensors under our names determine of a `VideoMAEConfig`.

    Raises:
        CheckpointError: A tensor is missing or has an impossible shape.
    """
    kernel = require_tensor(state, "patch_embed.proj.weight", raw.path, 5)
    hidden = require_tensor(state, "blocks.0.mlp.fc1.weight", raw.path, 2)
    trained = any(name.startswith("head.") for name in state)  # and else a start for training
    classes = {"num_classes": require_tensor(state, "head.weight", raw.path, 2).shape[0]} if trained else {}
    return classes | {
        "tubelet_size": tuple(kernel.shape[2:]),
        "in_channels": kernel.shape[1],
        "embed_dim": kernel.shape[0],
        "depth": count_layers(state, r"blocks\.(\d+)\.", raw.path),
        "mlp_ratio": hidden.shape[0] / kernel.shape[0],
        "qv_bias": "blocks.0.attn.q_bias" in state,
        "pool": "mean" if "fc_norm.weight" in state or not trained else "token",
    }


def authors_input(size: tuple[int, int], num_classes: int | None) -> dict[str, Any]:
    """How the authors test: fields of `vidcls.config.InputSpec`; Something-Something is told by its 174 classes."""
    views = SSV2_VIEWS if num_classes == SSV2_CLASSES else KINETICS_VIEWS
    return {
        **views,
        "fps": None,
        "num_crops": 3,
        "three_crops": "floor",
        "image_size": size,
        "resize": min(size),
        "resize_rule": "opencv",
        "center_crop": "floor",
        "scale": 1 / 255,
        "offset": 0.0,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "average": "probs",
    }
