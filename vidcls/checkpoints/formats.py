"""Published checkpoint formats: read → rename → strict load.

To add a format: one file with ``NAME``, ``matches(raw)`` and ``read(raw, architecture, config)``, one import
and one line in `FORMATS`. Formats are told apart by the names of their tensors and never by the file's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vidcls.checkpoints import (
    efficientnet_lite,
    flax_vit,
    hf_config,
    hf_timesformer,
    hf_videomae,
    hf_videoprism,
    hf_vit,
    hf_vivit,
    hf_vjepa2,
    native,
    scenic,
    t2t,
    timesformer_fb,
    timm_any,
    timm_vit,
    videomae,
    vtn_slowfast,
)
from vidcls.checkpoints.base import Checkpoint, Format, Raw, check_state, describe_keys, load_state
from vidcls.checkpoints.families import describe
from vidcls.checkpoints.readers import open_raw
from vidcls.checkpoints.unwrap import is_average, views
from vidcls.errors import CheckpointError, UsageError

# In the order tried; the first that matches reads the file.
FORMATS: dict[str, Format] = {
    native.NAME: native,
    hf_vivit.NAME: hf_vivit,
    scenic.NAME: scenic,
    vtn_slowfast.NAME: vtn_slowfast,
    hf_timesformer.NAME: hf_timesformer,
    hf_videomae.NAME: hf_videomae,
    videomae.NAME: videomae,
    hf_vjepa2.NAME: hf_vjepa2,
    hf_videoprism.NAME: hf_videoprism,
    t2t.NAME: t2t,
    timesformer_fb.NAME: timesformer_fb,
    hf_vit.NAME: hf_vit,
    flax_vit.GOOGLE.NAME: flax_vit.GOOGLE,
    flax_vit.SCENIC.NAME: flax_vit.SCENIC,
    timm_vit.NAME: timm_vit,
    timm_any.NAME: timm_any,
    efficientnet_lite.NAME: efficientnet_lite,
}


def read_checkpoint(
    path: str | os.PathLike[str], architecture: str | None = None, format: str | None = None, **config: Any
) -> Checkpoint:
    """Read a checkpoint of any published format into our names, without building the model.

    Args:
        path: A file, or a Hugging Face folder.
        architecture: A key of `vidcls.models.ARCHITECTURES`; needed only where the file's names and shapes do
            not tell (ViViT's models 1 and 4 pooled by averaging have the same tensors).
        format: A key of `FORMATS`; ``None`` tells by content.
        **config: What the tensors cannot tell, or sizes to change: ``num_heads``, ``temporal_num_heads``,
            ``attention_order``, ``attention_window``, ``num_frames``, ``image_size``, ``patch_size``,
            ``tubelet_size``, ``num_classes``.

    Raises:
        CheckpointError: The file cannot be read, or is of no known format.
        UsageError: There is no such format or architecture.
    """
    from vidcls.models import ARCHITECTURES

    if format is not None and format not in FORMATS:
        raise UsageError(format, "no such checkpoint format", f"choose one of {', '.join(FORMATS)}")
    if architecture is not None and architecture not in ARCHITECTURES:
        raise UsageError(architecture, "no such architecture", f"choose one of {', '.join(ARCHITECTURES)}")
    raw = open_raw(path)
    config = {key: value for key, value in config.items() if value is not None}
    if (
        format is None
        and architecture == timm_any.ARCHITECTURE
        and "model" in config
        and not native.matches(raw)
    ):
        format = timm_any.NAME  # a bare file of weights has any names
    known, view = _recognize(raw, format)
    checkpoint = known.read(view, architecture, config)
    if view.kind == "hf":
        more = hf_config.notes(view, int(checkpoint.config.get("num_classes") or 0))
        checkpoint = replace(checkpoint, notes=checkpoint.notes + more)
    return checkpoint


def _recognize(raw: Raw, name: str | None) -> tuple[Format, Raw]:
    """The format of a file, and the view of it that has that format's names.

    A format that was named reads what any format recognizes, and the file as it is where none does: it says best what
    is wrong with it.

    Raises:
        CheckpointError: No format is named, and none matches.
    """
    seen = list(views(raw))
    asked = list(FORMATS.values()) if name is None else [FORMATS[name]]
    found = _first_match(seen, asked)
    if found is not None:
        return found
    if name is not None:
        anything = _first_match(seen, list(FORMATS.values()))
        return FORMATS[name], seen[0] if anything is None else anything[1]
    raise _unknown(raw, seen)


def _first_match(seen: list[Raw], asked: list[Format]) -> tuple[Format, Raw] | None:
    for view in seen:
        for known in asked:
            if not known.matches(view):
                continue
            if getattr(known, "PREFERS_AVERAGE", False):
                view = next((v for v in seen if is_average(v) and known.matches(v)), view)
            return known, view
    return None


def _unknown(raw: Raw, seen: list[Raw]) -> CheckpointError:
    """The error for a file that no format matches: what it looks like, and what is missing."""
    if raw.kind == "hf":
        model_type = str(raw.meta["config"].get("model_type"))[:80]
        return raw.error(
            f"a Hugging Face folder of no known checkpoint format (its model_type is {model_type!r})",
            f"known formats: {', '.join(FORMATS)}",
        )
    guess = next((text for view in seen if (text := describe(view, FORMATS.values()))), "")
    guess = guess or f"its first are {describe_keys(list(seen[-1].tensors)[:3])}"
    return raw.error(
        f"a {raw.kind} file whose {len(raw.tensors)} tensors are of no known checkpoint format: {guess}",
        f"known formats: {', '.join(FORMATS)}",
    )


def load_checkpoint(
    path: str | os.PathLike[str], architecture: str | None = None, format: str | None = None, **config: Any
) -> nn.Module:
    """Load a checkpoint of any published format into its model, ready for inference.

    Args:
        path: A file, or a Hugging Face folder.
        architecture: As in `read_checkpoint`.
        format: As in `read_checkpoint`.
        **config: As in `read_checkpoint`.

    Returns:
        The model in eval mode, in float32, on the CPU.

    Raises:
        CheckpointError: The file cannot be read, or a tensor is missing, unexpected or misshapen.
        ConfigError: The sizes given do not make a model.
        UsageError: There is no such format or architecture.
    """
    return build_model(read_checkpoint(path, architecture, format, **config), subject=path)


def build_model(checkpoint: Checkpoint, subject: object = "checkpoint") -> nn.Module:
    """Build the architecture that a checkpoint names and copy its tensors in, all of them or none.

    Args:
        checkpoint: What `read_checkpoint` returned.
        subject: What errors are about, such as the path.

    Raises:
        CheckpointError: A tensor is missing, unexpected or misshapen.
        ConfigError: The checkpoint's configuration does not make a model.
    """
    from vidcls.models import build

    def make() -> nn.Module:
        return build(checkpoint.architecture, **checkpoint.config)

    # Built without memory first: a file that claims absurd sizes is refused before they are allocated, and no
    # random weights are drawn only to be overwritten.
    with torch.device("meta"):
        model = make()
    check_state(model, checkpoint.state, subject)
    persistent = set(model.state_dict())
    compute_buffers: Callable[[], None] | None = getattr(model, "compute_buffers", None)
    if compute_buffers is not None:
        model.to_empty(device="cpu")
        compute_buffers()
    elif any(name not in persistent for name, _ in model.named_buffers()):
        model = make()  # a buffer that no checkpoint holds is computed when the model is built
    else:
        model.to_empty(device="cpu")
    load_state(model, checkpoint.state, subject)
    return model.eval()
