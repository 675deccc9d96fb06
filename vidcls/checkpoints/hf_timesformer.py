"""Hugging Face folders of ``TimesformerForVideoClassification``: Facebook's weights under other names.

transformers, ``models/timesformer/modeling_timesformer.py``. Divided and joint attention compute what Facebook's
code computes. Two things of HF's are not followed, and said instead of computed differently:

- ``space_only``: HF classifies every frame by itself and returns one row of logits for each, where Facebook's
  code averages the tokens over the frames before the last norm. Such a folder is refused, unless it is asked for
  as ``vit-frames``, which averages HF's rows.
- Divided attention in views of another size than the configuration's: HF raises, or where the numbers happen to
  divide, mixes up the tokens. The model refuses them. ``image_size`` and ``num_frames`` given while loading resize
  the embeddings by Facebook's rule (`vidcls.checkpoints.timesformer_fb`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import Checkpoint, Raw, rename_known, require_tensor
from vidcls.checkpoints.timesformer_fb import find_scheme, fit
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint

NAME = "hf_timesformer"

SCHEMES = {
    "divided_space_time": "timesformer-divided",
    "joint_space_time": "timesformer-joint",
    "space_only": "timesformer-space",
}

_OUTSIDE = {
    "timesformer.embeddings.cls_token": "cls_token",
    "timesformer.embeddings.position_embeddings": "pos_embed",
    "timesformer.embeddings.time_embeddings": "time_embed",
    "timesformer.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "timesformer.layernorm": "norm",
    "classifier": "head",
}
_BLOCK = {theirs: ours for ours, theirs in hf_config.BLOCK.items()} | {
    "attention.attention.qkv": "attn.qkv",
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
}


def matches(raw: Raw) -> bool:
    """Whether the folder's configuration says that it is a TimeSformer."""
    return raw.kind == "hf" and raw.meta["config"].get("model_type") == "timesformer"


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a TimeSformer, with its labels and its preprocessing.

    Args:
        raw: The folder.
        architecture: Must be the configuration's scheme, or None; ``vit-frames`` for ``space_only``.
        config: ``image_size`` and ``num_frames`` to resize the embeddings; any other keyword of the architecture.

    Raises:
        CheckpointError: It is ``space_only``, is incomplete, an entry of the configuration is
            unknown, or a keyword contradicts the folder.
    """
    settings = raw.meta["config"]
    tensors = hf_config.with_prefix(raw.tensors, "timesformer.")
    state = rename_known(tensors, r"timesformer\.encoder\.layer\.(\d+)", "blocks", _BLOCK, _OUTSIDE)
    attention = settings.get("attention_type", "divided_space_time")
    scheme = SCHEMES.get(str(attention))
    if scheme is None or scheme != find_scheme(state):
        raise raw.error(
            f"config.json says attention_type {attention!r}, its tensors make {find_scheme(state)}",
            "fetch the folder again",
        )
    settled = {
        "num_heads": hf_config.whole(raw, "num_attention_heads", 12),
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-6),
        "activation": hf_config.activation(raw),
    }
    rates: dict[str, Any] = {
        **hf_config.dropouts(raw),
        "drop_path_rate": hf_config.number(raw, "drop_path_rate", 0.0),
    }
    if scheme == "timesformer-space":
        return _by_frame(raw, state, architecture, config, settled, rates)
    raw.expect(architecture, scheme)
    sizes = _stored_sizes(raw, state)
    found, state, notes = fit(raw, state, scheme, {**sizes, **config, **settled}, {})
    found |= settled
    seen = _input(raw, found["num_frames"])
    if "image_size" in config:
        seen |= {"image_size": found["image_size"], "resize": max(found["image_size"])}
    rates["any_size"] = scheme != "timesformer-divided"
    names = hf_config.labels(raw, found.get("num_classes", 0))
    settled_config = settle(raw, found, {**rates, **config})
    return Checkpoint(NAME, scheme, settled_config, state, labels=names, input=seen, notes=notes)


def _by_frame(
    raw: Raw,
    state: dict[str, Tensor],
    architecture: str | None,
    config: dict[str, Any],
    settled: dict[str, Any],
    rates: dict[str, Any],
) -> Checkpoint:
    if architecture != "vit-frames":
        raise raw.error(
            "is of HF's space_only attention, which classifies each frame by itself and does not average over them "
            "as Facebook's code does, so that it is no timesformer-space",
            'load it with architecture="vit-frames", which averages its logits over the frames',
        )
    head = state.get("head.weight")
    names = None if head is None else hf_config.labels(raw, head.shape[0])
    seen = _input(raw, hf_config.whole(raw, "num_frames", 8))
    given = settle(raw, settled, config)
    vit = ViTTensors(raw, state, "hf")
    return vit_checkpoint(NAME, vit, architecture, given, rates, labels=names, input=seen)


def _stored_sizes(raw: Raw, state: dict[str, Tensor]) -> dict[str, Any]:
    """The configuration's sizes, held against the tensors: what differs must not pass for a request to resize."""
    size = hf_config.sides(raw, "image_size", 224)
    frames = hf_config.whole(raw, "num_frames", 8)
    patch = require_tensor(state, "patch_embed.proj.weight", raw.path).shape[2:]
    places, times = (
        require_tensor(state, "pos_embed", raw.path).shape[1] - 1,
        require_tensor(state, "time_embed", raw.path).shape[1],
    )
    if (size[0] // patch[0]) * (size[1] // patch[1]) != places or frames != times:
        raise raw.error(
            f"config.json says {frames} frames of {size[0]}×{size[1]} pixels, but its tensors hold {times} times and "
            f"{places} places",
            "fetch the folder again",
        )
    return {"image_size": size, "num_frames": frames}


def _input(raw: Raw, num_frames: int) -> dict[str, Any]:
    """What the folder determines; which frames of a video to take is left to the user by HF."""
    # HF's processors cut one crop out of the middle.
    return {**hf_config.preprocessing(raw), "num_crops": 1, "num_frames": num_frames}
