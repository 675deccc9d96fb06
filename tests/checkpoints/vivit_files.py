"""Writers of flax files for the tests: the trees that scenic saves, at any size, from random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np

Tree = dict[str, Any]


def scenic_tree(
    variant: str = "spacetime",
    *,
    dim: int = 12,
    heads: int = 2,
    hidden: int = 18,
    depth: int = 2,
    temporal_depth: int = 1,
    temporal_heads: int = 3,
    tubelet: tuple[int, int, int] = (2, 4, 4),
    grid: tuple[int, int, int] = (2, 3, 3),
    classes: int = 5,
    token: bool = True,
    representation: int | None = None,
    seed: int = 0,
) -> Tree:
    """A nested parameter tree with scenic's names; ``variant`` is its ``attention_config.type``."""
    rng = np.random.default_rng(seed)

    def array(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def norm() -> Tree:
        return {"scale": 1 + array(dim), "bias": array(dim)}

    def dense(rows: int, columns: int) -> Tree:
        return {"kernel": array(rows, columns), "bias": array(columns)}

    def attention(count: int) -> Tree:
        width = dim // count
        parts = {
            name: {"kernel": array(dim, count, width), "bias": array(count, width)}
            for name in ("query", "key", "value")
        }
        return {**parts, "out": {"kernel": array(count, width, dim), "bias": array(dim)}}

    def mlp() -> Tree:
        return {"Dense_0": dense(dim, hidden), "Dense_1": dense(hidden, dim)}

    def block(count: int) -> Tree:
        if variant == "factorized_self_attention_block":
            tree: Tree = {"LayerNorm_mlp": norm(), "MlpBlock": mlp()}
            for axis in ("time", "space"):
                tree[f"LayerNorm_{axis}"] = norm()
                tree[f"MultiHeadDotProductAttention_{axis}"] = attention(count)
            return tree
        return {
            "LayerNorm_0": norm(),
            "MultiHeadDotProductAttention_0": attention(count),
            "LayerNorm_1": norm(),
            "MlpBlock_0": mlp(),
        }

    def encoder(positions: int, layers: int, count: int) -> Tree:
        tree: Tree = {f"encoderblock_{i}": block(count) for i in range(layers)}
        return {
            **tree,
            "posembed_input": {"pos_embedding": array(1, positions + token, dim)},
            "encoder_norm": norm(),
        }

    t, h, w = grid
    tree: Tree = {"embedding": {"kernel": array(*tubelet, 3, dim), "bias": array(dim)}}
    if variant == "factorized_encoder":
        tree["SpatialTransformer"] = encoder(h * w, depth, heads)
        names = ["SpatialTransformer"]
        if temporal_depth:
            tree["TemporalTransformer"] = encoder(t, temporal_depth, temporal_heads)
            names.append("TemporalTransformer")
        if token:
            tree |= {f"cls_{name}": array(1, 1, dim) for name in names}
    else:
        tree["Transformer"] = encoder(t * h * w, depth, heads)
        if token:
            tree["cls"] = array(1, 1, dim)
    if representation:
        tree["pre_logits"] = dense(dim, representation)
    tree["output_projection"] = dense(representation or dim, classes)
    return tree


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Nested → ``a/b/c``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}/") if isinstance(value, dict) else {name: value})
    return flat


def pre_linen(tree: Tree) -> Tree:
    """The numbering from before Linen: all layers of a block counted as one row."""
    names = {
        "LayerNorm_0": "LayerNorm_0",
        "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
        "LayerNorm_1": "LayerNorm_2",
        "MlpBlock_0": "MlpBlock_3",
    }
    return {
        names.get(key, key): pre_linen(value) if isinstance(value, dict) else value
        for key, value in tree.items()
    }


def packed(value: Any, code: int = 1) -> msgpack.ExtType:
    """An array as flax packs it."""
    name = "bfloat16" if value.dtype.kind == "V" else value.dtype.name
    return msgpack.ExtType(code, msgpack.packb((value.shape, name, value.tobytes("C")), use_bin_type=True))


def write_msgpack(path: Path, tree: Any) -> Path:
    """Write a tree of arrays as ``flax.serialization.to_bytes`` does."""

    def encode(value: Any) -> Any:
        if isinstance(value, np.generic):
            return packed(np.asarray(value), 3)
        return packed(value) if isinstance(value, np.ndarray) else value

    path.write_bytes(msgpack.packb(tree, default=encode, strict_types=True, use_bin_type=True))
    return path
