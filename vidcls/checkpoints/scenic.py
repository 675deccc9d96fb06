"""ViViT as google-research/scenic trains and releases it: flax parameter trees in msgpack or npz.

Three layouts are read: the released files (``optimizer/target/…``, flax.optim, sometimes with the numbering from
before Linen), those of today's scenic (``params/…``, optax), and a bare flattened tree. What a tree cannot tell
must be given: Models 1 and 4 have the same tensors where there is no class token, and Model 3 does not show its
order of attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vidcls.checkpoints import flax_tensors
from vidcls.checkpoints.base import Checkpoint, Raw, Rename, count_layers, rename, require_tensor
from vidcls.checkpoints.resizing import finish, short_side, split_keywords
from vidcls.checkpoints.vivit_tensors import frame_grid, joint_grid, tubelet_of

NAME = "scenic"

PREFIXES = (
    "",
    "params/",
    "optimizer/target/",
    "optimizer/target/params/",
    "opt/target/",
    "target/",
    "params/params/",
)
EMBEDDING = "embedding/kernel"


def matches(raw: Raw) -> bool:
    """Whether the file holds a flax tree of a video model: a tubelet embedding, or an encoder of its own for space."""
    if raw.kind not in ("msgpack", "npz"):
        return False
    prefix = find_prefix(raw)
    if prefix is None:
        return False
    if raw.tensors[prefix + EMBEDDING].ndim == 5:
        return any(key.startswith(f"{prefix}{encoder}/") for key in raw.tensors for encoder in ENCODERS)
    return any(
        key.startswith(f"{prefix}SpatialTransformer/") or "MultiHeadDotProductAttention_time" in key
        for key in raw.tensors
    )


ENCODERS = ("Transformer", "SpatialTransformer")


def find_prefix(raw: Raw) -> str | None:
    """Where in the tree the parameters lie."""
    return next((prefix for prefix in PREFIXES if prefix + EMBEDDING in raw.tensors), None)


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read one of the four ViViT models.

    Raises:
        CheckpointError: A tensor is missing, unexpected or misshapen, the file holds another architecture than
            asked for, or a keyword contradicts it.
    """
    prefix = find_prefix(raw)
    if prefix is None:
        raise raw.error(
            "has no ViViT parameters", f"expected {EMBEDDING}, bare or below params or optimizer/target"
        )
    tree = {key.removeprefix(prefix): t for key, t in raw.tensors.items() if key.startswith(prefix)}
    if not prefix:  # a bare tree may have the training step beside it
        tree = {key: tensor for key, tensor in tree.items() if "/" in key or key.startswith("cls")}
    architecture, notes = _architecture(raw, tree, architecture)
    found = _sizes(raw, tree, architecture)
    found, wanted = split_keywords(raw, architecture, found, config)
    found.setdefault("pool", "gap")  # without a class token a caller may also say gmp or gsp
    if architecture == "vivit-fsa" and "attention_order" not in found:
        notes += (
            "the file does not tell the order of attention; space, then time is taken (attention_order=)",
        )
    views, guessed = _views(raw, tree, architecture, found, wanted)
    if guessed:
        frames, (height, width) = views["num_frames"], views["image_size"]
        notes += (
            f"the file does not tell the size of its views; {frames} frames of {height}×{width} are taken "
            "(num_frames=, image_size=)",
        )
    state = rename(tree, _renames(tree, architecture, found), raw.path, architecture)
    sees = {
        **views,
        "resize": short_side(views["image_size"]),
        "sampling": "vivit",
        "resize_rule": "truncate",
        "scale": 2 / 255,
        "offset": -1.0,
    }
    return finish(raw, NAME, architecture, {**found, **views}, wanted, state, input=sees, notes=notes)


def _architecture(raw: Raw, tree: dict[str, Tensor], asked: str | None) -> tuple[str, tuple[str, ...]]:
    if any(key.startswith("SpatialTransformer/") for key in tree):
        possible: tuple[str, ...] = ("vivit-fe",)
    elif any("MultiHeadDotProductAttention_time" in key for key in tree):
        possible = ("vivit-fsa",)
    elif "cls" in tree:
        possible = ("vivit-st",)
    else:
        possible = ("vivit-st", "vivit-fdp")
    if asked is None:
        note = "Models 1 and 4 have the same tensors; Model 1 is taken (architecture='vivit-fdp' for Model 4)"
        return possible[0], (note,) if len(possible) > 1 else ()
    if asked not in possible:
        raise raw.error(f"holds {' or '.join(possible)}, not {asked}", "leave the architecture to the file")
    return asked, ()


def _sizes(raw: Raw, tree: dict[str, Tensor], architecture: str) -> dict[str, Any]:
    """Everything that the tensors determine, but the size of the views."""
    kernel = tree[EMBEDDING]
    if kernel.ndim not in (4, 5):
        raise raw.error(f"{EMBEDDING} has the shape {tuple(kernel.shape)}", "it is not a ViViT's")
    encoder = "SpatialTransformer" if architecture == "vivit-fe" else "Transformer"
    suffix = "_space" if architecture == "vivit-fsa" else None
    head = _head(tree)
    found: dict[str, Any] = {
        "tubelet_size": tubelet_of(
            raw, tuple(kernel.shape[:-2]) if kernel.ndim == 5 else (1, *kernel.shape[:2])
        ),
        "in_channels": kernel.shape[-2],
        "embed_dim": kernel.shape[-1],
        "num_classes": require_tensor(tree, f"{head}/bias", raw.path).numel(),
        **_encoder_sizes(raw, tree, encoder, kernel.shape[-1], suffix),
    }
    token = "cls_SpatialTransformer" if architecture == "vivit-fe" else "cls"
    if token in tree:
        found["pool"] = "token"
    elif architecture == "vivit-fe":
        found["pool"] = "gap"
    if "pre_logits/kernel" in tree:
        found["representation_size"] = tree["pre_logits/kernel"].shape[-1]
    if architecture == "vivit-fe":
        temporal: dict[str, Any] = {"depth": 0}
        if any(key.startswith("TemporalTransformer/") for key in tree):
            temporal = _encoder_sizes(raw, tree, "TemporalTransformer", kernel.shape[-1], None)
            temporal.pop("qkv_bias")
        found.update({f"temporal_{key}": value for key, value in temporal.items()})
    return found


def _encoder_sizes(
    raw: Raw, tree: dict[str, Tensor], encoder: str, dim: int, suffix: str | None
) -> dict[str, Any]:
    depth = count_layers(tree, rf"{encoder}/encoderblock_(\d+)/", raw.path)
    if not depth:
        raise raw.error(f"has no {encoder}/encoderblock_0", "the file is incomplete; fetch it again")
    attention, mlp, _ = _block_names(tree, f"{encoder}/encoderblock_0", suffix)
    query = require_tensor(tree, f"{attention}/query/kernel", raw.path)
    hidden = require_tensor(tree, f"{mlp}/Dense_0/bias", raw.path).numel()
    if query.ndim != 3 or query.shape[1] * query.shape[2] != dim or dim == 0 or hidden == 0:
        raise raw.error(
            f"{attention}/query/kernel has the shape {tuple(query.shape)}, which is not ({dim}, heads, {dim} / heads)",
            "it is not a ViViT's",
        )
    return {
        "depth": depth,
        "num_heads": query.shape[1],
        "mlp_ratio": hidden / dim,
        "qkv_bias": f"{attention}/query/bias" in tree,
    }


def _block_names(tree: dict[str, Tensor], block: str, suffix: str | None) -> tuple[str, str, tuple[str, str]]:
    """Names of a block's attention, MLP and two LayerNorms; before Linen all layers were numbered as one row."""
    if suffix is not None:
        mlp = f"{block}/MlpBlock_0" if f"{block}/MlpBlock_0/Dense_0/kernel" in tree else f"{block}/MlpBlock"
        return f"{block}/MultiHeadDotProductAttention{suffix}", mlp, ("", "")
    if f"{block}/MultiHeadDotProductAttention_1/query/kernel" in tree:
        return (
            f"{block}/MultiHeadDotProductAttention_1",
            f"{block}/MlpBlock_3",
            (f"{block}/LayerNorm_0", f"{block}/LayerNorm_2"),
        )
    return (
        f"{block}/MultiHeadDotProductAttention_0",
        f"{block}/MlpBlock_0",
        (f"{block}/LayerNorm_0", f"{block}/LayerNorm_1"),
    )


def _views(
    raw: Raw, tree: dict[str, Tensor], architecture: str, found: dict[str, Any], wanted: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Size of the views that the position embeddings were learned for, and whether it is a guess."""
    t, h, w = found["tubelet_size"]
    token = found.get("pool") == "token"
    if architecture != "vivit-fe":
        tokens = _positions(raw, tree, "Transformer") - token
        (frames, size), guessed = joint_grid(raw, tokens, (t, h, w), wanted)
        return {"num_frames": frames, "image_size": size}, guessed
    size = frame_grid(raw, _positions(raw, tree, "SpatialTransformer") - token, (h, w), wanted)
    if found["temporal_depth"]:
        return {
            "num_frames": (_positions(raw, tree, "TemporalTransformer") - token) * t,
            "image_size": size,
        }, False
    return {"num_frames": wanted.get("num_frames", 32), "image_size": size}, False


def _positions(raw: Raw, tree: dict[str, Tensor], encoder: str) -> int:
    positions = require_tensor(tree, f"{encoder}/posembed_input/pos_embedding", raw.path)
    if positions.ndim != 3 or positions.shape[1] < 2:
        raise raw.error(
            f"{encoder}/posembed_input/pos_embedding has the shape {tuple(positions.shape)}",
            "it is not a ViViT's",
        )
    return positions.shape[1]


def _head(tree: dict[str, Tensor]) -> str:
    return "head" if "head/kernel" in tree and "output_projection/kernel" not in tree else "output_projection"


def _renames(tree: dict[str, Tensor], architecture: str, found: dict[str, Any]) -> Iterator[Rename]:
    """Where each tensor of the model comes from."""
    yield Rename("patch_embed.proj.weight", (EMBEDDING,), _conv)
    yield Rename("patch_embed.proj.bias", ("embedding/bias",))
    if "representation_size" in found:
        yield from flax_tensors.dense("pre_logits.0", "pre_logits")
    yield from flax_tensors.dense("head", _head(tree))
    if architecture != "vivit-fe":
        yield from _encoder("encoder", "Transformer", "cls", tree, architecture, found["depth"], found)
        return
    for ours, theirs, depth in (("spatial", "Spatial", "depth"), ("temporal", "Temporal", "temporal_depth")):
        if found[depth]:
            name = f"{theirs}Transformer"
            yield from _encoder(ours, name, f"cls_{name}", tree, architecture, found[depth], found)


def _encoder(
    ours: str,
    theirs: str,
    token: str,
    tree: dict[str, Tensor],
    architecture: str,
    depth: int,
    found: dict[str, Any],
) -> Iterator[Rename]:
    if found.get("pool") == "token":
        yield Rename(f"{ours}.cls_token", (token,))
    yield Rename(f"{ours}.pos_embed", (f"{theirs}/posembed_input/pos_embedding",))
    yield from flax_tensors.norm(f"{ours}.norm", f"{theirs}/encoder_norm")
    for i in range(depth):
        block, source = f"{ours}.blocks.{i}", f"{theirs}/encoderblock_{i}"
        if architecture == "vivit-fsa":
            _, mlp, _ = _block_names(tree, source, "_space")
            for axis in ("space", "time"):
                yield from flax_tensors.norm(f"{block}.norm_{axis}", f"{source}/LayerNorm_{axis}")
                attention = f"{source}/MultiHeadDotProductAttention_{axis}"
                yield from flax_tensors.attention(f"{block}.attn_{axis}", attention, found["qkv_bias"])
            yield from flax_tensors.norm(f"{block}.norm_mlp", f"{source}/LayerNorm_mlp")
        else:
            attention, mlp, norms = _block_names(tree, source, None)
            yield from flax_tensors.norm(f"{block}.norm1", norms[0])
            yield from flax_tensors.attention(f"{block}.attn", attention, found["qkv_bias"])
            yield from flax_tensors.norm(f"{block}.norm2", norms[1])
        yield from flax_tensors.mlp(f"{block}.mlp", mlp)


def _conv(kernel: Tensor) -> Tensor:
    """(t, h, w, c, d) → (d, c, t, h, w); a kernel of one frame has no axis for time."""
    kernel = kernel.unsqueeze(0) if kernel.ndim == 4 else kernel
    return kernel.permute(4, 3, 0, 1, 2)
