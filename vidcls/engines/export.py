"""PyTorch model → the formats of other runtimes, all of them through ``torch.export``.

Tried for ViViT-FE: tracing took 17 to 43 s, ``torch.export`` and OpenVINO's reader of its graph take 2 s each.
Most of that does not depend on the weights' size. Graphs take any number of views at once.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.export import ExportedProgram

from vidcls.config import InputSpec
from vidcls.engines import cache, is_installed, make_engine
from vidcls.engines.artifact import ArtifactRecord
from vidcls.engines.base import Engine, Floats, ScaleShift, unit_frames
from vidcls.engines.openvino import HEAD, NEEDS_OPENVINO, UNITS, WHOLE, OpenVINOEngine
from vidcls.errors import DependencyError, DeviceError, first_line, printable
from vidcls.views.transform import pixel_scale_shift

if TYPE_CHECKING:
    from vidcls.zoo.find import Found

# Numbers in which logits of an fp32 model may differ from those of the one it was made of, as a share of the largest
# logit; what it takes in float32 is some 1e-6.
TOLERANCE = 1e-4
CHECKED_UNITS = 4
OPSET = 18
ONNX_TORCH = "2.6"  # the first PyTorch whose exporter takes programs and optimizes what it writes
ONNX_LIMIT = 1900 << 20  # bytes of weights that one file, which must be smaller than 2 GiB, can hold


class _Units(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, units: Tensor) -> Tensor:
        features: Tensor = self.model.encode_frames(units)  # type: ignore[operator]
        return features[:, 0]


class _Head(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        given = () if frame_indices is None else (frame_indices,)
        return self.model.classify(features, *given)  # type: ignore[operator]


def openvino_parts(model: nn.Module, num_frames: int, image_size: tuple[int, int]) -> dict[str, Any]:
    """Convert a model in eval mode and float32 on the CPU for views of one size.

    Args:
        model: One of `vidcls.models.ARCHITECTURES`.
        num_frames: Frames of a view.
        image_size: Height and width of a view in pixels.

    Returns:
        Part → OpenVINO model: ``model`` (v, 3, t, h, w) → (v, k); or ``units`` (u, 3, unit, h, w) → (u, d) and
        ``head`` (v, t', d) → (v, k), which takes frame indices (v, t) too where the model uses them.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: The model cannot be converted.
    """
    unit = unit_frames(model)
    if not unit:
        return {WHOLE: _to_openvino(model, [torch.zeros(2, 3, num_frames, *image_size)])}
    units = torch.zeros(2, 3, unit, *image_size)
    with torch.inference_mode():
        width = _Units(model)(units[:1]).shape[-1]
    head = [torch.zeros(2, num_frames // unit, width), *_indices(model, num_frames)]
    return {UNITS: _to_openvino(_Units(model), [units]), HEAD: _to_openvino(_Head(model), head)}


def _indices(model: nn.Module, num_frames: int) -> list[Tensor]:
    """Numbers of the frames of two views (2, t), for models that use them."""
    if not getattr(model, "uses_frame_indices", False):
        return []
    return [torch.arange(num_frames).expand(2, -1).contiguous()]


def _to_openvino(module: nn.Module, examples: list[Tensor]) -> Any:
    with NEEDS_OPENVINO():
        import openvino
        from openvino import frontend
    failures = (
        *(frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure),
        *(frontend.OpConversionFailure, frontend.OpValidationFailure),
    )
    program = export_program(module, examples)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of OpenVINO's own deprecations
            converted = openvino.convert_model(program)
        converted.reshape({i: [-1, *example.shape[1:]] for i, example in enumerate(examples)})
    except (RuntimeError, ValueError, TypeError, AssertionError, *failures) as error:
        raise _not_exported("OpenVINO", error) from error
    return converted


def export_program(module: nn.Module, examples: list[Tensor]) -> ExportedProgram:
    """Trace a module for any number of views.

    Args:
        module: Takes the examples.
        examples: Inputs for two views.

    Raises:
        DeviceError: What it computes depends on the data.
    """
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    failures = (RuntimeError, ValueError, TypeError, AssertionError, torch._dynamo.exc.TorchDynamoException)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecations
            return torch.export.export(
                module.eval(), tuple(examples), dynamic_shapes=tuple({0: batch} for _ in examples)
            )
    except failures as error:
        raise _not_exported("torch.export", error) from error


def _not_exported(what: str, error: Exception) -> DeviceError:
    return DeviceError(what, f"cannot convert this model ({first_line(error)})", "use engine=eager")


class _Graph(nn.Module):
    """A whole model: normalized views, or pixels, in; float32 logits out."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, scale_shift: ScaleShift | None) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.pixels = scale_shift is not None
        for name, values in zip(("scale", "shift"), scale_shift or (), strict=False):
            self.register_buffer(name, torch.from_numpy(values).reshape(3, 1, 1, 1))

    def forward(self, views: Tensor, frame_indices: Tensor | None = None) -> Tensor:
        if self.pixels:
            planes = views.permute(0, 4, 1, 2, 3).to(torch.float32)
            views = planes * self.scale + self.shift  # type: ignore[operator]
        given = () if frame_indices is None else (frame_indices,)
        logits: Tensor = self.model(views.to(self.dtype), *given)
        return logits.to(torch.float32)


def whole_program(model: nn.Module, view: InputSpec, precision: str, pixels: str = "") -> ExportedProgram:
    """Trace a whole model, as ONNX and pt2 hold it.

    Args:
        model: One of `vidcls.models.ARCHITECTURES`, in float32.
        view: How it sees a video.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        pixels: Type of the pixels (v, t, h, w, 3) that the graph takes and normalizes itself; empty for normalized
            views (v, 3, t, h, w).

    Raises:
        DeviceError: The model cannot be traced.
    """
    from vidcls.engines.torch import DTYPES

    dtype = DTYPES[precision]
    if dtype is not torch.float32:
        model = copy.deepcopy(model).to(dtype)
    graph = _Graph(model, dtype, pixel_scale_shift(view) if pixels else None)
    shape = (2, view.num_frames, *view.image_size, 3) if pixels else (2, 3, view.num_frames, *view.image_size)
    views = torch.zeros(shape, dtype=getattr(torch, pixels or "float32"))
    return export_program(graph, [views, *_indices(model, view.num_frames)])


def onnx_writer(program: ExportedProgram, pixels: str = "") -> Callable[[Path], None]:
    """Return what writes a program as ``model.onnx``, with its weights beside it only where one file cannot hold them.

    Raises:
        DependencyError: ONNX or its exporter is not installed.
        DeviceError: The program cannot be converted.
    """
    for package in ("onnx", "onnxscript"):
        if not is_installed(package):
            raise DependencyError("ONNX", f"{package} is not installed", "pip install 'vidcls[onnx]'")
    if Version(torch.__version__) < Version(ONNX_TORCH):
        raise DependencyError(
            "ONNX", f"PyTorch {torch.__version__} cannot export it", f"install torch>={ONNX_TORCH}"
        )
    inputs = ["pixels" if pixels else "views", "frame_indices"][: len(program.graph_signature.user_inputs)]
    with (
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        _quiet("torch.onnx", "onnxscript"),
    ):
        warnings.simplefilter("ignore")  # of its own deprecations
        try:
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=["logits"],
                verbose=False,
            )
        except Exception as error:  # its errors have no base of their own
            raise _not_exported("ONNX", error) from error
    assert converted is not None
    large = sum(tensor.nbytes for tensor in program.state_dict.values()) > ONNX_LIMIT

    def write(folder: Path) -> None:
        converted.save(folder / "model.onnx", external_data=large)

    return write


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep libraries from logging what nobody can act on."""
    loggers = {name: logging.getLogger(name).level for name in names}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in loggers.items():
            logging.getLogger(name).setLevel(level)


def pt2_writer(program: ExportedProgram) -> Callable[[Path], None]:
    """Return what writes a program as ``model.pt2``, which this machine then trusts."""

    def write(folder: Path) -> None:
        from vidcls.engines.pt2 import trust

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecations
            torch.export.save(program, folder / "model.pt2")
        trust(folder / "model.pt2")

    return write


def openvino_writer(parts: Mapping[str, Any], precision: str = "fp32") -> Callable[[Path], None]:
    """Return what writes a converted model's parts into a folder; fp16 halves the weights' size."""

    def write(folder: Path) -> None:
        import openvino

        for name, part in parts.items():
            openvino.save_model(part, folder / f"{name}.xml", compress_to_fp16=precision == "fp16")

    return write


def noise_logits(engine: Engine, view: InputSpec, unit: int, indexed: bool) -> Floats:
    """Logits (1, k) of one view of noise, the same for every engine.

    Args:
        engine: Runs the model.
        view: How the model sees a video.
        unit: Frames that the model's spatial encoder sees together, 0 for all. A few different units make up the view,
            so that a check stays cheap for hundreds of frames.
        indexed: Whether the model uses the frames' numbers.
    """
    size = unit or view.num_frames
    count = view.num_frames // size
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (min(count, CHECKED_UNITS), size, *view.image_size, 3), np.uint8)
    places = np.arange(count) % len(pixels)
    indices = np.arange(count * size)[None] if indexed else None
    scale_shift = pixel_scale_shift(view)
    if engine.unit_frames:
        return engine.classify(engine.encode(pixels, scale_shift)[None, places], indices)
    return engine(pixels[places].reshape(1, -1, *pixels.shape[2:]), indices, scale_shift)


def measure_error(model: nn.Module, engine: Engine, view: InputSpec, *, exact: bool = True) -> float:
    """Run a model and what was made of it on the same noise, and return the largest difference of their logits.

    Args:
        model: One of `vidcls.models.ARCHITECTURES`, in float32.
        engine: Runs what was made of it.
        view: How the model sees a video.
        exact: Whether nothing but rounding may make a difference.

    Raises:
        DeviceError: They differ by more than rounding explains, or are not finite.
    """
    eager = make_engine(model, "cpu", "fp32", "eager")
    indexed = bool(getattr(model, "uses_frame_indices", False))
    theirs, ours = (noise_logits(e, view, eager.unit_frames, indexed) for e in (eager, engine))
    if not np.isfinite(theirs).all():
        raise DeviceError(
            "model",
            "gives outputs that are not numbers in float32",
            "its weights are damaged: fetch or train them again",
        )
    error = float(np.abs(ours - theirs).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(theirs).max())) if exact else np.inf
    if not error <= allowed or not np.isfinite(error):
        raise DeviceError(
            engine.name,
            f"its logits differ by {error:.1g} from those of PyTorch for this model",
            "use engine=eager, and please report it",
        )
    return error


def export_to_cache(found: Found, view: InputSpec, precision: str) -> Engine:
    """Export a model to OpenVINO in fp32, keep it in the cache where it can be, and return the engine.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: The model cannot be converted, its logits are not those of PyTorch, or the CPU lacks the precision.
    """
    start = time.perf_counter()
    name = found.facts.spec.name
    _notify(f"{name}: converting to OpenVINO")
    parts = openvino_parts(found.module(), view.num_frames, view.image_size)
    _notify(f"{name}: checking against PyTorch")
    error = measure_error(found.module(), OpenVINOEngine(parts, "fp32", found.facts.unit_frames), view)
    key = found.export_key("fp32")
    record = record_of(found, view, "openvino", "fp32", found.facts.labels, error)
    artifact = None if key is None else cache.store(key, openvino_writer(parts), record)
    place = "in memory only" if artifact is None else f"kept in {artifact.folder}"
    took = time.perf_counter() - start
    _notify(f"{name}: converted in {took:.1f} s, logits within {error:.1g} of PyTorch, {place}", end="\n")
    if artifact is not None:
        return artifact.engine("openvino", "cpu", precision)
    return OpenVINOEngine(parts, precision, found.facts.unit_frames)


def record_of(
    found: Found,
    view: InputSpec,
    format: str,
    precision: str,
    labels: tuple[str, ...] | None,
    error: float = 0.0,
    pixels: str = "",
) -> ArtifactRecord:
    """Return what an exported model says of itself; nothing in it depends on this machine."""
    spec = found.facts.spec.model_copy(update={"input": view, "weights": None, "labels": None})
    changes = {"spec": spec, "labels": labels}
    facts = found.facts.model_copy(update=changes if format == "openvino" else {**changes, "unit_frames": 0})
    return ArtifactRecord.model_validate(
        {
            "format": format,
            "precision": precision,
            "error": error,
            "pixels": pixels,
            "source": portable_source(found.source),
            "facts": facts,
        }
    )


def portable_source(source: str) -> str:
    """Return where weights come from without the folders of this machine."""
    local = "://" not in source and not source.startswith(("hub:", "bundled:"))
    return Path(source.rstrip("/")).name if local else source


def _notify(text: str, end: str = "") -> None:
    """Say how far an export is, where a person watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{printable(text)}", end=end, file=sys.stderr, flush=True)
