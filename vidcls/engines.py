"""What runs a model: one small callable each, chosen by name.

An engine takes views and gives logits, both as numpy arrays, so that no caller needs to know what is behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import DeviceError

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Engine(Protocol):
    """One model made ready to run.

    Attributes:
        name: Which engine this is.
        device: Where it runs, such as ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    name: str
    device: str
    precision: str

    def __call__(self, views: Floats, frame_indices: NDArray[np.int64] | None = None) -> Floats:
        """Score views (v, c, t, h, w) → logits (v, k); ``frame_indices`` is (v, t) for models that use them."""
        ...


class EagerEngine:
    """Plain PyTorch, one operation after the other.

    Args:
        model: (b, c, t, h, w) → (b, k), in eval mode.
        device: Device on which it runs.
        precision: Under ``bf16`` and ``fp16`` the whole model runs in that type and logits come back as float32.
    """

    name = "eager"

    def __init__(self, model: torch.nn.Module, device: str, precision: str) -> None:
        import torch

        self.device = device
        self.precision = precision
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        try:
            self._model = model.eval().to(device=device, dtype=self._dtype)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(device) from error

    def __call__(self, views: Floats, frame_indices: NDArray[np.int64] | None = None) -> Floats:
        """Score views; see ``Engine``.

        Raises:
            DeviceError: The device ran out of memory.
        """
        import torch

        try:
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(views)).to(self.device, self._dtype)
                if frame_indices is None:
                    logits = self._model(batch)
                else:
                    logits = self._model(batch, frame_indices=torch.from_numpy(frame_indices).to(self.device))
                result: Floats = logits.float().cpu().numpy()
                return result
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(self.device) from error


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


def make_engine(model: torch.nn.Module, device: str = "auto", precision: str = "auto") -> Engine:
    """Make ``model`` ready to run on ``device`` in ``precision``.

    Raises:
        DeviceError: The device or the precision does not exist here, or memory ran out.
    """
    device = choose_device(device)
    return EagerEngine(model, device, choose_precision(precision, device))


def _out_of_memory(device: str) -> DeviceError:
    return DeviceError(device, "out of memory", "use fewer --views, a smaller --batch or a smaller model")
