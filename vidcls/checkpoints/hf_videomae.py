"""Hugging Face folders of ``VideoMAEForVideoClassification``: the authors' weights under other names.

transformers, ``models/videomae/modeling_videomae.py``. Two things differ from the authors' code and are followed
here: the blocks' LayerNorm epsilon is the configuration's (1e-12), and that of ``fc_norm`` always 1e-5. The biases of
queries and values are spelled ``q_bias`` and ``v_bias`` on disk, or ``query.bias`` and ``value.bias``; both are read.
Folders of ``VideoMAEModel`` and ``VideoMAEForPreTraining`` are read as a start for training: their decoder and last
norm are left out, and the tokens are averaged, as the authors fine-tune.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vidcls.checkpoints import hf_config
from vidcls.checkpoints.base import Checkpoint, Raw, Rename, count_layers, joined, rename
from vidcls.checkpoints.videomae import found_sizes
from vidcls.checkpoints.vit_tensors import HEAD_DIM, HEADS, settle
from vidcls.models.sizes import pair

NAME = "hf_videomae"
ARCHITECTURE = "videomae"

LAYER = "videomae.encoder.layer"
DECODER = ("decoder.", "encoder_to_decoder.", "mask_token")
RELEASED_WIDTHS = (384, 768, 1024, 1280, 1408)
# Some releases of transformers 5 give keys a bias. It adds the same to all scores of a query, so nothing follows of it.
KEY_BIAS = ".attention.attention.key.bias"
FC_NORM_EPS = 1e-5  # torch's default; transformers does not hand its own to this one


def matches(raw: Raw) -> bool:
    """Whether the folder's configuration says that it is a VideoMAE, or one of OpenGVLab's feature encoders."""
    return raw.kind == "hf" and str(raw.meta["config"].get("model_type")).lower().startswith("videomae")


def read(raw: Raw, architecture: str | None, config: dict[str, Any]) -> Checkpoint:
    """Read a VideoMAE, with its labels and its preprocessing.

    Args:
        raw: The folder.
        architecture: ``videomae`` or None.
        config: ``num_heads`` to correct the folder's, ``num_frames`` and ``image_size`` for another size of views; any
            other keyword of the architecture.

    Raises:
        CheckpointError: It is one of OpenGVLab's encoders, is incomplete, or contradicts a keyword.
    """
    if raw.meta["config"].get("model_type") != "videomae":
        raise raw.error(
            "is a VideoMAEv2 encoder with code of its own, for features: it has no classifier",
            "choose a fine-tuned checkpoint, such as videomae-b-k400",
        )
    raw.expect(architecture, ARCHITECTURE)
    tensors = {name: t for name, t in raw.tensors.items() if not name.startswith(DECODER)}
    tensors = hf_config.with_prefix(tensors, "videomae.")
    tensors = {name: t for name, t in tensors.items() if not name.endswith(KEY_BIAS)}
    headless = not any(name.startswith("classifier.") for name in tensors)
    if headless:
        tensors = {name: t for name, t in tensors.items() if not name.startswith("videomae.layernorm.")}
    state = rename(tensors, _renames(raw, tensors, headless), raw.path, ARCHITECTURE)
    found = {**found_sizes(raw, state), "activation": hf_config.activation(raw)}
    heads, notes = _heads(raw, found["embed_dim"], config)
    eps = hf_config.number(raw, "layer_norm_eps", 1e-12)
    chosen = {
        "num_heads": heads,
        "num_frames": hf_config.whole(raw, "num_frames", 16),
        "image_size": hf_config.sides(raw, "image_size", 224),
        "norm_eps": eps,
        "head_norm_eps": FC_NORM_EPS if found["pool"] == "mean" else eps,
        **hf_config.dropouts(raw),
    }
    settled = {**chosen, **settle(raw, found, config)}
    seen = _input(raw, settled, config)
    return hf_config.checkpoint(raw, NAME, ARCHITECTURE, settled, state, seen, notes)


def _heads(raw: Raw, width: int, config: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """The folder's number of heads, or the caller's: of one released model the two are known to disagree."""
    stored = hf_config.whole(raw, "num_attention_heads", 12)
    given = config.get("num_heads")
    if given is not None and given != stored:
        return int(given), (f"config.json says {stored} heads; {given} were asked for",)
    authors = HEADS.get(width, width // HEAD_DIM)
    if width not in RELEASED_WIDTHS or authors == stored:
        return stored, ()
    note = (
        f"config.json says {stored} heads, the authors' model of width {width} has {authors}; computed as "
        f"transformers does (num_heads={authors} computes the authors')"
    )
    return stored, (note,)


def _input(raw: Raw, settled: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    seen = {**hf_config.preprocessing(raw), "num_frames": settled["num_frames"]}
    if "image_size" in config:
        size = pair(settled["image_size"])
        seen |= {"image_size": size, "resize": min(size)}
    return seen


def _renames(raw: Raw, tensors: dict[str, Tensor], headless: bool) -> Iterator[Rename]:
    embeddings = "videomae.embeddings.patch_embeddings.projection"
    yield from joined("patch_embed.proj", embeddings)
    for i in range(count_layers(tensors, r"videomae\.encoder\.layer\.(\d+)\.", raw.path)):
        ours, theirs = f"blocks.{i}", f"{LAYER}.{i}"
        attention = f"{theirs}.attention.attention"
        yield from hf_config.block(ours, theirs, bias=False)
        for short, role in (("q_bias", "query"), ("v_bias", "value")):
            names = (f"{attention}.{short}", f"{attention}.{role}.bias")
            stored = next((name for name in names if name in tensors), None)
            if stored is not None:
                yield Rename(f"{ours}.attn.{short}", (stored,))
    if "fc_norm.weight" in tensors:
        yield from joined("fc_norm", "fc_norm")
    elif not headless:
        yield from joined("norm", "videomae.layernorm")
    if not headless:
        yield from joined("head", "classifier")
