"""What runs a model, chosen by name: plain PyTorch, ``torch.compile``, or OpenVINO. Imports no torch.

An engine takes views and gives logits, both as numpy arrays, so that no caller needs to know what is behind it.
`vidcls.engines.eager` holds the two of PyTorch, `vidcls.engines.openvino` runs converted models without importing
torch at all, `vidcls.engines.convert` makes them and `vidcls.engines.cache` keeps them.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import DependencyError, DeviceError

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
# A pixel x becomes x * factor + summand, each (3,), one number for a channel.
Affine = tuple[Floats, Floats]

ENGINES = ("auto", "eager", "compile", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


class Engine(Protocol):
    """One model made ready to run.

    Models whose spatial encoder sees few frames at a time have ``unit_frames`` > 0: what `encode` gives for each
    unit may be used by several views, and `classify` needs no more than these features.

    Attributes:
        name: Which engine this is.
        device: Where it runs, such as ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        unit_frames: Frames that the spatial encoder sees together, those of one tubelet or one frame; 0 for models
            in which all frames of a view meet at once.
    """

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def unit_frames(self) -> int: ...

    def prepare(self, dtype: np.dtype[Any], affine: Affine) -> None:
        """Do now what the first call on pixels of this type (uint8 or float32) would have to do."""

    def __call__(
        self,
        views: NDArray[Any],
        frame_indices: NDArray[np.int64] | None = None,
        affine: Affine | None = None,
    ) -> Floats:
        """Score views → logits (v, k).

        Args:
            views: (v, c, t, h, w) float32, normalised; or, with ``affine``, pixels (v, t, h, w, 3), uint8 or float32,
                which are normalised where the model runs.
            frame_indices: (v, t), for models that use them.
            affine: What makes numbers of pixels.

        Raises:
            DeviceError: The device ran out of memory.
        """
        ...

    def encode(self, units: NDArray[Any], affine: Affine | None = None) -> Floats:
        """Encode units (u, c, unit_frames, h, w), or pixels as above, → features (u, d)."""
        ...

    def classify(self, features: Floats, frame_indices: NDArray[np.int64] | None = None) -> Floats:
        """Score the features of the views' units (v, t', d) → logits (v, k)."""
        ...


class LazyEngine:
    """An engine that is made when it is first needed, so that clips can be read meanwhile.

    Args:
        make: Makes it.
        unit_frames: Of the engine that will be made.
    """

    def __init__(self, make: Callable[[], Engine], unit_frames: int) -> None:
        self._make = make
        self._engine: Engine | None = None
        self.unit_frames = unit_frames

    @property
    def engine(self) -> Engine:
        """The engine itself."""
        if self._engine is None:
            self._engine = self._make()
        return self._engine

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def device(self) -> str:
        return self.engine.device

    @property
    def precision(self) -> str:
        return self.engine.precision

    def prepare(self, dtype: np.dtype[Any], affine: Affine) -> None:
        self.engine.prepare(dtype, affine)

    def __call__(
        self,
        views: NDArray[Any],
        frame_indices: NDArray[np.int64] | None = None,
        affine: Affine | None = None,
    ) -> Floats:
        return self.engine(views, frame_indices, affine)

    def encode(self, units: NDArray[Any], affine: Affine | None = None) -> Floats:
        return self.engine.encode(units, affine)

    def classify(self, features: Floats, frame_indices: NDArray[np.int64] | None = None) -> Floats:
        return self.engine.classify(features, frame_indices)


def unit_frames(module: Any) -> int:
    """Frames that a model's spatial encoder sees together, 0 if it has none; see `Engine`."""
    if not hasattr(module, "encode_frames"):
        return 0
    tubelet = getattr(module.config, "tubelet_size", None)
    return 1 if tubelet is None else int(tubelet if isinstance(tubelet, int) else tubelet[0])


def choose_device(device: str = "auto") -> str:
    """Return the device that ``auto`` stands for here, or check the one that was asked for.

    Raises:
        DeviceError: It does not exist on this machine.
    """
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
        raise DeviceError(
            device, "no such CUDA device here", "use --device cpu; `vidcls doctor` lists devices"
        )
    if kind.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(device, "no Metal device here", "use --device cpu; `vidcls doctor` lists devices")
    if kind.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(device, "not a device that vidcls knows", "use auto, cpu, cuda, cuda:N or mps")
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


def check_names(engine: str, precision: str) -> None:
    """Refuse engines and precisions that there are not.

    Raises:
        DeviceError: There is no such engine or precision.
        DependencyError: The engine is not installed.
    """
    if precision not in PRECISIONS:
        raise DeviceError(precision, "no such precision", f"use one of {', '.join(PRECISIONS)}")
    if engine not in ENGINES:
        raise DeviceError(engine, "no such engine", f"use one of {', '.join(ENGINES)}")
    if precision == "int8" and engine not in ("auto", "openvino"):
        raise DeviceError("int8", f"the engine {engine} cannot do it", "use --engine openvino")
    if (engine == "openvino" or precision == "int8") and not has_openvino():
        raise DependencyError("OpenVINO", "is not installed", "pip install 'vidcls[openvino]'")


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


def choose_precision(precision: str, device: str) -> str:
    """Return the precision that ``auto`` stands for: exact fp32 on CPU and Metal, bf16 on CUDA devices that have it.

    Raises:
        DeviceError: There is no such precision, or the device cannot do it.
    """
    if precision not in PRECISIONS:
        raise DeviceError(precision, "no such precision", f"use one of {', '.join(PRECISIONS)}")
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

    Engines of OpenVINO come from `vidcls.engines.convert`, as they are kept from one run to the next.

    Raises:
        DeviceError: The device, the engine or the precision does not exist here, or memory ran out.
    """
    from vidcls.engines.eager import CompiledEngine, EagerEngine

    device = choose_device(device)
    precision = choose_precision(precision, device)
    if precision == "int8" or engine not in ("auto", "eager", "compile"):
        raise DeviceError(precision, f"not by the engine {engine}", "use eager or compile with fp32 or bf16")
    return (CompiledEngine if engine == "compile" else EagerEngine)(model, device, precision)
