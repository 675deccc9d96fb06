"""Image ViTs of flax: Google's ``.npz`` (``vit_models``: ImageNet-21k and AugReg), and those of scenic.

Google's carry the layer numbers of flax before Linen: within a block the attention is layer 1, the second LayerNorm
layer 2 and the MLP layer 3. timm reads them so, with the erf GELU and LayerNorm's epsilon 1e-6, and the goldens are of
timm. scenic's have Linen's numbers and flax's default GELU, the tanh approximation; they are told from the ViViTs of
the same names by the embedding's kernel, which has no time axis. Kernels lie (in, out), those of heads (d, heads, hd).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import Checkpoint, Raw, count_layers, require_tensor
from vidcls.checkpoints.vit_tensors import ViTTensors, settle, vit_checkpoint


@dataclass(frozen=True)
class FlaxViT:
    """One publisher's way to write a flax ViT down, a `vidcls.checkpoints.base.Format`.

    Attributes:
        NAME: Of the format.
        kinds: Containers that it comes in.
        roots: What may stand before all names.
        attention: Name of a block's attention.
        norm2: Name of its second LayerNorm.
        mlp: Name of its MLP.
        head: Name of the classifier.
        activation: Key of `vidcls.models.layers.ACTIVATIONS`.
    """

    NAME: str
    kinds: tuple[str, ...]
    roots: tuple[str, ...]
    attention: str
    norm2: str
    mlp: str
    head: str
    activation: str

    def matches(self, raw: Raw) -> bool:
        """Whether there is an image ViT with this numbering."""
        return raw.kind in self.kinds and self.find_root(raw) is not None

    def find_root(self, raw: Raw) -> str | None:
        """Return the prefix of an image ViT in the file, None where there is none of these names."""
        for root in self.roots:
            kernel = raw.tensors.get(f"{root}embedding/kernel")
            query = f"{root}Transformer/encoderblock_0/{self.attention}/query/kernel"
            if kernel is not None and kernel.ndim == 4 and query in raw.tensors:
                return root
        return None

    def read(self, raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
        """Read a ViT for `vidcls.models.vit.ViTFrames`.

        A ``pre_logits`` layer is used where the file has one, for its classifier was trained on top of it;
        ``representation_size=0`` leaves it out as timm 1.0 does. ``image_size`` resizes the position table bilinearly
        without antialias, as timm does for these files.

        Raises:
            CheckpointError: The file is incomplete, or contradicts a keyword.
        """
        root = self.find_root(raw)
        if root is None:
            raise raw.error(f"holds no image ViT of the format {self.NAME}", "try without format=")
        tensors, num_heads = timm_names(raw, root, self)
        return vit_checkpoint(
            self.NAME,
            ViTTensors(raw, tensors, "npz"),
            architecture,
            settle(raw, {"num_heads": num_heads}, config),
            {"activation": self.activation, "norm_eps": 1e-6},
        )


GOOGLE = FlaxViT(
    "google_npz",
    kinds=("npz",),
    roots=("", "opt/target/", "params/"),
    attention="MultiHeadDotProductAttention_1",
    norm2="LayerNorm_2",
    mlp="MlpBlock_3",
    head="head",
    activation="gelu",
)
SCENIC = FlaxViT(
    "scenic_vit",
    kinds=("npz", "msgpack"),
    # Flat; scenic's new TrainState; its old layout with the optimizer around the parameters.
    roots=("", "params/", "optimizer/target/", "optimizer/target/params/"),
    attention="MultiHeadDotProductAttention_0",
    norm2="LayerNorm_1",
    mlp="MlpBlock_0",
    head="output_projection",
    activation="gelu_tanh",
)


def timm_names(raw: Raw, root: str, names: FlaxViT) -> tuple[dict[str, Tensor], int]:
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
