"""Other sizes than a checkpoint's: its position embeddings are interpolated, by the rule of each architecture.

Published formats that define a rule of their own for their files use that while they are read; what is here serves
vidcls's own files, and training that starts from a checkpoint of other views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw
from vidcls.checkpoints.vit_tensors import contradicts, resize_positions
from vidcls.models import ARCHITECTURES, CONFIGS
from vidcls.models.limits import check_numbers, check_sizes
from vidcls.models.sizes import pair
from vidcls.models.timesformer import resize_nearest_1d, resize_places
from vidcls.models.vit_config import ViTConfig, vit_config
from vidcls.models.vtn_config import VIT_BACKBONES

# What a caller may change about a checkpoint.
RESIZABLE = ("num_frames", "image_size")

State = dict[str, Tensor]


def resize_state(architecture: str, state: State, old: Any, new: Any) -> State:
    """Fit the position embeddings of a state to the views of another configuration.

    A model that is only copied loses accuracy by it; it is a start for further training.

    Args:
        architecture: A key of `vidcls.models.ARCHITECTURES`.
        state: Our names → tensors, for ``old``.
        old: The configuration that the state was made for, a dataclass.
        new: The configuration that it shall fit; only its views' size may differ.

    Returns:
        The state for ``new``; the same tensors where no position embedding depends on the size.
    """
    own = getattr(ARCHITECTURES[architecture][1], "resize_state", None)
    if own is not None:
        return own(state, old, new)
    rule = next((rule for name, rule in RULES.items() if architecture.startswith(name)), None)
    return state if rule is None else rule(state, old, new)


def _timesformer(state: State, old: Any, new: Any) -> State:
    """Places nearest along one row, times nearest, as the released code does while loading."""
    height, width = new.grid_size
    out = dict(state)
    if old.grid_size != new.grid_size:
        out["pos_embed"] = resize_places(state["pos_embed"], height * width)
    if "time_embed" in state:
        out["time_embed"] = resize_nearest_1d(state["time_embed"].float(), new.num_frames)
    return out


def _frames(state: State, old: Any, new: Any) -> State:
    """A ViT on each frame: bicubic and antialiased, as timm does."""
    before, after = _vit_of(old), _vit_of(new)
    name = "backbone.pos_embed"
    if before is None or after is None or name not in state:
        return state
    prefix = int(before.pool == "token")
    return {**state, name: resize_positions(state[name], prefix, before.grid_size, after.grid_size, "timm")}


def _timm(state: State, old: Any, new: Any) -> State:
    """The position table of a ViT of timm, as timm's own loader resizes it; its other models take any size."""
    name, patches = "backbone.pos_embed", state.get("backbone.patch_embed.proj.weight")
    if name not in state or state[name].ndim != 3 or patches is None:
        return state
    height, width = patches.shape[-2:]
    before, after = ((h // height, w // width) for h, w in (pair(old.image_size), pair(new.image_size)))
    prefix = state[name].shape[1] - before[0] * before[1]
    return {**state, name: resize_positions(state[name], prefix, before, after, "timm")}


def _vit_of(config: Any) -> ViTConfig | None:
    """The image ViT inside ``vit-frames`` or a VTN; None for another backbone."""
    if isinstance(config, ViTConfig):
        return config
    backbone = config.backbone
    if isinstance(backbone, str):
        backbone = VIT_BACKBONES.get(backbone.replace("_", "-"))
    if not isinstance(backbone, dict) or "variant" in backbone:
        return None
    return vit_config({**backbone, "image_size": config.image_size, "in_channels": config.in_channels})


def _t2t(state: State, old: Any, new: Any) -> State:
    """Bicubic without antialias, as the authors describe it."""
    name = "backbone.pos_embed"
    return {**state, name: resize_positions(state[name], 1, old.grid_size, new.grid_size, "hf")}


def _videoprism(state: State, old: Any, new: Any) -> State:
    """Both tables as a picture, the times as one of width 1: ``interpolate_pos_encoding`` of transformers."""
    out = dict(state)
    (t, *places), (new_t, *new_places) = old.grid_size, new.grid_size
    grids = (("spatial", places, new_places), ("temporal", (t, 1), (new_t, 1)))
    for part, before, after in grids:
        name = f"{part}.pos_embed"
        out[name] = resize_positions(state[name], 0, tuple(before), tuple(after), "videoprism")
    return out


def _attentive(state: State, old: Any, new: Any) -> State:
    """By the rule of the backbone's architecture."""
    prefix = "backbone."
    inner = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    resized = resize_state(old.backbone_architecture, inner, old.inner(), new.inner())
    return {**state, **{f"{prefix}{name}": tensor for name, tensor in resized.items()}}


RULES: dict[str, Callable[[State, Any, Any], State]] = {
    "timesformer-": _timesformer,
    "timm-frames": _timm,
    "vit-frames": _frames,
    "t2t-frames": _t2t,
    "vtn": _frames,
    "videoprism": _videoprism,
    "attentive": _attentive,
}


def split_keywords(
    raw: Raw, architecture: str, found: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the caller's keywords into what the file leaves open and the sizes to change.

    Args:
        raw: The file, for errors.
        architecture: What it holds.
        found: Keywords that the file determines.
        given: The caller's.

    Returns:
        ``found`` with what the file leaves open, and the sizes that the caller wants instead of the file's.

    Raises:
        CheckpointError: A keyword is unknown to the architecture, or contradicts the file.
    """
    known = {field.name for field in fields(CONFIGS[architecture])}
    config, wanted = dict(found), {}
    for key, value in given.items():
        if key not in known:
            raise raw.error(f"holds {architecture}, which takes no {key}", "leave the keyword out")
        if key in RESIZABLE:
            wanted[key] = pair(value) if key == "image_size" else int(value)
        elif key not in found:
            config[key] = value
        else:
            contradicts(raw, key, found[key], value)
    return config, wanted


def finish(
    raw: Raw,
    name: str,
    architecture: str,
    config: dict[str, Any],
    wanted: dict[str, Any],
    state: State,
    **extra: Any,
) -> Checkpoint:
    """Change the sizes that the caller wants changed, and put the checkpoint together.

    Args:
        raw: The file, for errors.
        name: The format's name.
        architecture: What the file holds.
        config: Its configuration, as in the file.
        wanted: Some of `RESIZABLE`, to change.
        state: Our names → tensors.
        **extra: Further fields of `Checkpoint`; sizes in ``input`` follow ``wanted``, and ``notes`` say so.

    Raises:
        CheckpointError: The configuration makes no model, or the position embeddings do not fit it.
    """
    config_class = CONFIGS[architecture]
    new_config = {**config, **wanted}
    if new_config != config:
        check_numbers(architecture, new_config)
        try:
            wanted_config = config_class(**new_config)
            check_sizes(architecture, wanted_config)
            resized = resize_state(architecture, state, config_class(**config), wanted_config)
        except (ValueError, TypeError, IndexError, ArithmeticError, RuntimeError, KeyError) as error:
            raise raw.error(str(error), "check num_frames and image_size") from error
        if any(resized[key] is not tensor for key, tensor in state.items()):
            extra["notes"] = (*extra.get("notes", ()), _note(config, new_config))
        state = resized
    if extra.get("input") is not None:
        extra["input"] = {**extra["input"], **_input_sizes(extra["input"], wanted)}
    return Checkpoint(name, architecture, new_config, state, **extra)


def _note(old: dict[str, Any], new: dict[str, Any]) -> str:
    def views(config: dict[str, Any]) -> str:
        height, width = pair(config["image_size"])
        frames = config.get("num_frames")
        return f"{height}×{width} pixels" if frames is None else f"{frames} frames of {height}×{width} pixels"

    return f"its position embeddings were interpolated from {views(old)} to {views(new)}"


def _input_sizes(seen: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The sizes that change; the short side before the crop stays in proportion to the crop."""
    sizes = dict(wanted)
    resize = seen.get("resize")
    if "image_size" not in wanted:
        return sizes
    new = wanted["image_size"]
    old = pair(seen["image_size"]) if seen.get("image_size") is not None else new
    if isinstance(resize, int) and resize != short_side(old):
        sizes["resize"] = round(resize * min(new) / min(old))
    elif isinstance(resize, (tuple, list)):
        sizes["resize"] = tuple(round(r * n / o) for r, n, o in zip(resize, new, old, strict=True))
    elif "resize" in seen:
        sizes["resize"] = None if resize is None else short_side(new)
    else:
        sizes["resize"] = short_side(new)
    return sizes


def short_side(image_size: tuple[int, int]) -> int:
    """The short side in pixels that frames are resized to before the crop: 256 for 224, 288 for 256 (scenic)."""
    known = {224: 256, 256: 288}
    return known.get(min(image_size), round(min(image_size) * 256 / 224))
