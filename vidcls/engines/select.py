"""Which engine runs a model: `choose` decides, the rest carries it out. Imports no torch until it must."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidcls.config import InputSpec
from vidcls.engines import (
    Engine,
    choose_device,
    choose_precision,
    is_installed,
    lazy,
    make_engine,
    numpy_vivit,
    surely_cpu,
)
from vidcls.errors import DeviceError, UsageError
from vidcls.models.merging_config import check_share
from vidcls.zoo.facts import plain_config

if TYPE_CHECKING:
    from torch import nn

    from vidcls.zoo.find import Found

ON_CPU = ("openvino", "onnxruntime", "pt2", "numpy")  # engines that know no other device

# Seconds on one core that eager PyTorch takes for 10⁹ multiply-adds in fp32, how many times as fast OpenVINO was on the
# machines with AVX-512 that were measured (docs/performance.md; on one without it gained nothing), and what exporting
# costs: the same for all, and for each million parameters that are converted, checked and written.
EAGER_SECONDS = 0.0212
SPEEDUP = (1.1, 2.4)
FIXED_COST = 6.0
COST_PER_MILLION = 0.02


@dataclass(frozen=True)
class EngineRequest:
    """What was asked for.

    Attributes:
        engine: ``auto`` or one of `vidcls.engines.ENGINES`.
        device: As in `vidcls.load`.
        precision: ``auto`` or one of `vidcls.engines.PRECISIONS`.
        clips: Clips that will be scored, None where that is not known.
        merge_tokens: Share of the tokens that are merged away; see `vidcls.models.merging`.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    clips: int | None = None
    merge_tokens: float = 0.0


def choose(request: EngineRequest, device: str, *, numpy_macs: float | None, exported: bool) -> str:
    """Decide which engine runs a model; ``auto`` is the fastest that is at hand and does not change answers.

    On CUDA devices and on Metal that is eager PyTorch. On a CPU it is NumPy, if the model is small and the clips so few
    that they take less time than importing torch, and at first where nobody says how many there will be; OpenVINO, if
    the model has been exported; else eager PyTorch.
    Only eager PyTorch merges tokens.

    Args:
        request: What was asked for.
        device: Where the model will run.
        numpy_macs: Multiply-adds of all clips together; None where NumPy cannot run the model, where torch is imported
            already, or where the number of clips is not known.
        exported: Whether an OpenVINO model of the checkpoint is in the cache.

    Returns:
        A key of `vidcls.engines.ENGINES`.
    """
    if request.merge_tokens:
        return "eager"
    if request.engine != "auto":
        return request.engine
    if request.precision == "int8":
        return "openvino"
    if device != "cpu" or request.precision == "fp16":
        return "eager"
    if (
        numpy_macs is not None
        and numpy_macs <= numpy_vivit.MAX_MACS
        and request.precision in ("auto", "fp32")
    ):
        return "numpy"
    return "openvino" if exported else "eager"


def engine_for(found: Found, view: InputSpec, request: EngineRequest) -> Engine:
    """Choose and make the engine of a model.

    Args:
        found: The model.
        view: How it sees a video.
        request: What was asked for.

    Raises:
        DeviceError: The device, or the precision on it, does not exist here, or the engine cannot run the model.
        DependencyError: What the engine needs is not installed.
    """
    _check_merging(found, request)
    if found.artifact is not None:
        return found.artifact.engine(request.engine, request.device, request.precision)
    if surely_cpu(request.device) or (request.device == "auto" and request.engine in ON_CPU):
        return _make(choice(found, view, request, "cpu"), found, view, request, "cpu")
    if found.loaded:
        return _make_anywhere(found, view, request)
    # Finding out where it will run imports torch; that is done while the first clip is decoded.
    return lazy(lambda: _make_anywhere(found, view, request), found.facts.unit_frames)


def _check_merging(found: Found, request: EngineRequest) -> None:
    """Refuse to merge tokens where the model or the engine that was named cannot.

    Raises:
        UsageError: An engine was named that runs a fixed graph, the model was exported, or see `check_share`.
    """
    if not request.merge_tokens:
        return
    check_share(found.facts.spec.architecture, request.merge_tokens)
    if found.artifact is not None:
        raise UsageError(
            "merge_tokens",
            "an exported model cannot merge tokens",
            "give the checkpoint that it was made of",
        )
    if request.engine not in ("auto", "eager"):
        raise UsageError(
            "merge_tokens", f"the engine {request.engine} cannot merge tokens", "use engine=eager"
        )


def _make_anywhere(found: Found, view: InputSpec, request: EngineRequest) -> Engine:
    device = choose_device(request.device)
    return _make(choice(found, view, request, device), found, view, request, device)


def choice(found: Found, view: InputSpec, request: EngineRequest, device: str) -> str:
    """Return what `choose` decides for a model."""
    exported = is_installed("openvino") and found.exported() is not None
    return choose(request, device, numpy_macs=_numpy_macs(found, view, request), exported=exported)


def _numpy_macs(found: Found, view: InputSpec, request: EngineRequest) -> float | None:
    facts = found.facts
    if request.clips is None or not _numpy_can_start(found):
        return None
    views = view.num_views * view.num_crops * request.clips
    return numpy_vivit.macs(facts.config, views * view.num_frames // facts.unit_frames, views)


def _numpy_can_start(found: Found) -> bool:
    """Whether NumPy can run the model and torch, which is faster, has not been imported."""
    facts = found.facts
    return (
        "torch" not in sys.modules
        and found.path is not None
        and numpy_vivit.can_run(facts.spec.architecture, facts.config)
        and numpy_vivit.fits(found.path, facts.config)
    )


def _make(name: str, found: Found, view: InputSpec, request: EngineRequest, device: str) -> Engine:
    precision = choose_precision(request.precision, device)
    if name in ON_CPU and device != "cpu":
        raise DeviceError(
            device, f"the engine {name} runs on the CPU here", "use device=cpu, or engine=eager"
        )
    if name == "numpy":
        return numpy_engine(found)
    if name == "openvino":
        return _openvino_engine(found, view, precision)
    if name in ("onnxruntime", "pt2"):
        command = (
            f"vidcls export {found.asked} --format {'onnx' if name == 'onnxruntime' else 'pt2'} -o FOLDER"
        )
        raise DeviceError(name, "runs exported models", f"make one with `{command}`, and pass weights=FOLDER")

    def make() -> Engine:
        module = found.module()
        if request.merge_tokens:
            from vidcls.models.merging import merge_tokens

            module = merge_tokens(module, request.merge_tokens)
        return make_engine(module, device, precision, name)

    unknown = request.engine == "auto" and request.clips is None and request.precision in ("auto", "fp32")
    if (
        unknown
        and name == "eager"
        and device == "cpu"
        and not request.merge_tokens
        and _numpy_can_start(found)
    ):
        return numpy_vivit.StartingEngine(numpy_engine(found), make)
    # A module that is not in memory yet is loaded while the first clip is decoded.
    return make() if found.loaded else lazy(make, found.facts.unit_frames)


def numpy_engine(found: Found) -> numpy_vivit.NumpyViViTEngine:
    """Return NumPy's engine for a model, of its file alone where that is enough; a DeviceError where it cannot run."""
    tensors = None if found.path is None else numpy_vivit.read_tensors(found.path, found.facts.config)
    if tensors is not None and numpy_vivit.can_run(found.facts.spec.architecture, found.facts.config):
        return numpy_vivit.NumpyViViTEngine(tensors, found.facts.config)
    return numpy_engine_of(found.module())


def numpy_engine_of(module: nn.Module) -> numpy_vivit.NumpyViViTEngine:
    """Return NumPy's engine for a module that is in memory; a DeviceError where it cannot run it."""
    config = plain_config(module)
    if not numpy_vivit.can_run(str(module.architecture), config):
        raise DeviceError("numpy", "runs factorized encoders with the tanh GELU only", "use engine=eager")
    tensors = {name: tensor.float().numpy() for name, tensor in module.state_dict().items()}
    return numpy_vivit.NumpyViViTEngine(tensors, config)


def _openvino_engine(found: Found, view: InputSpec, precision: str) -> Engine:
    """Take the exported model from the cache; where it was asked for by name and is not there, export it now."""
    stored = "int8" if precision == "int8" else "fp32"
    artifact = found.exported(stored)
    if artifact is not None:
        return artifact.engine("openvino", "cpu", precision)
    if stored == "int8":
        raise DeviceError(
            found.facts.spec.name,
            "there is no int8 model of it in the cache",
            f"make it with `{export_command(found)} --precision int8 --calibrate CLIPS`",
        )

    def make() -> Engine:
        from vidcls.engines.export import export_to_cache

        return export_to_cache(found, view, precision)

    return make() if found.loaded else lazy(make, found.facts.unit_frames)


def export_command(found: Found) -> str:
    """Return the command that exports a model to the cache for OpenVINO."""
    return f"vidcls export {found.asked} --format openvino"


def export_hint(found: Found, view: InputSpec, request: EngineRequest) -> str | None:
    """Say which command would make a long run faster, and by how much; None where none would.

    What the clips take is only an estimate, so the gain must be at least what exporting costs even where OpenVINO gains
    least.
    """
    if request.clips is None or request.clips < 2 or request.merge_tokens:
        return None
    if request.engine != "auto" or request.precision not in ("auto", "fp32") or not is_installed("openvino"):
        return None
    if found.key is None or found.artifact is not None or not surely_cpu(request.device) or not has_avx512():
        return None
    if choice(found, view, request, "cpu") != "eager":
        return None
    from vidcls.models.count import count_architecture
    from vidcls.output.text import duration

    facts = found.facts
    counted = count_architecture(facts.spec.architecture, facts.config, view.num_frames, view.image_size)
    views = view.num_views * view.num_crops * (request.clips or 1)
    seconds = counted.macs / 1e9 * views * EAGER_SECONDS / (os.cpu_count() or 1)
    cost = FIXED_COST + COST_PER_MILLION * counted.params / 1e6
    if seconds * (1 - 1 / SPEEDUP[0]) < cost:
        return None
    return (
        f"{request.clips:,} clips take about {duration(seconds)} with PyTorch; after `{export_command(found)}`, "
        f"which takes about {duration(cost)}, scoring is {SPEEDUP[0]:g} to {SPEEDUP[1]:g} times as fast"
    )


def has_avx512() -> bool:
    """Whether this CPU has AVX-512, as NumPy found out."""
    known: Any = np.show_config(mode="dicts")
    simd = known.get("SIMD Extensions", {})
    features = [*simd.get("baseline", ()), *simd.get("found", ())]
    return any(name.startswith("AVX512") or name == "X86_V4" for name in features)
