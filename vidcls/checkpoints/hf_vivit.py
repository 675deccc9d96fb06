"""Hugging Face folders of ``VivitForVideoClassification``: ViViT's Model 1 with a class token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import Checkpoint, Raw, Rename, count_layers, rename, require_tensor
from vidcls.checkpoints.resizing import finish, split_keywords
from vidcls.checkpoints.vivit_tensors import cat, tubelet_of
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
    if architecture not in (None, ARCHITECTURE):
        raise raw.error(f"holds {ARCHITECTURE}, not {architecture}", "leave the architecture to the file")
    found, wanted = split_keywords(raw, ARCHITECTURE, _sizes(raw), config)
    views = _views(raw, found["tubelet_size"])
    ignored = {
        name for name in raw.tensors if name.startswith("vivit.pooler.")
    }  # the classifier does not use it
    tensors = {name: tensor for name, tensor in raw.tensors.items() if name not in ignored}
    state = rename(tensors, _renames(found), raw.path, ARCHITECTURE)
    labels = hf_config.labels(raw, found["num_classes"])
    sees = {**hf_config.preprocessing(raw), **views}
    return finish(raw, NAME, ARCHITECTURE, {**found, **views}, wanted, state, labels=labels, input=sees)


def _sizes(raw: Raw) -> dict[str, Any]:
    if "classifier.weight" not in raw.tensors:
        raise raw.error(
            "has no classifier", "give a folder saved from VivitForVideoClassification, not from VivitModel"
        )
    kernel = require_tensor(raw.tensors, "vivit.embeddings.patch_embeddings.projection.weight", raw.path)
    if kernel.ndim != 5:
        raise raw.error(f"its projection has the shape {tuple(kernel.shape)}", "it is not a ViViT's")
    dim = kernel.shape[0]
    hidden = require_tensor(raw.tensors, f"{LAYER}.0.intermediate.dense.weight", raw.path)
    heads = hf_config.whole(raw, "num_attention_heads", 12)
    if dim % heads:
        raise raw.error(f"config.json: {heads} heads cannot share {dim} channels", "fetch the folder again")
    return {
        "tubelet_size": tubelet_of(raw, tuple(kernel.shape[2:])),
        "in_channels": kernel.shape[1],
        "embed_dim": dim,
        "depth": count_layers(raw.tensors, rf"{LAYER}\.(\d+)\.".replace("vivit.", r"vivit\.", 1), raw.path),
        "num_heads": heads,
        "mlp_ratio": hidden.shape[0] / dim if hidden.ndim and dim else 0.0,
        "num_classes": require_tensor(raw.tensors, "classifier.weight", raw.path).shape[0],
        "pool": "token",
        "qkv_bias": f"{LAYER}.0.attention.attention.query.bias" in raw.tensors,
        "norm_eps": hf_config.number(raw, "layer_norm_eps", 1e-6),
        "activation": hf_config.activation(raw, "gelu_fast"),
        "dropout": hf_config.number(raw, "hidden_dropout_prob", 0.0),
        "attn_dropout": hf_config.number(raw, "attention_probs_dropout_prob", 0.0),
    }


def _views(raw: Raw, tubelet: tuple[int, int, int]) -> dict[str, Any]:
    settings = raw.meta["config"]
    size, frames = settings.get("image_size", 224), settings.get("num_frames", 32)
    declared = settings.get("tubelet_size", tubelet)
    try:
        sizes = (int(frames), *pair(size))
        same = triple(declared) == tubelet
    except (TypeError, ValueError, IndexError, OverflowError):
        raise raw.error(
            f"config.json: image_size {size!r}, num_frames {frames!r}, tubelet_size {declared!r} are no sizes",
            "fetch the folder again",
        ) from None
    if not same:
        raise raw.error(
            f"config.json: tubelet_size is {declared}, but the projection has {tubelet}",
            "fetch the folder again",
        )
    positions = require_tensor(raw.tensors, "vivit.embeddings.position_embeddings", raw.path)
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
    yield from _layer("patch_embed.proj", f"{embeddings}.patch_embeddings.projection")
    for i in range(found["depth"]):
        ours, theirs = f"encoder.blocks.{i}", f"{LAYER}.{i}"
        for part in ("weight", "bias") if found["qkv_bias"] else ("weight",):
            names = tuple(f"{theirs}.attention.attention.{p}.{part}" for p in ("query", "key", "value"))
            yield Rename(f"{ours}.attn.qkv.{part}", names, cat)
        yield from _layer(f"{ours}.attn.proj", f"{theirs}.attention.output.dense")
        yield from _layer(f"{ours}.norm1", f"{theirs}.layernorm_before")
        yield from _layer(f"{ours}.norm2", f"{theirs}.layernorm_after")
        yield from _layer(f"{ours}.mlp.fc1", f"{theirs}.intermediate.dense")
        yield from _layer(f"{ours}.mlp.fc2", f"{theirs}.output.dense")
    yield from _layer("encoder.norm", "vivit.layernorm")
    yield from _layer("head", "classifier")


def _layer(ours: str, theirs: str) -> Iterator[Rename]:
    for part in ("weight", "bias"):
        yield Rename(f"{ours}.{part}", (f"{theirs}.{part}",))
