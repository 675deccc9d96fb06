"""OpenVINO: runs converted models on CPUs, near the limit of their units, without importing torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.base import Array, Floats, Indices, ScaleShift, asked_threads, check_logits
from vidcls.engines.compiled import WITHOUT_WEIGHTS, KeptGraph, can_keep
from vidcls.errors import DeviceError, first_line, needing

# Parts of a converted model. A model whose spatial encoder sees few frames at a time is kept as two.
WHOLE, UNITS, HEAD = "model", "units", "head"
PIXELS_VERSION = 1  # of what `take_pixels` builds
# Units that go through the encoder together; more gain nothing on a CPU.
UNIT_BATCH = 64
NEEDS_OPENVINO = partial(needing, "OpenVINO", "is not installed", "pip install 'vidcls[openvino]'")


class OpenVINOEngine:
    """A converted model on the CPU.

    Args:
        parts: ``model``; or ``units`` and ``head``; each a file, or a model in memory.
        precision: ``fp32`` is exact; ``bf16`` needs a CPU that has it; ``int8`` needs parts that were quantized.
        unit_frames: See `vidcls.engines.Engine`.
        stored: Number format of the parts' weights; what is stored as ``fp16`` is computed in fp32.
        num_classes: Length of the logits, to be checked; 0 for any.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: The CPU cannot do the precision.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        parts: Mapping[str, Path | Any],
        precision: str,
        unit_frames: int = 0,
        stored: str = "fp32",
        num_classes: int = 0,
    ) -> None:
        self._num_classes = num_classes
        self.precision = precision
        self.unit_frames = unit_frames
        self._parts = dict(parts)
        self._scale_shift: ScaleShift | None = None
        self._requests: dict[tuple[str, str], Any] = {}
        self._core = core()
        self._settings = settings(self._core, "fp32" if stored == "fp16" else precision)

    def prepare(self, dtype: np.dtype[Any], scale_shift: ScaleShift) -> None:
        """Compile now what pixels of this type will need."""
        self._use(scale_shift)
        self._request(UNITS if self.unit_frames else WHOLE, dtype)
        if self.unit_frames:
            self._request(HEAD, None)

    def __call__(
        self, views: Array, frame_indices: Indices | None = None, scale_shift: ScaleShift | None = None
    ) -> Floats:
        if not self.unit_frames:
            return self._checked(WHOLE, self._run(WHOLE, [views], scale_shift), len(views))
        features = self.encode(split_units(views, self.unit_frames, scale_shift is not None), scale_shift)
        return self.classify(features.reshape(len(views), -1, features.shape[-1]), frame_indices)

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        starts = range(0, len(units), UNIT_BATCH)
        return np.concatenate([self._run(UNITS, [units[s : s + UNIT_BATCH]], scale_shift) for s in starts])

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        inputs: list[NDArray[Any]] = [features]
        inputs += [] if frame_indices is None else [frame_indices]
        return self._checked(HEAD, self._run(HEAD, inputs, None), len(features))

    def _checked(self, part: str, logits: Floats, views: int) -> Floats:
        return check_logits(logits, views, self._num_classes, self._parts[part])

    def _run(self, part: str, inputs: list[NDArray[Any]], scale_shift: ScaleShift | None) -> Floats:
        if scale_shift is not None:
            self._use(scale_shift)
        request = self._request(part, None if scale_shift is None else inputs[0].dtype)
        try:
            result = request.infer({i: np.ascontiguousarray(x) for i, x in enumerate(inputs)})[0]
        except RuntimeError as error:
            raise self._broken(part, error) from error
        # Copied: the request's own memory is written again by the next call.
        return np.array(result, dtype=np.float32)

    def _use(self, scale_shift: ScaleShift) -> None:
        """The normalization is part of the graph: another one needs another graph."""
        if not _same(scale_shift, self._scale_shift):
            numbers = [key for key in self._requests if key[1] == "numbers"]
            self._requests = {key: self._requests[key] for key in numbers}
            self._scale_shift = scale_shift

    def _request(self, part: str, dtype: np.dtype[Any] | None) -> Any:
        key = (part, "numbers" if dtype is None else str(dtype))
        if key not in self._requests:
            try:
                self._requests[key] = self._compiled(part, dtype).create_infer_request()
            except (RuntimeError, OSError) as error:
                raise self._broken(part, error) from error
        return self._requests[key]

    def _compiled(self, part: str, dtype: np.dtype[Any] | None) -> Any:
        """A part's graph as it was compiled in an earlier process, or else compiled now and kept for the next."""
        source, settings = self._parts[part], self._settings
        kept: KeptGraph | None = None
        if isinstance(source, Path) and can_keep(self._core):
            settings = settings | WITHOUT_WEIGHTS
            kept = KeptGraph(self._core, source, settings, self._variant(dtype))
            if (found := kept.load()) is not None:
                return found
        model = self._core.read_model(source) if isinstance(source, Path) else source.clone()
        if dtype is not None:
            assert self._scale_shift is not None
            model = take_pixels(model, dtype, self._scale_shift)
        compiled = self._core.compile_model(model, "CPU", settings)
        if kept is not None:
            kept.save(compiled)
        return compiled

    def _variant(self, dtype: np.dtype[Any] | None) -> list[Any]:
        """What `take_pixels` makes of a graph, in numbers."""
        if dtype is None or self._scale_shift is None:
            return []
        return [PIXELS_VERSION, str(dtype), *(part.astype(np.float32).tolist() for part in self._scale_shift)]

    def _broken(self, part: str, error: Exception) -> DeviceError:
        path = self._parts[part]
        place = f"export {path.parent} again" if isinstance(path, Path) else "free some memory"
        return DeviceError("OpenVINO", first_line(error), f"{place}, or use engine=eager")


def core() -> Any:
    """Return OpenVINO's core; a DependencyError where it is not installed."""
    with NEEDS_OPENVINO():
        return _openvino().Core()


def _openvino() -> Any:
    """Import OpenVINO; its converter, which imports an HTTP client and reports its own use, when it is asked for."""
    converter = "openvino.tools.ovc"
    if "openvino" in sys.modules:
        return import_module("openvino")
    sys.modules[converter] = None  # type: ignore[assignment] # OpenVINO goes on without one that cannot be imported
    try:
        openvino = import_module("openvino")
    finally:
        del sys.modules[converter]

    def attribute(name: str) -> Any:
        if name != "convert_model":
            raise AttributeError(f"module 'openvino' has no attribute {name!r}")
        return import_module(converter).convert_model

    openvino.__getattr__ = attribute  # type: ignore[method-assign]
    return openvino


def settings(core: Any, precision: str) -> dict[str, Any]:
    """Return how a model is compiled; fp32 must be asked for, as CPUs with bf16 use that unasked.

    Raises:
        DeviceError: The CPU cannot do the precision.
    """
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hints = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "bf16" if "BF16" in able else "f32"}
    if precision in ("bf16", "fp16") and precision.upper() not in able:
        raise DeviceError(precision, "OpenVINO cannot compute in it on this CPU", "use precision=fp32")
    chosen: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hints[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads := asked_threads():
        chosen["INFERENCE_NUM_THREADS"] = threads
    return chosen


def take_pixels(model: Any, dtype: np.dtype[Any], scale_shift: ScaleShift) -> Any:
    """Put the normalization into a model: (v, c, t, h, w) float32 → pixels (v, t, h, w, 3) of ``dtype``."""
    from openvino import Type, opset13

    old = model.get_parameters()[0]
    batch, channels, *rest = old.get_partial_shape()
    pixels = opset13.parameter([batch, *rest, channels], Type(dtype), "pixels")
    scale, shift = (opset13.constant(part.reshape(1, 1, 1, 1, -1).astype(np.float32)) for part in scale_shift)
    numbers = opset13.add(opset13.multiply(opset13.convert(pixels, "f32"), scale), shift)
    planes = opset13.transpose(numbers, opset13.constant(np.array([0, 4, 1, 2, 3])))
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(planes.output(0))
    model.remove_parameter(old)
    model.add_parameters([pixels])
    model.validate_nodes_and_infer_types()
    return model


def split_units(views: NDArray[Any], frames: int, pixels: bool) -> NDArray[Any]:
    """Cut views into their units: (v, c, t, h, w) → (v·t', c, frames, h, w), or pixels (v, t, h, w, 3) likewise."""
    if pixels:
        return views.reshape(-1, frames, *views.shape[2:])
    v, c, t, h, w = views.shape
    cut: NDArray[Any] = views.reshape(v, c, t // frames, frames, h, w).swapaxes(1, 2)
    return cut.reshape(-1, c, frames, h, w)


def _same(one: ScaleShift, other: ScaleShift | None) -> bool:
    return other is not None and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
