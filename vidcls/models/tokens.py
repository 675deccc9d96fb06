"""Where a model's tokens are, and which part of a view each stands for: what embeddings and explanations read.

A model is a module, and its tokens are outputs of modules in it, so that nothing of its forward pass is written here
again. What differs is how tokens are laid out, and that is data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vidcls.models.layers import every_token
from vidcls.models.sizes import pair

Grid = tuple[int, int, int]  # tokens along (t, h, w)


@dataclass(frozen=True)
class Tokens:
    """Some tokens of a model.

    Attributes:
        module: Name of the module whose output they are, (b·f, ..., d).
        folded: Axes that count as batch, the last of its axes: "", "t" or "hw".
        order: Axes of the sequence, slowest first: "thw", "hwt", "hw" or "t".
        prefix: Class and register tokens in front of them.
        norm: Name of a norm that the model puts behind the class token only, and that belongs to all of them.
        stage: What of the model makes them: ``encode_frames``, ``classify`` or ``forward``.
    """

    module: str
    folded: str = ""
    order: str = "thw"
    prefix: int = 0
    norm: str | None = None
    stage: str = "forward"

    def arrange(self, output: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Cut an output into the tokens in front, (b, f, p, d), and the others by their place, (b, t, h, w, d).

        An axis that the tokens do not have is of length 1; f is the number of sequences of one view.
        """
        sizes = dict(zip("thw", grid, strict=True))
        fold = [sizes[axis] for axis in self.folded]
        count = 1
        for size in fold:
            count *= size
        width = output.shape[-1]
        sequences = output.reshape(output.shape[0] // count, count, -1, width)
        front, rest = sequences[:, :, : self.prefix], sequences[:, :, self.prefix :]
        axes = self.folded + self.order
        placed = rest.reshape(rest.shape[0], *(sizes[axis] for axis in axes), width)
        missing = [axis for axis in "thw" if axis not in axes]
        placed = placed.reshape(*placed.shape[:-1], *(1 for _ in missing), width)
        order = [1 + (axes + "".join(missing)).index(axis) for axis in "thw"]
        return front, placed.permute(0, *order, placed.ndim - 1)


def last_tokens(model: Any) -> Tokens | None:
    """The tokens after the last block of a model's last encoder; None for a model that has none.

    Those of a factorized model are the time steps that its temporal encoder sees.
    """
    name: str = model.architecture
    if name == "attentive":
        return _below(last_tokens(model.backbone))
    if name.startswith("vivit"):
        return _last_of_vivit(model, name)
    if name.startswith("timesformer"):
        block = f"blocks.{len(model.blocks) - 1}"
        if name == "timesformer-space":
            return Tokens(block, "t", "hw", prefix=1, norm="norm")
        return Tokens(block, order="hwt", prefix=1, norm="norm")
    if name in ("videomae", "vjepa2"):
        return Tokens("norm")
    if name == "videoprism":
        return Tokens("temporal.norm", "hw", "t", stage="classify")
    if name == "vtn":
        layers = model.temporal_encoder.layers
        return Tokens(f"temporal_encoder.layers.{len(layers) - 1}", order="t", prefix=1, stage="classify")
    if name == "t2t-frames" or name == "vit-frames":
        prefix = int(model.backbone.cls_token is not None)
        block = f"backbone.blocks.{len(model.backbone.blocks) - 1}"
        return Tokens(block, "t", "hw", prefix, norm="backbone.norm", stage="encode_frames")
    if name == "timm-frames" and _is_timm_vit(model.backbone):
        prefix = int(model.backbone.num_prefix_tokens)
        return Tokens("backbone.norm", "t", "hw", prefix, stage="encode_frames")
    return None


def _below(tokens: Tokens | None) -> Tokens | None:
    """The same tokens, of a model whose backbone they are of and which runs it whole."""
    if tokens is None:
        return None
    norm = None if tokens.norm is None else f"backbone.{tokens.norm}"
    return replace(tokens, module=f"backbone.{tokens.module}", norm=norm, stage="forward")


def _last_of_vivit(model: Any, name: str) -> Tokens:
    prefix = int(model.config.pool == "token")
    if name != "vivit-fe":
        return Tokens("encoder.norm", prefix=prefix)
    if model.temporal is not None:
        return Tokens("temporal.norm", order="t", prefix=prefix, stage="classify")
    return Tokens("spatial.norm", "t", "hw", prefix, stage="encode_frames")


def first_tokens(model: Any) -> Tokens | None:
    """The patches or tubelets as they enter a model's first block; None where these are not the pixels' own."""
    name: str = model.architecture
    if name == "attentive":
        return _below(first_tokens(model.backbone))
    if name.startswith("vivit") or name in ("videomae", "vjepa2", "videoprism"):
        return Tokens("patch_embed")
    if name.startswith("timesformer"):
        return Tokens("patch_embed", "t", "hw")
    backbone = getattr(model, "backbone", None)
    if hasattr(backbone, "tokens_to_token"):
        return Tokens("backbone.tokens_to_token", "t", "hw")
    if hasattr(backbone, "patch_embed") and (name != "timm-frames" or _is_timm_vit(backbone)):
        return Tokens("backbone.patch_embed", "t", "hw")
    return None


def _is_timm_vit(backbone: Any) -> bool:
    """Whether one of timm's models is a plain ViT: a sequence of tokens through blocks of attention."""
    parts = ("blocks", "norm", "num_prefix_tokens", "patch_embed")
    return all(hasattr(backbone, part) for part in parts) and all(
        hasattr(block, "attn") for block in backbone.blocks
    )


def grid_of(model: Any, frames: int, size: tuple[int, int]) -> Grid:
    """Tokens along (t, h, w) of a view of ``frames`` frames of ``size`` (h, w) pixels, as the model cuts it."""
    if model.architecture == "attentive":
        return grid_of(model.backbone, frames, size)
    tubelet = getattr(model.config, "tubelet_size", None)
    if tubelet is not None:
        step, height, width = (tubelet,) * 3 if isinstance(tubelet, int) else tubelet
        return max(1, frames // step), size[0] // height, size[1] // width
    backbone = getattr(model, "backbone", None)
    if backbone is None:
        height, width = pair(model.config.patch_size)
        return frames, size[0] // height, size[1] // width
    embed = getattr(backbone, "patch_embed", None)
    if embed is not None and hasattr(embed, "grid_size"):  # timm's
        return frames, int(embed.grid_size[0]), int(embed.grid_size[1])
    grid = getattr(getattr(backbone, "config", None), "grid_size", None)
    return (frames, *grid) if grid is not None else (frames, 1, 1)


@contextlib.contextmanager
def outputs_of(model: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Collect what the module of this name gives within the context."""
    found: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, inputs, out: found.append(out))
    try:
        yield found
    finally:
        handle.remove()


def joined(outputs: list[Tensor]) -> Tensor:
    """The outputs of a module that was called for one part of a view's frames after the other."""
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def read_tokens(
    model: Any, tokens: Tokens, run: Any, *inputs: Tensor, frames: int, **more: Any
) -> tuple[Tensor, Tensor]:
    """Run a part of a model, and collect its tokens.

    Args:
        model: The model.
        tokens: Which of its tokens.
        run: The part of it that makes them.
        *inputs: What ``run`` takes.
        frames: Frames of each view.
        **more: What ``run`` takes besides.

    Returns:
        The tokens in front, (b, f, p, d), and the others by their place, (b, t, h, w, d).
    """
    with every_token(), outputs_of(model, tokens.module) as outputs:
        run(*inputs, **more)
    output = joined(outputs)
    if tokens.norm is not None:
        output = model.get_submodule(tokens.norm)(output)
    return tokens.arrange(output, grid_of(model, frames, pair(model.config.image_size)))


def all_tokens(model: Any, tokens: Tokens, views: Tensor, **more: Any) -> Tensor:
    """Run a model on views (b, c, t, h, w), and return all its tokens, (b, n, d), those in front first."""
    front, placed = read_tokens(model, tokens, model, views, frames=views.shape[2], **more)
    return torch.cat([front.flatten(1, 2), placed.flatten(1, 3)], dim=1)
