"""Embeddings: what a model makes of a clip just before its classifier, for any architecture."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vidcls.engines import make_engine
from vidcls.errors import ConfigError
from vidcls.inference.classifier import Classifier
from vidcls.inference.feature_store import clip_identity
from vidcls.inference.load import view_of
from vidcls.paths import replacing
from vidcls.video.reader import VideoReader
from vidcls.zoo.find import Found, find_model
from vidcls.zoo.weights import checksum

VERSION = 1

Floats = NDArray[np.float32]


def classifier_layer(model: nn.Module) -> nn.Linear:
    """The last linear layer of a model, whose outputs are the logits (or their mean over frames).

    Raises:
        ConfigError: Its head does not end in one.
    """
    head = model.get_submodule("head")
    last = head[-1] if isinstance(head, nn.Sequential) else head
    if not isinstance(last, nn.Linear):
        raise ConfigError(
            type(model).__name__, "its head does not end in a linear layer", "use another model"
        )
    return last


def swap_classifier(model: nn.Module, layer: nn.Module) -> nn.Module:
    """Put ``layer`` in the place of a model's last layer, and return the one that was there.

    With an identity there the model gives embeddings (b, d) in place of logits. Models that average logits over frames
    then give the mean of the frames' embeddings: the linear layer of the mean is the mean of the linear layers.
    """
    head = model.get_submodule("head")
    if isinstance(head, nn.Sequential):
        old, head[-1] = head[-1], layer
        return old
    model.head = layer
    return head


class Embedder:
    """Clips to embeddings, one for each view, by the frozen model of a checkpoint.

    Args:
        model: Name in the registry, or a checkpoint, as for `vidcls.load`.
        weights: A checkpoint to take instead of the model's own.
        views: Keys of the model's input to change, such as ``num_views``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        registry: A registry file laid over the one that ships with vidcls.
        reader: Reads the clips; by default one of its own.

    Attributes:
        spec: The model, with how it sees a video.
    """

    def __init__(
        self,
        model: str | None = None,
        weights: str | None = None,
        views: dict[str, Any] | None = None,
        device: str = "auto",
        registry: str | None = None,
        reader: VideoReader | None = None,
    ) -> None:
        self._found: Found = find_model(model, weights=weights, registry=registry)
        facts = self._found.facts
        self.spec = facts.spec.model_copy(update={"input": view_of(facts, **(views or {}))})
        self._uses_frame_indices = facts.uses_frame_indices
        self._device, self._reader = device, reader
        self._classifier: Classifier | None = None
        self._head: nn.Module | None = None

    def close(self) -> None:
        """Stop the decoding process."""
        if self._classifier is not None:
            self._classifier.close()

    def settings(self) -> dict[str, Any]:
        """All but the clip that an embedding depends on, as JSON can hold it."""
        path = self._found.path
        return {
            "version": VERSION,
            "weights": "random" if path is None else checksum(path),
            "architecture": self.spec.architecture,
            "config": json.loads(json.dumps(self._found.facts.config, default=str)),
            "input": self.spec.input.model_dump(mode="json"),
        }

    def model_with(self, weight: NDArray[Any], bias: NDArray[Any]) -> nn.Module:
        """The model with a classifier of weights (k, d) and biases (k,); no more clips can be embedded then."""
        module = self._found.module()
        if self._head is not None:
            swap_classifier(module, self._head)
        module.reset_head(len(bias))  # type: ignore[operator] # nn.Module types attributes as tensors
        layer = classifier_layer(module)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        self.close()
        return module.eval()

    def embed(self, clip: str | os.PathLike[str] | bytes, mirrored: bool = False) -> Floats:
        """Embeddings (v, d) float32 of the views of a clip; with ``mirrored`` those of mirrored views after them.

        Raises:
            VideoError: It cannot be read.
            DeviceError: Memory ran out.
        """
        classifier = self._ready()
        read = classifier.read(clip)
        found = classifier.clip_logits(read)[0]
        if mirrored:
            other = replace(read, frames=np.ascontiguousarray(read.frames[:, :, ::-1]))
            found = np.concatenate([found, classifier.clip_logits(other)[0]])
        return found.astype(np.float32, copy=False)

    def _ready(self) -> Classifier:
        """Load the model when the first clip that is not in a cache needs it."""
        if self._classifier is None:
            module = self._found.module()
            classifier_layer(module)
            self._head = swap_classifier(module, nn.Identity())
            engine = make_engine(module, self._device, "fp32")
            self._classifier = Classifier(
                engine,
                self.spec,
                (),
                weights=self._found.source,
                reader=self._reader,
                uses_frame_indices=self._uses_frame_indices,
            )
        return self._classifier


class EmbeddingCache:
    """Embeddings of clips on the disk, one small file each, found again by all that made them.

    Args:
        folder: Holds a folder for each set of settings.
        settings: All but the clip that an embedding depends on.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder / _digest(settings)

    def path(self, clip: str | os.PathLike[str]) -> Path:
        """The file for a clip, which need not exist.

        Raises:
            OSError: The clip's file cannot be looked at.
        """
        return self.folder / f"{_digest(clip_identity(clip))}.npy"

    def get(self, clip: str | os.PathLike[str]) -> Floats | None:
        """The embeddings (v, d) of a clip; None where there are none, or the file is damaged."""
        try:
            found: NDArray[Any] = np.load(self.path(clip), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        sound = found.ndim == 2 and found.dtype == np.float32 and np.isfinite(found).all()
        return found if sound else None

    def put(self, clip: str | os.PathLike[str], embeddings: Floats) -> None:
        """Store the embeddings of a clip; a folder that cannot be written costs only the time saved."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.path(clip)) as temporary, temporary.open("wb") as file:
                np.save(file, embeddings, allow_pickle=False)
        except OSError:
            return


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]
