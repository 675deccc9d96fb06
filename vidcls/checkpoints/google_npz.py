"""Google's image ViTs as ``.npz`` (``storage.googleapis.com/vit_models``: ImageNet-21k and AugReg files).

They carry the layer numbers of flax before Linen: within a block the attention is layer 1, the second LayerNorm
layer 2 and the MLP layer 3. timm reads them so, with the erf GELU and LayerNorm's epsilon 1e-6, and the goldens are
of timm. Kernels lie (in, out), those of heads (d, heads, hd).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint

NAME = "google_npz"

ROOTS = ("", "opt/target/", "params/")


@dataclass(frozen=True)
class FlaxNames:
    """Names of a block's layers, and of the classifier."""

    attention: str
    norm2: str
    mlp: str
    head: str


AUGREG = FlaxNames("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3", "head")


def matches(raw: Raw) -> bool:
    """Whether there is an image ViT with the numbering from before Linen."""
    return raw.kind == "npz" and find_root(raw, AUGREG, ROOTS) is not None


def find_root(raw: Raw, names: FlaxNames, roots: tuple[str, ...]) -> str | None:
    """Return the prefix of an image ViT in the file, None where there is none of these names."""
    for root in roots:
        kernel = raw.tensors.get(f"{root}embedding/kernel")
        if (
            kernel is not None
            and kernel.ndim == 4
            and f"{root}Transformer/encoderblock_0/{names.attention}/query/kernel" in raw.tensors
        ):
            return root
    return None


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a ViT for `vidcls.models.vit.ViTFrames`.

    A ``pre_logits`` layer is used where the file has one, for its classifier was trained on top of it;
    ``representation_size=0`` leaves it out as timm 1.0 does. ``image_size`` resizes the position table bilinearly
    without antialias, as timm does for these files.

    Raises:
        CheckpointError: The file is incomplete, or contradicts a keyword.
    """
    return read_flax_vit(NAME, raw, AUGREG, ROOTS, "gelu", architecture, config)


def read_flax_vit(
    name: str,
    raw: Raw,
    names: FlaxNames,
    roots: tuple[str, ...],
    activation: str,
    architecture: str | None,
    config: dict[str, Any],
) -> Checkpoint:
    """Read an image ViT of flax's layers under either numbering; ``architecture`` and ``config`` as for `read`.

    Raises:
        CheckpointError: The file is incomplete, or contradicts a keyword.
    """
    root = find_root(raw, names, roots)
    if root is None:
        raise raw.error(f"holds no image ViT of the format {name}", "try without format=")
    tensors, num_heads = timm_names(raw, root, names)
    return vit_checkpoint(
        name,
        ViTTensors(raw, tensors, "npz"),
        architecture,
        settle(raw, {"num_heads": num_heads}, config),
        {"activation": activation, "norm_eps": 1e-6},
    )


def timm_names(raw: Raw, root: str, names: FlaxNames) -> tuple[dict[str, Tensor], int]:
    """Rename and transpose a flax ViT's tensors to timm's names; also the number of heads.

    Tensors that are no part of a ViT keep their names, so that the strict load reports them.

    Raises:
        CheckpointError: A tensor is missing, or misshapen beyond renaming.
    """
    rest = {name.removeprefix(root): t for name, t in raw.tensors.items() if name.startswith(root)}
    used: set[str] = set()

    def get(name: str, dims: int) -> Tensor:
        used.add(name)
        return require_tensor(rest, name, raw.path, dims)

    def linear(source: str, target: str) -> dict[str, Tensor]:
        return {f"{target}.weight": get(f"{source}/kernel", 2).T, f"{target}.bias": get(f"{source}/bias", 1)}

    def norm(source: str, target: str) -> dict[str, Tensor]:
        return {f"{target}.weight": get(f"{source}/scale", 1), f"{target}.bias": get(f"{source}/bias", 1)}

    def attention(source: str, target: str) -> dict[str, Tensor]:
        kernels = [get(f"{source}/{part}/kernel", 3).flatten(1).T for part in ("query", "key", "value")]
        biases = [get(f"{source}/{part}/bias", 2).flatten() for part in ("query", "key", "value")]
        return {
            f"{target}.qkv.weight": torch.cat(kernels),
            f"{target}.qkv.bias": torch.cat(biases),
            f"{target}.proj.weight": get(f"{source}/out/kernel", 3).flatten(0, 1).T,
            f"{target}.proj.bias": get(f"{source}/out/bias", 1),
        }

    out = {
        "patch_embed.proj.weight": get("embedding/kernel", 4).permute(3, 2, 0, 1),
        "patch_embed.proj.bias": get("embedding/bias", 1),
        "pos_embed": get("Transformer/posembed_input/pos_embedding", 3),
        **norm("Transformer/encoder_norm", "norm"),
    }
    if "cls" in rest:
        out["cls_token"] = get("cls", 3)
    for number in range(count_layers(rest, r"Transformer/encoderblock_(\d+)/", raw.path)):
        source, target = f"Transformer/encoderblock_{number}", f"blocks.{number}"
        out |= norm(f"{source}/LayerNorm_0", f"{target}.norm1")
        out |= attention(f"{source}/{names.attention}", f"{target}.attn")
        out |= norm(f"{source}/{names.norm2}", f"{target}.norm2")
        out |= linear(f"{source}/{names.mlp}/Dense_0", f"{target}.mlp.fc1")
        out |= linear(f"{source}/{names.mlp}/Dense_1", f"{target}.mlp.fc2")
    for source, target in (("pre_logits", "pre_logits.0"), (names.head, "head")):
        if f"{source}/kernel" in rest:
            out |= linear(source, target)
    num_heads = rest[f"Transformer/encoderblock_0/{names.attention}/query/kernel"].shape[1]
    return {**out, **_others(rest, used)}, num_heads


def _others(tensors: Mapping[str, Tensor], used: set[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in used}
