"""TimeSformer as Facebook released it: ``.pyth`` files in any of their wrappings, and bare state dicts.

facebookresearch/TimeSformer, ``timesformer/utils/checkpoint.py`` and ``timesformer/models/helpers.py``. Our
parameter names are theirs, so a file is unwrapped and not renamed. The scheme of attention is told by the tensors:
``temporal_attn`` makes it divided, ``time_embed`` alone joint, neither space-only.

Sizes may be changed while loading, by the rule of the reference's ``load_pretrained``: the places are resized as
one flat row, nearest in 1-D (not as a picture), the times nearest in 1-D. This differs from what the model does
with views of other sizes (`vidcls.models.timesformer.TimeSformer.positions`), and the reference has a third way:
``tools/test_net.py`` resizes the times only and silently leaves every other tensor that does not fit as it was
initialized. We never do that; what does not fit is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import HEADLESS, Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.families import Family
from vidcls.checkpoints.timesformer_input import read_settings, stored_input
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, square_grid, vit_checkpoint, vit_sizes
from vidcls.errors import CheckpointError, ConfigError
from vidcls.models.sizes import pair
from vidcls.models.timesformer import TimeSformer, resize_nearest_1d, resize_places

NAME = "timesformer_fb"

_NEEDED = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
FAMILY = Family("a TimeSformer of Facebook's names", r"blocks\.\d+\.temporal_attn\.|time_embed$", _NEEDED)


def matches(raw: Raw) -> bool:
    """Whether there is a TimeSformer; what may be a plain image ViT counts only where the file is Facebook's.

    A space-only TimeSformer has the tensors of an image ViT. It is told by Facebook's ``model_state``, by the stored
    settings, or in safetensors by the released names' ``model.``. Anything else may as well come from DeiT or
    Lightning and is left to `vidcls.checkpoints.timm_vit`; ``format="timesformer_fb"`` overrules that.
    """
    if not is_vit(raw):
        return False
    if find_scheme(raw.tensors) != "timesformer-space":
        return True
    released = raw.kind == "safetensors" and raw.wrappers == ("model",)
    return released or "model_state" in raw.wrappers or "TIMESFORMER" in read_settings(raw)


def is_vit(raw: Raw) -> bool:
    """Whether the names are those of a ViT with a class token and 2-D patches, perhaps with time beside."""
    patches = raw.tensors.get("patch_embed.proj.weight")
    return (
        raw.kind in ("torch", "safetensors")
        and all(name in raw.tensors for name in _NEEDED)
        and patches is not None
        and patches.ndim == 4
    )


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a TimeSformer of divided, joint or space-only attention.

    Args:
        raw: The file.
        architecture: Must be the scheme that the tensors tell, or None; ``vit-frames`` reads a space-only one as the
            image ViT that it may be.
        config: ``num_heads`` where 64 does not divide the width (the files do not store it); ``image_size`` and
            ``num_frames`` to resize the embeddings; any other keyword of the architecture.

    Raises:
        CheckpointError: The file is incomplete, contradicts a keyword, or does not say how many heads it has.
    """
    if not is_vit(raw):
        raise raw.error("holds no TimeSformer of Facebook's names", "try without format=")
    state = raw.tensors
    scheme = find_scheme(state)
    if architecture == "vit-frames" and scheme == "timesformer-space":
        return vit_checkpoint("timm_vit", ViTTensors(raw, state, "timm"), architecture, config)
    raw.expect(architecture, scheme)
    settings = read_settings(raw)
    found, state, notes = fit(raw, state, scheme, config, settings)
    seen, more = stored_input(settings, found, "image_size" in config)
    return Checkpoint(NAME, scheme, settle(raw, found, config), state, input=seen, notes=notes + more)


def find_scheme(names: Mapping[str, Any]) -> str:
    """Tell the architecture from the names of the tensors."""
    if any(".temporal_attn." in name for name in names):
        return "timesformer-divided"
    return "timesformer-joint" if "time_embed" in names else "timesformer-space"


def fit(
    raw: Raw, state: dict[str, Tensor], scheme: str, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
    """Infer a TimeSformer's shape, and resize its embeddings to the sizes that are asked for.

    Args:
        raw: The file, for errors.
        state: Tensors under our names.
        scheme: The architecture.
        config: The caller's keywords; ``num_heads``, ``image_size`` and ``num_frames`` are used.
        settings: Facebook's stored ``cfg``; may be empty.

    Returns:
        Keywords of `TimeSformerConfig`, the state with embeddings of the right size, and notes.

    Raises:
        CheckpointError: A tensor is missing or of a shape that no TimeSformer has.
    """
    found, more = vit_sizes(raw, state, config.get("num_heads"))
    patch_size = found["patch_size"]
    positions = require_tensor(state, "pos_embed", raw.path, 3)
    places = positions.shape[1] - 1
    image_size = _image_size(raw, places, patch_size, config.get("image_size"), settings)
    wanted_places = math.prod(size // side for size, side in zip(image_size, patch_size, strict=True))
    notes = []
    if wanted_places not in (places, 0):  # an image smaller than a patch is the model's to refuse
        state = {**state, "pos_embed": resize_places(positions, wanted_places)}
        notes.append(
            f"its {places} position embeddings were resized to {wanted_places}, nearest along one row"
        )
    frames = int(config.get("num_frames") or _data(settings, "NUM_FRAMES", 8))
    if scheme != "timesformer-space":
        times = require_tensor(state, "time_embed", raw.path, 3)
        frames = int(config.get("num_frames") or times.shape[1])
        if frames > 0 and frames != times.shape[1]:
            state = {**state, "time_embed": resize_nearest_1d(times.float(), frames)}
            notes.append(f"its {times.shape[1]} time embeddings were resized to {frames}, nearest")
    found |= {"image_size": image_size, "num_frames": frames}
    if "head.weight" in state:
        found["num_classes"] = require_tensor(state, "head.weight", raw.path, 2).shape[0]
    else:
        notes.append(HEADLESS)
    return found, state, (*notes, *more)


def inflate_image_vit(
    vit_state: Mapping[str, Tensor],
    architecture: str,
    *,
    image_size: int | tuple[int, int],
    num_frames: int,
    num_classes: int,
    subject: object = "image ViT",
) -> dict[str, Tensor]:
    """Turn an image ViT's weights into the start of a TimeSformer, as the reference's ``load_pretrained`` does.

    Every attention step starts from the image's own attention and norm, the linear layers behind the early steps
    and the time embeddings from zero: at first the model is the image ViT, by frame. Positions are resized nearest
    in 1-D. The paper's schemes that were never released start in the same way.

    Args:
        vit_state: timm's names → tensors, bare or under ``backbone.``, with or without ``head.*``.
        architecture: A key of `vidcls.models.ARCHITECTURES` that starts with ``timesformer-``.
        image_size: Of the TimeSformer, in pixels.
        num_frames: Of the TimeSformer.
        num_classes: Of the TimeSformer. The head is kept only if it has as many.
        subject: What errors are about, such as the file.

    Returns:
        The TimeSformer's state. ``head.weight`` and ``head.bias`` are absent where the class counts differ: keep
        the model's own.

    Raises:
        CheckpointError: The ViT is incomplete, or has tensors that no TimeSformer has a place for.
        ConfigError: The architecture is not a TimeSformer.
    """
    from vidcls.models import ARCHITECTURES

    model_class = ARCHITECTURES[architecture][1]
    if not issubclass(model_class, TimeSformer):
        raise ConfigError(architecture, "is not a TimeSformer", "choose one of timesformer-*")
    steps: tuple[str, ...] = getattr(model_class.make_block, "early_steps", ())
    state: dict[str, Tensor] = {}
    for key, tensor in vit_state.items():
        name = key.removeprefix("backbone.")
        if name.startswith("pre_logits."):
            continue  # of ImageNet-21k; the reference drops it too
        state[name] = tensor
        for step in steps:
            if found := re.fullmatch(r"(blocks\.\d+)\.(attn|norm1)\.(.+)", name):
                state[f"{found[1]}.{step}_{found[2]}.{found[3]}"] = tensor
    _check_image_vit(state, subject)
    dim, _, *patch = state["patch_embed.proj.weight"].shape
    height, width = pair(image_size)
    places = (height // patch[0]) * (width // patch[1])
    if places != state["pos_embed"].shape[1] - 1:
        state["pos_embed"] = resize_places(state["pos_embed"], places)
    if model_class.has_time:
        state["time_embed"] = torch.zeros(1, num_frames, dim)
    for layer in range(count_layers(state, r"blocks\.(\d+)\.", subject)):
        for step in steps:
            state[f"blocks.{layer}.{step}_fc.weight"] = torch.zeros(dim, dim)
            state[f"blocks.{layer}.{step}_fc.bias"] = torch.zeros(dim)
    keeps_head = "head.weight" in state and len(state["head.weight"]) == num_classes
    return state if keeps_head else {name: t for name, t in state.items() if not name.startswith("head.")}


def _check_image_vit(state: Mapping[str, Tensor], subject: object) -> None:
    for name in _NEEDED:
        require_tensor(state, name, subject)
    foreign = [name for name in state if name.partition(".")[0] not in _IMAGE_VIT]
    if foreign:
        raise CheckpointError(
            str(subject),
            f"its {', '.join(foreign[:3])} have no place in a TimeSformer",
            "give a plain image ViT",
        )


_IMAGE_VIT = {"cls_token", "pos_embed", "patch_embed", "blocks", "norm", "head"}


def _image_size(
    raw: Raw, places: int, patch: tuple[int, int], wanted: Any, settings: Mapping[str, Any]
) -> tuple[int, int]:
    """The size in pixels that is asked for, was stored, or belongs to a square of patches."""
    if wanted is not None:
        return pair(wanted)
    crop = _data(settings, "TRAIN_CROP_SIZE", 0)
    if crop > 0 and (crop // patch[0]) * (crop // patch[1]) == places:
        return crop, crop
    rows, columns = square_grid(raw, places)
    return rows * patch[0], columns * patch[1]


def _data(settings: Mapping[str, Any], key: str, default: int) -> int:
    section = settings.get("DATA")
    value = section.get(key) if isinstance(section, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else default
