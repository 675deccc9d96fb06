"""Start a video model from an image ViT, as each of the published systems does, or from a video checkpoint.

An image ViT may come from any of its publishers (`vidcls.checkpoints`): timm, Hugging Face, Google's .npz,
scenic. What each system copies, transforms and leaves fresh:

- ViViT (section 3.4; ``scenic/projects/vivit/model_utils.py``): tubelet filters inflated, position embeddings
  tiled or resized, blocks and last norm copied. Model 2's spatial encoder takes all of it except the class token,
  which stays zero while its position row is copied; the temporal encoder is fresh. Model 3's temporal attention:
  see ``temporal``. The classifier starts at zero.
- TimeSformer: every attention step starts as the image model's, but the linear layer behind each added step and
  the time embedding are zero, so that at first the steps add nothing; the classifier is kept if the classes
  agree.
- VTN and the ViT by frame: the backbone is the image model. VTN's may also be a T2T-ViT, or a model of timm.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidcls.checkpoints import Checkpoint, read_checkpoint
from vidcls.checkpoints.base import HEAD_PARTS
from vidcls.checkpoints.resizing import resize_state
from vidcls.checkpoints.timesformer_fb import inflate_image_vit
from vidcls.errors import CheckpointError, ConfigError
from vidcls.models import config_keys
from vidcls.training.init.inflate import fit_positions, inflate_filters
from vidcls.training.init.resnet import fill_resnet

TEMPORAL = ("identity", "zero", "copy")
"""How Model 3's temporal attention starts, see `initialize`."""

FRAME_BACKBONES = ("t2t-frames", "timm-frames")
"""Architectures whose image model can stand below VTN as it is."""

IMAGE_SIZED = ("vtn", "vit-frames", *FRAME_BACKBONES)
"""Architectures whose frames go through an unchanged image ViT, fitted to their image size by its own rule."""


@dataclass(frozen=True)
class InitReport:
    """What became of every parameter of the model, and what of the source found no place.

    Attributes:
        source: Where the weights came from.
        copied: Parameters that are the source's.
        transformed: Parameters made from the source's: inflated, tiled or resized.
        fresh: Parameters left at (or set to) their own initialization.
        unused: Tensors of the source that no parameter took.
    """

    source: str
    copied: tuple[str, ...]
    transformed: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.copied)} tensors copied", f"{len(self.transformed)} transformed"]
        fresh = sorted({name.split(".")[0] for name in self.fresh})
        parts.append(f"{len(self.fresh)} fresh" + (f" (in {', '.join(fresh)})" if fresh else ""))
        if self.unused:
            parts.append(f"{len(self.unused)} of the source unused ({', '.join(self.unused[:4])})")
        return f"{self.source}: " + ", ".join(parts)


class _Fill:
    """Collects tensors for a model's parameters, and keeps count of the source's."""

    def __init__(self, model: nn.Module, source: dict[str, Tensor], subject: str) -> None:
        self.own = model.state_dict()
        self.source, self.subject = source, subject
        self.new: dict[str, Tensor] = {}
        self.copied: list[str] = []
        self.transformed: list[str] = []
        self.used: set[str] = set()

    def read(self, name: str) -> Tensor:
        if name not in self.source:
            raise CheckpointError(self.subject, f"no tensor {name!r}", "it is not a complete image ViT")
        self.used.add(name)
        return self.source[name]

    def copy(self, name: str, source: str, tensor: Tensor | None = None) -> None:
        """Fill ``name`` with the source's ``source``, or with ``tensor`` made from it."""
        value = self.read(source) if tensor is None else tensor
        self.used.add(source)
        if name not in self.own:
            raise CheckpointError(
                self.subject,
                f"its {source!r} has no place in the model",
                "the image model is deeper than the video model; choose one of the same depth",
            )
        if self.own[name].shape != value.shape:
            raise CheckpointError(
                self.subject,
                f"its {source!r} has the shape {tuple(value.shape)}, the model's {name!r} "
                f"{tuple(self.own[name].shape)}",
                "choose an image model of the same width, depth and patch size",
            )
        self.new[name] = value
        (self.copied if tensor is None else self.transformed).append(name)

    def copy_all(
        self, prefix: str, target: str, rename: Callable[[str], str | None] = lambda name: name
    ) -> None:
        """Copy every tensor of the source under ``prefix`` to the same name under ``target``."""
        for name in [n for n in self.source if n.startswith(prefix)]:
            new = rename(name)
            if new is not None:
                self.copy(target + new, name)

    def zero(self, name: str) -> None:
        self.new[name] = torch.zeros_like(self.own[name])

    def finish(self, model: nn.Module) -> InitReport:
        """Write what was collected into the model, all at once."""
        with torch.no_grad():
            for name, value in self.new.items():
                self.own[name].copy_(value)
        given = {*self.copied, *self.transformed}
        return InitReport(
            self.subject,
            tuple(self.copied),
            tuple(self.transformed),
            tuple(name for name in model.state_dict() if name not in given),
            tuple(name for name in self.source if name not in self.used),
        )


def initialize(
    model: nn.Module,
    source: str | os.PathLike[str] | Checkpoint,
    method: str = "central",
    positions: str = "auto",
    temporal: str = "identity",
) -> InitReport:
    """Start ``model`` from an image model, or from a video checkpoint of its own architecture.

    Args:
        model: A model of `vidcls.models`, freshly built; its parameters are overwritten.
        source: A checkpoint of any published format, or what `read_checkpoint` made of it.
        method: How patch filters become tubelet filters: ``central``, ``average`` or ``average_arp``.
        positions: How position embeddings are fitted: ``tile``, ``resize``, ``resize_tile``, or ``auto``, which
            does what is needed.
        temporal: Model 3 only. ``zero`` sets the whole temporal attention to zero, as published; the block is the
            image model's then, but no gradient ever reaches those weights, since each factor of the product is
            zero. ``copy`` copies the spatial attention, scenic's default. ``identity`` copies it and sets its
            last projection to zero: the image model's at first, and it learns.

    Returns:
        What was copied and what is fresh.

    Raises:
        CheckpointError: The source cannot be read, or does not fit the model.
        ConfigError: An option is unknown, or the positions cannot be fitted.
    """
    if temporal not in TEMPORAL:
        raise ConfigError(f"temporal {temporal!r}", "is not known", f"choose one of {', '.join(TEMPORAL)}")
    if not isinstance(source, Checkpoint) and (filled := fill_resnet(model, source)) is not None:
        copied, unused = filled  # an image classifier: what stands on the ResNet stays fresh
        fresh = tuple(name for name in model.state_dict() if name not in copied)
        return InitReport(os.fspath(source), copied, (), fresh, unused)
    architecture = str(getattr(model, "architecture", ""))
    checkpoint, subject = _read(model, source, architecture)
    if checkpoint.architecture == architecture and architecture != "vit-frames":
        return _from_video(model, checkpoint, subject)
    if architecture == "vtn" and checkpoint.architecture in FRAME_BACKBONES:
        fill = _Fill(model, _image_tensors(checkpoint), subject)
        _fill_frames(fill, architecture)
        return fill.finish(model)
    if checkpoint.architecture != "vit-frames":
        raise CheckpointError(
            subject,
            f"holds {checkpoint.architecture}, not an image ViT or {architecture}",
            "choose another source",
        )
    fill = _Fill(model, _image_tensors(checkpoint), subject)
    if architecture.startswith("vivit-"):
        _fill_vivit(fill, model, method, positions, temporal)
    elif architecture.startswith("timesformer-"):
        _fill_timesformer(fill, model, architecture)
    elif architecture in IMAGE_SIZED:
        _fill_frames(fill, architecture)
    else:
        raise ConfigError(architecture or "model", "has no place for an image ViT", "train it from scratch")
    return fill.finish(model)


def _read(
    model: nn.Module, source: str | os.PathLike[str] | Checkpoint, architecture: str
) -> tuple[Checkpoint, str]:
    if isinstance(source, Checkpoint):
        return source, source.format
    config: Any = getattr(model, "config", None)
    keywords: dict[str, Any] = {}
    backbone = getattr(config, "backbone", None)
    heads = backbone.get("num_heads") if isinstance(backbone, dict) else getattr(config, "num_heads", None)
    if architecture in IMAGE_SIZED:
        keywords["image_size"] = getattr(config, "image_size", None)
    subject = os.fspath(source)
    try:
        return read_checkpoint(source, num_heads=heads, **keywords), subject
    except CheckpointError as error:
        if "num_heads" not in str(error):
            raise
    return read_checkpoint(
        source, **keywords
    ), subject  # the file knows its own number, which differs from ours


def _image_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The image model's tensors under timm's names."""
    return {name.removeprefix("backbone."): tensor for name, tensor in checkpoint.state.items()}


def _fill_vivit(fill: _Fill, model: nn.Module, method: str, positions: str, temporal: str) -> None:
    config: Any = model.config
    architecture = str(model.architecture)
    steps, height, width = config.grid_size
    encoder = "spatial." if architecture == "vivit-fe" else "encoder."
    sequence = 1 if architecture == "vivit-fe" else steps
    filters = fill.read("patch_embed.proj.weight")
    fill.copy(
        "patch_embed.proj.weight",
        "patch_embed.proj.weight",
        inflate_filters(filters.float(), config.tubelet_size[0], method),
    )
    fill.copy("patch_embed.proj.bias", "patch_embed.proj.bias")
    place = f"{encoder}pos_embed"
    fitted = fit_positions(
        fill.read("pos_embed"),
        fill.own[place],
        grid=(height, width),
        num_frames=sequence,
        source_cls="cls_token" in fill.source,
        target_cls=config.pool == "token",
        how=positions,
    )
    fill.copy(place, "pos_embed", fitted)
    # scenic copies by name, and Model 2's class tokens have other names than the image model's.
    if config.pool == "token" and architecture != "vivit-fe" and "cls_token" in fill.source:
        fill.copy(f"{encoder}cls_token", "cls_token")
    fill.copy_all("norm.", encoder)
    if architecture == "vivit-fsa":
        _fill_factorized_self(fill, encoder, temporal)
    else:
        fill.copy_all("blocks.", encoder)
    for name in ("head.weight", "head.bias"):
        fill.zero(name)


def _fill_factorized_self(fill: _Fill, encoder: str, temporal: str) -> None:
    """Model 3: the image model's attention is the spatial one, and the temporal one starts from it or from zero."""
    names = {".norm1.": ".norm_space.", ".attn.": ".attn_space.", ".norm2.": ".norm_mlp."}

    def rename(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    fill.copy_all("blocks.", encoder, rename)
    for name in [n for n in fill.source if ".attn." in n]:
        target = encoder + name.replace(".attn.", ".attn_time.")
        if temporal == "zero" or (temporal == "identity" and ".attn.proj." in name):
            fill.zero(target)
        else:
            fill.copy(target, name)


def _fill_timesformer(fill: _Fill, model: nn.Module, architecture: str) -> None:
    """Take what the reader's own rule makes of the image ViT, and tell what was copied from what was set."""
    config: Any = model.config
    state = inflate_image_vit(
        fill.source,
        architecture,
        image_size=config.image_size,
        num_frames=config.num_frames,
        num_classes=config.num_classes,
        subject=fill.subject,
    )
    for name, tensor in state.items():
        source = _STEP.sub(r".\1.", name)
        if source not in fill.source:
            fill.zero(name)
        elif tensor.shape == fill.source[source].shape:
            fill.copy(name, source)
        else:
            fill.copy(name, source, tensor)


_STEP = re.compile(r"\.[a-z]+_(attn|norm1)\.")
"""An added attention step's part of a name: ``.temporal_attn.`` starts from ``.attn.``."""


def _fill_frames(fill: _Fill, architecture: str) -> None:
    for name in [n for n in fill.source if not n.startswith(("head.", "pre_logits."))]:
        fill.copy(f"backbone.{name}", name)
    if architecture == "vit-frames":
        fill.copy_all("pre_logits.", "", lambda name: name if name in fill.own else None)
        _copy_head(fill)


def _copy_head(fill: _Fill) -> None:
    """Keep the image model's classifier if it has as many classes as the model."""
    wanted, found = fill.own["head.weight"].shape, fill.source.get("head.weight")
    if found is not None and found.shape == wanted:
        fill.copy_all("head.", "")


def _from_video(model: nn.Module, checkpoint: Checkpoint, subject: str) -> InitReport:
    """Fine-tuning: take all of a checkpoint of the same architecture, and its classifier if the classes agree."""
    state = _fit_state(model, checkpoint)
    fill = _Fill(model, state, subject)
    heads = _head_names(model)
    fresh = tuple(heads) if any(name.startswith("head.") for name in state) else HEAD_PARTS
    missing = [name for name in fill.own if name not in state and not name.startswith(fresh)]
    if missing:
        raise CheckpointError(
            subject, f"{len(missing)} tensors are missing (first: {missing[0]})", "the file is incomplete"
        )
    keep_head = all(name in state and state[name].shape == fill.own[name].shape for name in heads)
    for name in state:
        if name not in heads or keep_head:
            fill.copy(name, name)
    return fill.finish(model)


def _fit_state(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Fit the checkpoint's positions to the model's views."""
    config: Any = model.config
    keys = config_keys(checkpoint.architecture)
    stored = {key: value for key, value in checkpoint.config.items() if key in keys}
    old = type(config)(**{**stored, "num_classes": config.num_classes})
    try:
        return resize_state(checkpoint.architecture, checkpoint.state, old, config)
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise CheckpointError(
            checkpoint.format,
            f"its position embeddings cannot be fitted to the model's views ({error})",
            "choose a checkpoint of the same patch size",
        ) from error


def _head_names(model: nn.Module) -> list[str]:
    """Names of the classifier's own tensors: the last linear layer, whatever lies before it in ``head``."""
    linear = [
        name
        for name, module in model.named_modules()
        if name.split(".")[0] == "head" and isinstance(module, nn.Linear)
    ]
    return [f"{linear[-1]}.{part}" for part in ("weight", "bias")] if linear else []
