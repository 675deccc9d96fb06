"""Which engine runs a model, and getting it: from the cache, or by making it. Imports no torch until it must.

``auto`` takes the fastest engine that does not change answers:

- on a CUDA device: eager PyTorch in bf16; on Metal: eager PyTorch in fp32;
- on a CPU: fp32. By NumPy, if the model is small and the clips so few that they take less time than importing torch;
  by OpenVINO where it is installed and either the converted model is in the cache or the clips that were announced
  save at least twice what converting costs; else by eager PyTorch.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidcls.config import InputSpec
from vidcls.engines import (
    Engine,
    LazyEngine,
    choose_device,
    choose_precision,
    has_openvino,
    make_engine,
    numpy_vivit,
    surely_cpu,
)
from vidcls.engines.cache import Entry, entries, find, store
from vidcls.errors import DeviceError
from vidcls.zoo.facts import CheckpointFacts

if TYPE_CHECKING:
    from torch import nn

# Seconds that OpenVINO saves on 10⁹ multiply-adds against eager PyTorch, both in fp32 on one core (measured with
# ViViT-FE on two cores: 3.0 s and 1.25 s for 283 GMACs), and what converting costs: the same for all, and for each
# million parameters that are converted, checked and written.
SAVED = 0.0124
FIXED_COST = 6.0
COST_PER_MILLION = 0.02
# Converting must save this many times its cost: what the clips will take is only an estimate.
MARGIN = 2.0


@dataclass(frozen=True)
class EngineRequest:
    """What was asked for.

    Attributes:
        engine: One of `vidcls.engines.ENGINES`.
        device: As in `vidcls.inference.load.load`.
        precision: One of `vidcls.engines.PRECISIONS`.
        clips: Clips that will be scored, None where that is not known.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    clips: int | None = None


def numpy_engine(
    facts: CheckpointFacts, view: InputSpec, request: EngineRequest, path: Path | None
) -> Engine | None:
    """Return NumPy's engine if it is the one to take; else None. Imports no torch."""
    if path is None or request.engine not in ("auto", "numpy") or request.precision not in ("auto", "fp32"):
        return None
    if request.engine == "auto":
        if request.clips is None or "torch" in sys.modules or not surely_cpu(request.device):
            return None
    elif request.device not in ("auto", "cpu"):
        return None
    if not numpy_vivit.can_run(facts.spec.architecture, facts.config):
        return None
    if request.engine == "auto":
        views = view.num_views * view.num_crops * (request.clips or 1)
        units = views * view.num_frames // facts.unit_frames
        if numpy_vivit.macs(facts.config, units, views) > numpy_vivit.MAX_MACS:
            return None
    tensors = numpy_vivit.read_tensors(path, facts.config)
    return None if tensors is None else numpy_vivit.NumpyViViTEngine(tensors, facts.config)


def cached_engine(facts: CheckpointFacts, view: InputSpec, request: EngineRequest) -> Engine | None:
    """Return the engine if it lies converted in the cache and is the one to take; else None. Imports no torch."""
    if request.engine not in ("auto", "openvino") or facts.weights is None or not has_openvino():
        return None
    if not (surely_cpu(request.device) or (request.device == "auto" and request.engine == "openvino")):
        return None
    storage = "int8" if request.precision == "int8" else "f32"
    entry = find(facts.recipe(view, facts.weights, storage).key())
    if entry is None:
        return None
    precision = "fp32" if request.precision == "auto" else request.precision
    return LazyEngine(lambda: entry.engine(precision), facts.unit_frames)


def make_engine_for(
    module: nn.Module,
    facts: CheckpointFacts,
    view: InputSpec,
    request: EngineRequest,
    path: Path | None,
    learned: Callable[[CheckpointFacts], None],
) -> Engine:
    """Choose the engine and make it of a module that is in memory.

    Args:
        module: The model, float32, on the CPU.
        facts: What is known of its checkpoint.
        view: How it sees a video.
        request: What was asked for.
        path: The checkpoint; None for random weights.
        learned: Takes what was learned of the checkpoint here: its checksum.

    Raises:
        DeviceError: The device, or the precision on it, does not exist here.
        DependencyError: OpenVINO was asked for and is not installed.
    """
    device = choose_device(
        "cpu" if request.engine == "openvino" and request.device == "auto" else request.device
    )
    precision = choose_precision(request.precision, device)
    chosen = request.engine
    if chosen == "numpy":
        return small_engine_of(module, device)
    if precision == "int8":
        chosen = "openvino"
    if chosen == "openvino" and device != "cpu":
        raise DeviceError(device, "OpenVINO runs on the CPU here", "use --device cpu, or --engine eager")
    if chosen == "auto" and (device != "cpu" or precision == "fp16" or not has_openvino()):
        chosen = "eager"
    if chosen in ("eager", "compile"):
        return make_engine(module, device, precision, chosen)
    if chosen == "auto" and not (worth_it(module, view, request.clips) or entries()):
        return make_engine(module, device, precision, "eager")
    facts = with_checksum(facts, path)
    learned(facts)
    storage = "int8" if precision == "int8" else "f32"
    entry = None if facts.weights is None else find(facts.recipe(view, facts.weights, storage).key())
    if entry is not None:
        return entry.engine(precision)
    if precision == "int8":
        raise DeviceError(
            facts.spec.name, "there is no int8 model of it yet", "make it with `vidcls quantize CLIP...`"
        )
    if chosen == "auto" and not worth_it(module, view, request.clips):
        return make_engine(module, device, precision, "eager")
    try:
        return converted_engine(module, facts, view, precision)
    except DeviceError:
        if chosen == "openvino":
            raise
        return make_engine(module, device, precision, "eager")


def small_engine_of(module: nn.Module, device: str) -> Engine:
    """NumPy's engine for a module that is in memory.

    Raises:
        DeviceError: It cannot run this model, or not there.
    """
    from vidcls.zoo.facts import plain_config

    architecture, config = str(module.architecture), plain_config(module)
    if device != "cpu" or not numpy_vivit.can_run(architecture, config):
        raise DeviceError(
            "numpy", "runs factorized encoders with the tanh GELU, on the CPU", "use --engine eager"
        )
    return numpy_vivit.NumpyViViTEngine(
        {k: v.float().numpy() for k, v in module.state_dict().items()}, config
    )


def with_checksum(facts: CheckpointFacts, path: Path | None) -> CheckpointFacts:
    """Return the facts with the weights' checksum, computed if need be."""
    if facts.weights is not None or path is None:
        return facts
    from vidcls.zoo.weights import checksum

    return replace(facts, weights=checksum(path))


def worth_it(module: nn.Module, view: InputSpec, clips: int | None) -> bool:
    """Whether converting would save time on the clips announced; an unknown number counts as one."""
    from vidcls.models.count import count_architecture

    architecture: Any = module.architecture
    from vidcls.zoo.facts import plain_config

    counted = count_architecture(architecture, plain_config(module), view.num_frames, view.image_size)
    gmacs = counted.macs / 1e9 * view.num_views * view.num_crops * (clips or 1)
    saved = gmacs * SAVED / (os.cpu_count() or 1)
    return saved > MARGIN * (FIXED_COST + COST_PER_MILLION * counted.params / 1e6)


def converted_engine(module: nn.Module, facts: CheckpointFacts, view: InputSpec, precision: str) -> Engine:
    """Convert a module, check it, and keep it in the cache where it has weights of its own.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: The model cannot be converted, or its logits are not those of PyTorch.
    """
    from vidcls.engines.export import check, convert
    from vidcls.engines.openvino import OpenVINOEngine

    start = time.perf_counter()
    talk(f"{facts.spec.name}: converting to OpenVINO")
    parts = convert(module, view.num_frames, view.image_size)
    talk(f"{facts.spec.name}: checking against PyTorch")
    exact = OpenVINOEngine(parts, "fp32", facts.unit_frames)
    error = check(module, exact, view.num_frames, view.image_size)
    entry = None if facts.weights is None else keep(facts, view, parts, error)
    took = time.perf_counter() - start
    place = "in memory only" if entry is None else f"kept in {entry.folder}"
    talk(
        f"{facts.spec.name}: converted in {took:.1f} s, logits within {error:.1g} of PyTorch, {place}",
        end="\n",
    )
    if entry is not None:
        return entry.engine(precision)
    return exact if precision == "fp32" else OpenVINOEngine(parts, precision, facts.unit_frames)


def keep(
    facts: CheckpointFacts, view: InputSpec, parts: dict[str, Any], error: float, storage: str = "f32"
) -> Entry | None:
    """Put a converted model into the cache; None where the disk does not let it be kept."""
    assert facts.weights is not None
    recipe = facts.recipe(view, facts.weights, storage)

    def write(folder: Path) -> None:
        import openvino

        for name, part in parts.items():
            openvino.save_model(part, folder / f"{name}.xml", compress_to_fp16=False)

    meta = {"unit_frames": facts.unit_frames, "error": error, "source": facts.source, **vars(recipe)}
    return store(recipe.key(), write, meta)


def talk(text: str, end: str = "") -> None:
    """Say how far the making of an engine is, where a person watches."""
    if sys.stderr.isatty():
        clean = "".join(c if c.isprintable() else " " for c in text)
        print(f"\r\x1b[K{clean}", end=end, file=sys.stderr, flush=True)
