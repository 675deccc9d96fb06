"""Hugging Face folders of ``VivitForVideoClassification``: ViViT's Model 1 with a class token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import (
    HEADLESS,
    Checkpoint,
    Raw,
    Rename,
    count_layers,
    joined,
    rename,
    require_tensor,
)
from vidcls.checkpoints.resizing import finish, split_keywords
from vidcls.checkpoints.vivit_tensors import tubelet_of
from vidcls.models.sizes import pair, triple

NAME = "hf_vivit"
ARCHITECTURE = "vivit-st"

LAYER = "vivit.encoder.layer"


def matches(raw: Raw) -> bool:
    """Whether the folder's config.json says that it is a ViViT."""
    return raw.kind == "hf" and raw.meta["config"].get("model_type") == "vivit"


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a ViViT; where the tensors and config.json both tell a size, the tensors are believed.

    Raises:
        CheckpointError: A tensor is missing, unexpected or misshapen, config.json asks for what is not known, or
            a keyword contradicts the file.
    """
    raw.expect(architecture, ARCHITECTURE)
    # Neither does the classifier use the pooler.
    named = hf_config.with_prefix(raw.tensors, "vivit.")
    tensors = {name: tensor for name, tensor in named.items() if not name.startswith("vivit.pooler.")}
    found, wanted = split_keywords(raw, ARCHITECTURE, _sizes(raw, tensors), config)
    views = _views(raw, tensors, found["tubelet_size"])
    state = rename(tensors, _renames(found), raw.path, ARCHITECTURE)
    labels = hf_config.labels(raw, found.get("num_classes", 0))
    sees = {**hf_config.preprocessing(raw), **views}
    notes = () if "num_classes" in found else (HEADLESS,)
    return finish(
        raw, NAME, ARCHITECTURE, {**found, **views}, wanted, state, labels=labels, input=sees, notes=notes
    )


def _sizes(raw: Raw, tensors: dict[str, Tensor]) -> dict[str, Any]:
    kernel = require_tensor(tensors, "vivit.embeddings.patch_embeddings.projection.weight", raw.path)
    if kernel.ndim != 5:
        raise raw.error(f"its projection has the shape {tuple(kernel.shape)}", "it is not a ViViT's")
    dim = kernel.shape[0]
    hidden = require_tensor(tensors, f"{LAYER}.0.intermediate.dense.weight", raw.path)
    heads = hf_config.whole(raw, "num_attention_heads", 12)
    if dim % heads:
        raise raw.error(f"config.json: {heads} heads cannot share {dim} channels", "fetch the folder again")
    head = tensors.get("classifier.weight")
    classes = {} if head is None or not head.ndim else {"num_classes": head.shape[0]}
    return classes | {
        "tubelet_size": tubelet_of(raw, tuple(kernel.shape[2:])),
        "in_channels": kernel.shape[1],
        "embed_dim": dim,
        "depth": count_layers(tensors, r"vivit\.encoder\.layer\.(\d+)\.", raw.path),
        "num_heads": heads,
        "mlp_ratio": hidden.shape[0] / dim if hidden.ndim and dim else 0.0,
        "pool": "token",
        "qkv_bias": f"{LAYER}.0.attention.attention.query.bias" in tensors,
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-6),
        "activation": hf_config.activation(raw, "gelu_fast"),
        **hf_config.dropouts(raw),
    }


def _views(raw: Raw, tensors: dict[str, Tensor], tubelet: tuple[int, int, int]) -> dict[str, Any]:
    settings = raw.meta["config"]
    size, frames = settings.get("image_size", 224), settings.get("num_frames", 32)
    declared = settings.get("tubelet_size", tubelet)
    try:
        sizes = (int(frames), *pair(size))
        same = triple(declared) == tubelet
    except (TypeError, ValueError, IndexError, OverflowError):
        raise raw.error(
            f"config.json: image_size {size!r}, num_frames {frames!r}, tubelet_size {declared!r} are not valid sizes",
            "fetch the folder again",
        ) from None
    if not same:
        raise raw.error(
            f"config.json: tubelet_size is {declared}, but the projection has {tubelet}",
            "fetch the folder again",
        )
    positions = require_tensor(tensors, "vivit.embeddings.position_embeddings", raw.path)
    tokens = math.prod(n // step for n, step in zip(sizes, tubelet, strict=True))
    if positions.ndim != 3 or positions.shape[1] != tokens + 1:
        raise raw.error(
            f"config.json: {sizes[0]} frames of {sizes[1]}×{sizes[2]} make {tokens} tokens, but the position "
            f"embeddings have the shape {tuple(positions.shape)}",
            "fetch the folder again",
        )
    return {"num_frames": sizes[0], "image_size": sizes[1:]}


def _renames(found: dict[str, Any]) -> Iterator[Rename]:
    embeddings = "vivit.embeddings"
    yield Rename("encoder.cls_token", (f"{embeddings}.cls_token",))
    yield Rename("encoder.pos_embed", (f"{embeddings}.position_embeddings",))
    yield from joined("patch_embed.proj", f"{embeddings}.patch_embeddings.projection")
    for i in range(found["depth"]):
        yield from hf_config.block(f"encoder.blocks.{i}", f"{LAYER}.{i}", found["qkv_bias"])
    yield from joined("encoder.norm", "vivit.layernorm")
    if "num_classes" in found:
        yield from joined("head", "classifier")
