"""Embeddings: what a model makes of a clip just before its classifier, for any architecture. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.embedding import ALL_TOKENS, EmbeddingRequest, MirroredEngine
from vidcls.errors import UsageError, VidclsError
from vidcls.inference.clip import Clip
from vidcls.output.embedding import clip_row
from vidcls.video.reader import VideoReader
from vidcls.zoo.find import Found
from vidcls.zoo.weights import checksum

if TYPE_CHECKING:
    from torch import nn

    from vidcls.inference.classifier import Classifier

VERSION = 2  # of what a model's vectors depend on

Floats = NDArray[np.float32]


class Embedder:
    """A model loaded to embed clips: what `vidcls embed` and `Classifier.embed` run.

    Args:
        found: The model.
        request: Which vectors are wanted.
        views: Reads clips and runs what gives the vectors, see `vidcls.engines.embedding`.

    Attributes:
        spec: The model, with how it sees a video.
        labels: There are none.
        notes: Choices that the checkpoint left open and the loader made.
        engine: Views → vectors.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, found: Found, request: EmbeddingRequest, views: Classifier) -> None:
        self.request = request
        self.spec, self.engine, self.weights = views.spec, views.engine, views.weights
        self.notes = found.facts.notes
        self.uses_frame_indices = views.uses_frame_indices
        self._found, self._views = found, views

    @property
    def dimension(self) -> int:
        """Length of a vector; the model is loaded for it."""
        engine: Any = self.engine
        return int(engine.dimension)

    def module(self) -> nn.Module:
        """The model, as its checkpoint has it."""
        return self._found.module()

    def mirroring(self) -> Embedder:
        """Return one that gives the vectors of the mirrored views too, behind the others."""
        engine: Any = MirroredEngine(self.engine)
        return Embedder(self._found, replace(self.request, mirrored=True), self._views.running(engine))

    def close(self) -> None:
        """Stop the decoding process."""
        self._views.close()

    def settings(self) -> dict[str, Any]:
        """All but the clip that a vector depends on, as JSON can hold it."""
        path = self._found.path
        return {
            "kind": "embeddings",
            "version": VERSION,
            "model": self.spec.name,
            "architecture": self.spec.architecture,
            "weights_sha256": "random" if path is None else checksum(path),
            "config": json.loads(json.dumps(self._found.facts.config, default=str)),
            **self.spec.input.model_dump(mode="json", exclude={"average"}),
            "fps_option": self._views.fps,
            "layer": self.request.layer,
            "per": self.request.per,
        }

    def read(self, clip: str | os.PathLike[str] | bytes, reader: VideoReader | None = None) -> Clip:
        """Read a clip; see `Classifier.read`."""
        return self._views.read(clip, reader)

    def failed(self, name: str, error: VidclsError) -> Embedding:
        """Return the result of a clip that could not be embedded."""
        return Embedding(clip_row(name, None, {}, error=str(error)), np.empty((0, 0), np.float32))

    def outputs_row(
        self, name: str, clip: Clip, outputs: Floats, top_k: int, all_scores: bool
    ) -> dict[str, Any]:
        """Return the row of a clip's views, (v, n · d); see `Classifier.outputs_row`."""
        if self.request.layer == ALL_TOKENS:
            return {"path": name, "vector": self._vectors(outputs)}
        return self.embedding(name, clip, outputs).row

    def embedding(self, name: str, clip: Clip, outputs: Floats) -> Embedding:
        """Make the result of what the engine gave for a clip's views, (v, n · d)."""
        vectors = self._vectors(outputs)
        parts = _parts(clip, len(vectors), vectors.shape[1], self.request.per)
        if self.request.per == "clip":
            vectors = vectors.mean((0, 1), keepdims=True)
        flat = np.ascontiguousarray(vectors.reshape(-1, vectors.shape[-1]))
        row = clip_row(
            name,
            flat,
            parts,
            duration=round(clip.info.duration, 6) or None,
            decoder=clip.decoder,
            warnings=list(clip.warnings),
        )
        return Embedding(row, flat)

    def _vectors(self, outputs: Floats) -> Floats:
        """What the engine gave for a clip's views, (v, n · d), as vectors (v, n, d)."""
        vectors = outputs.astype(np.float32, copy=False).reshape(len(outputs), -1, self.dimension)
        if self.request.mirrored:  # the engine puts the mirrored ones beside the others; here they follow
            vectors = np.concatenate(np.split(vectors, 2, axis=1))
        return vectors

    def embed(self, clip: Any, *, frame_rate: float | None = None) -> Embedding:
        """Embed one clip; arguments and errors are those of `Classifier.predict`."""
        name, read = self._views.read_any(clip, frame_rate)
        return self.embedding(name, read, self._views.clip_logits(read)[0])

    def model_with(self, weight: NDArray[Any], bias: NDArray[Any]) -> nn.Module:
        """The model with a classifier of weights (k, d) and biases (k,)."""
        import torch

        from vidcls.engines.token_reader import classifier_layer

        module = self.module()
        module.reset_head(len(bias))  # type: ignore[operator] # nn.Module types attributes as tensors
        layer = classifier_layer(module)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        return module.eval()


@dataclass(frozen=True, repr=False)
class Embedding:
    """The vectors of one clip; ``row`` is the form in which they are written.

    Attributes:
        row: See `vidcls.output.embedding.clip_row`.
        vectors: (n, d) float32, one for the clip, or for each view or frame.
    """

    row: dict[str, Any]
    vectors: Floats = field(compare=False)

    @property
    def vector(self) -> Floats:
        """(d,) the mean of the vectors, which is the clip's own where there is one."""
        return self.vectors.mean(0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.vectors, dtype=dtype)

    def __repr__(self) -> str:
        return f"Embedding({self.row['path']!r}: {self.vectors.shape[0]} x {self.vectors.shape[1]} float32)"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data, its vectors as lists of numbers."""
        return {**self.row, "vector": self.vectors.tolist()}

    def similarity(self, other: Embedding) -> float:
        """Cosine of the angle to another clip's vector, -1 to 1.

        Raises:
            UsageError: The vectors are of different lengths.
        """
        if self.vectors.shape[-1] != other.vectors.shape[-1]:
            lengths = f"{self.vectors.shape[-1]} and {other.vectors.shape[-1]} numbers"
            raise UsageError(
                "other", f"vectors of {lengths} cannot be compared", "embed both with one model and layer"
            )
        a, b = self.vector.astype(np.float64), other.vector.astype(np.float64)
        return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vectors as ``.npy``, or with their row as ``.npz``.

        Raises:
            UsageError: The name ends in something else.
            OutputError: It cannot be written.
        """
        from vidcls.output.files import save_as

        writers: dict[str, Callable[[Any], None]] = {
            ".npy": lambda file: np.save(file, self.vectors),
            ".npz": lambda file: np.savez(
                file, vectors=self.vectors, row=np.array(json.dumps({**self.row, "vector": None}))
            ),
        }
        save_as(path, writers)

    def plot(self, width: int = 720) -> Any:
        """Draw the vectors as bars, one row each, as a picture of PIL; blue is below zero, red above."""
        from PIL import Image

        top = float(np.abs(self.vectors).max()) or 1.0
        scaled = self.vectors / top
        white = 1 - np.abs(scaled)[..., None]
        color = np.where(scaled[..., None] > 0, np.array([200, 40, 40]), np.array([40, 80, 200]))
        pixels = (255 * white + color * (1 - white)).astype(np.uint8)
        height = max(8, min(48, 480 // len(pixels)))
        return Image.fromarray(pixels).resize((width, height * len(pixels)), Image.Resampling.NEAREST)

    def _repr_html_(self) -> str:
        from vidcls.output.notebook import picture_html

        count, width = self.vectors.shape
        return picture_html(str(self.row["path"]), self.plot(), f"{count} x {width} float32")


def _parts(clip: Clip, count: int, steps: int, per: str) -> dict[str, Any]:
    """Which view each vector is of, and when in the file it begins and ends, in seconds."""
    frames = np.resize(clip.view_indices, (count, clip.view_indices.shape[1]))
    views = np.repeat(np.arange(count), steps)
    unit = max(1, frames.shape[1] // steps)
    last = frames.shape[1] - 1
    first = np.arange(steps) * unit
    ends = np.minimum(first + unit - 1, last)
    ends[-1] = last if steps == 1 else ends[-1]
    times = clip.info.timestamps
    begin, end = times[frames[:, first]].ravel(), times[frames[:, ends]].ravel()
    if per == "clip":
        return {"view": [None], "begin": [_seconds(begin.min())], "end": [_seconds(end.max())]}
    return {
        "view": views.tolist(),
        "begin": [_seconds(one) for one in begin],
        "end": [_seconds(one) for one in end],
    }


def _seconds(time: Any) -> float:
    return round(float(time), 6)
