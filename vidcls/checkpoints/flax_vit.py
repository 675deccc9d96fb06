"""Image ViTs of flax: Google's ``.npz`` (``vit_models``: ImageNet-21k and AugReg), and those of scenic.

Google's carry the layer numbers of flax before Linen: within a block the attention is layer 1, the second LayerNorm
layer 2 and the MLP layer 3. timm reads them so, with the erf GELU and LayerNorm's epsilon 1e-6, and the goldens are of
timm. scenic's have Linen's numbers and flax's default GELU, the tanh approximation; they are told from the ViViTs of
the same names by the embedding's kernel, which has no time axis. Kernels lie (in, out), those of heads (d, heads, hd).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vidcls.checkpoints import flax_tensors
from vidcls.checkpoints.base import Checkpoint, Raw, Rename, count_layers, rename, require_tensor
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

    Raises:
        CheckpointError: A tensor is missing, unexpected, or misshapen beyond renaming.
    """
    tensors = {name.removeprefix(root): t for name, t in raw.tensors.items() if name.startswith(root)}
    query = f"Transformer/encoderblock_0/{names.attention}/query/kernel"
    heads = require_tensor(tensors, query, raw.path, 3).shape[1]
    return rename(tensors, _renames(raw, tensors, names), raw.path, "vit-frames"), heads


def _renames(raw: Raw, tensors: Mapping[str, Tensor], names: FlaxViT) -> Iterator[Rename]:
    yield Rename("patch_embed.proj.weight", ("embedding/kernel",), lambda kernel: kernel.permute(3, 2, 0, 1))
    yield Rename("patch_embed.proj.bias", ("embedding/bias",))
    yield Rename("pos_embed", ("Transformer/posembed_input/pos_embedding",))
    if "cls" in tensors:
        yield Rename("cls_token", ("cls",))
    for i in range(count_layers(tensors, r"Transformer/encoderblock_(\d+)/", raw.path)):
        ours, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        yield from flax_tensors.norm(f"{ours}.norm1", f"{theirs}/LayerNorm_0")
        yield from flax_tensors.attention(f"{ours}.attn", f"{theirs}/{names.attention}", bias=True)
        yield from flax_tensors.norm(f"{ours}.norm2", f"{theirs}/{names.norm2}")
        yield from flax_tensors.mlp(f"{ours}.mlp", f"{theirs}/{names.mlp}")
    yield from flax_tensors.norm("norm", "Transformer/encoder_norm")
    for ours, theirs in (("pre_logits.0", "pre_logits"), ("head", names.head)):
        if f"{theirs}/kernel" in tensors:
            yield from flax_tensors.dense(ours, theirs)
