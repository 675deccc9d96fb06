"""Engines that give vectors in place of logits: what a model makes of a view just before its classifier.

Each is an engine like any other, so that whatever scores clips embeds them too. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vidcls.engines import lazy, make_engine, surely_cpu
from vidcls.engines.base import Array, Engine, Floats, Indices, ScaleShift, Wrapped
from vidcls.engines.numpy_vivit import NumpyViViTEngine
from vidcls.engines.select import EngineRequest, choice, numpy_engine
from vidcls.errors import UsageError

if TYPE_CHECKING:
    from vidcls.config import InputSpec
    from vidcls.zoo.find import Found

LAYERS = {
    "head": "what the classifier's last layer reads",
    "cls": "the class token after the last block",
    "mean": "the mean of all other tokens after the last block",
}
ALL_TOKENS = (
    "tokens"  # a layer that only attentive probes read: all tokens after the last block, n for each view
)
PER = {
    "clip": "one vector for a clip, the mean over its views",
    "view": "one for each view",
    "frame": "one for each frame or tubelet of each view",
}
LOGITS_ONLY = ("openvino", "onnxruntime", "pt2")  # engines of exported models


@dataclass(frozen=True)
class EmbeddingRequest:
    """Which vectors are wanted.

    Attributes:
        layer: A key of `LAYERS`, or `ALL_TOKENS`.
        per: A key of `PER`.
        mirrored: Whether those of the mirrored pictures follow, see `MirroredEngine`.

    Raises:
        UsageError: There is no such layer or part.
    """

    layer: str = "head"
    per: str = "clip"
    mirrored: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("layer", self.layer, LAYERS), ("per", self.per, PER)):
            if value not in (*known, ALL_TOKENS):
                raise UsageError(name, f"{value!r} is not known", f"choose from {', '.join(known)}")


class VectorEngine(Wrapped):
    """An engine whose outputs are vectors.

    Args:
        engine: Views → (v, n · d), n vectors of each view side by side.
        dimension: Length d of a vector.
    """

    def __init__(self, engine: Engine, dimension: int) -> None:
        self.engine = engine
        self.dimension = dimension


def embedding_engine(
    found: Found, view: InputSpec, request: EngineRequest, embedding: EmbeddingRequest
) -> Engine:
    """Make a model give vectors: a `VectorEngine`, by NumPy alone where that runs the model, else by PyTorch.

    It is made when it is first needed where nothing could be wrong with it.

    Raises:
        UsageError: The model has no such vectors, or an engine is asked for that gives logits only.
        DeviceError: The device or precision does not exist here.
    """
    if found.artifact is not None:
        raise UsageError(
            found.source,
            "is an exported model, which gives logits only",
            "give the checkpoint it was made of",
        )
    if request.merge_tokens:
        raise UsageError("merge_tokens", "embeddings need all tokens", "leave it out")
    if request.engine in LOGITS_ONLY:
        problem = f"{request.engine} gives logits only"
        raise UsageError("engine", problem, "use engine=eager to embed")
    if embedding.layer == "head" and embedding.per != "frame":
        return lazy(lambda: _make(found, view, request, embedding), found.facts.unit_frames)
    return cast(Engine, _make(found, view, request, embedding))


def _make(found: Found, view: InputSpec, request: EngineRequest, embedding: EmbeddingRequest) -> Any:
    if embedding.layer == "head" and _runs_on_numpy(found, view, request):
        return _by_numpy(numpy_engine(found), embedding.per)
    from vidcls.engines.token_reader import reader_of

    reader = reader_of(found.module(), embedding.layer, embedding.per)
    by = "eager" if request.engine in ("auto", "numpy") else request.engine
    return VectorEngine(make_engine(reader, request.device, request.precision, by), reader.dimension)


def _runs_on_numpy(found: Found, view: InputSpec, request: EngineRequest) -> bool:
    if request.engine == "numpy":
        return True
    on_cpu = surely_cpu(request.device) and not found.loaded
    return on_cpu and choice(found, view, request, "cpu") == "numpy"


def _by_numpy(engine: Engine, per: str) -> Any:
    assert isinstance(engine, NumpyViViTEngine)
    reader = (NumpyFrames if per == "frame" else NumpyPooled)(engine.tensors, engine.config)
    name = "spatial.norm.weight" if per == "frame" else "head.weight"
    return VectorEngine(reader, engine.tensors[name].shape[-1])


class NumpyPooled(NumpyViViTEngine):
    """`NumpyViViTEngine` without its classifier."""

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        return self.pool(features)


class NumpyFrames(NumpyViViTEngine):
    """The spatial encoder of `NumpyViViTEngine` alone."""

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        return features.reshape(len(features), -1)


class MirroredEngine(Wrapped):
    """An engine whose outputs are those of the pictures and, behind them, of the same mirrored left to right."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(
        self, views: Array, frame_indices: Indices | None = None, scale_shift: ScaleShift | None = None
    ) -> Floats:
        other = _mirrored(views, scale_shift)
        return self._beside(
            self.engine(views, frame_indices, scale_shift), self.engine(other, frame_indices, scale_shift)
        )

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        other = _mirrored(units, scale_shift)
        return self._beside(self.engine.encode(units, scale_shift), self.engine.encode(other, scale_shift))

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        own, other = np.split(features, 2, axis=-1)
        return self._beside(
            self.engine.classify(own, frame_indices), self.engine.classify(other, frame_indices)
        )

    @staticmethod
    def _beside(own: Floats, other: Floats) -> Floats:
        return np.concatenate([own, other], axis=-1)


def _mirrored(pictures: NDArray[Any], scale_shift: ScaleShift | None) -> NDArray[Any]:
    """Mirror pixels (..., w, 3), or numbers (..., w) where there is no ``scale_shift``."""
    turned = pictures[..., ::-1] if scale_shift is None else pictures[..., ::-1, :]
    return np.ascontiguousarray(turned)
