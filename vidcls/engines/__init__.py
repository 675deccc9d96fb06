"""What runs a model, chosen by name. Imports no torch.

An engine takes views and gives logits, both as numpy arrays, so that no caller needs to know what is behind it. To add
one: a class here that does what `vidcls.engines.base.Engine` says, a line in `ENGINES`, and a line in
`vidcls.engines.select`, which decides what ``auto`` takes.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vidcls.engines.base import Engine, Floats, LazyEngine, ScaleShift, lazy, unit_frames
from vidcls.errors import DependencyError, DeviceError

if TYPE_CHECKING:
    import torch

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Engine",
    "EngineKind",
    "Floats",
    "LazyEngine",
    "ScaleShift",
    "check_names",
    "choose_device",
    "choose_precision",
    "is_installed",
    "lazy",
    "make_engine",
    "surely_cpu",
    "unit_frames",
]


@dataclass(frozen=True)
class EngineKind:
    """One way to run a model.

    Attributes:
        about: What it is, in a few words.
        precisions: What it can compute in.
        package: What must be installed for it besides vidcls.
        extra: The extra of vidcls that brings this.
    """

    about: str
    precisions: tuple[str, ...]
    package: str = ""
    extra: str = ""


ENGINES: dict[str, EngineKind] = {
    "eager": EngineKind("plain PyTorch", ("fp32", "bf16", "fp16")),
    "compile": EngineKind("PyTorch through torch.compile", ("fp32", "bf16", "fp16")),
    "openvino": EngineKind("OpenVINO on the CPU", ("fp32", "bf16", "fp16", "int8"), "openvino", "openvino"),
    "onnxruntime": EngineKind(
        "ONNX Runtime on the CPU, for exported models", ("fp32", "fp16"), "onnxruntime", "onnx"
    ),
    "pt2": EngineKind("torch.export on the CPU, for exported models", ("fp32", "bf16", "fp16")),
    "numpy": EngineKind("NumPy alone, for small factorized encoders", ("fp32",)),
}
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


def check_names(engine: str, precision: str) -> None:
    """Refuse engines and precisions that do not exist, ``auto`` aside.

    Raises:
        DeviceError: There is no such engine or precision.
        DependencyError: The engine is not installed.
    """
    if precision not in ("auto", *PRECISIONS):
        raise DeviceError(precision, "no such precision", f"use auto or one of {', '.join(PRECISIONS)}")
    if engine not in ("auto", *ENGINES):
        raise DeviceError(engine, "no such engine", f"use auto or one of {', '.join(ENGINES)}")
    if engine == "auto":
        return
    kind = ENGINES[engine]
    if precision not in ("auto", *kind.precisions):
        able = [name for name, other in ENGINES.items() if precision in other.precisions]
        raise DeviceError(precision, f"the engine {engine} cannot do it", f"use engine={' or '.join(able)}")
    if kind.package and not is_installed(kind.package):
        raise DependencyError(
            engine, f"{kind.package} is not installed", f"pip install 'vidcls[{kind.extra}]'"
        )


def is_installed(package: str) -> bool:
    """Whether a package is there; it is not imported."""
    return find_spec(package) is not None


def choose_device(device: str = "auto") -> str:
    """Return the device that ``auto`` stands for, or the one asked for; a DeviceError where there is none."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise DeviceError(device, "not a device", "use auto, cpu, cuda, cuda:N or mps") from None
    if kind.type == "cuda" and not (
        torch.cuda.is_available() and (kind.index or 0) < torch.cuda.device_count()
    ):
        raise DeviceError(device, "no such CUDA device here", "use device=cpu; `vidcls doctor` lists devices")
    if kind.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(device, "no Metal device here", "use device=cpu; `vidcls doctor` lists devices")
    if kind.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(device, "not a device that vidcls can use", "use auto, cpu, cuda, cuda:N or mps")
    return device


def surely_cpu(device: str) -> bool:
    """Whether ``device`` can only come to ``cpu``, told without importing torch; in doubt, False."""
    if device != "auto":
        return device == "cpu"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return True
    if sys.platform == "darwin":
        return platform.machine() != "arm64"
    if sys.platform == "win32":
        driver = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll")
        return not driver.exists()
    return not any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


def choose_precision(precision: str, device: str) -> str:
    """Return the precision that ``auto`` stands for: exact fp32 on CPU and Metal, bf16 on CUDA devices that have it.

    Raises:
        DeviceError: The device cannot do it.
    """
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        import torch

        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "fp32"


def make_engine(
    model: torch.nn.Module, device: str = "auto", precision: str = "auto", engine: str = "auto"
) -> Engine:
    """Make ``model`` ready to run on ``device`` in ``precision``, by PyTorch; ``auto`` is ``eager`` here.

    Engines of OpenVINO come from `vidcls.engines.export`, as they are kept from one run to the next.

    Raises:
        DeviceError: The device, the engine or the precision does not exist here, or memory ran out.
    """
    from vidcls.engines.torch import CompiledEngine, EagerEngine

    device = choose_device(device)
    precision = choose_precision(precision, device)
    if precision == "int8" or engine not in ("auto", "eager", "compile"):
        raise DeviceError(precision, f"not by the engine {engine}", "use eager or compile with fp32 or bf16")
    return (CompiledEngine if engine == "compile" else EagerEngine)(model, device, precision)
