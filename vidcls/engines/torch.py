"""PyTorch, one operation after the other, or compiled by ``torch.compile``."""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidcls.engines.base import Array, Floats, Indices, ScaleShift, unit_frames
from vidcls.errors import DeviceError, first_line

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def cpu_has_bf16() -> bool:
    """Whether bfloat16 may pay on this CPU: on x86, not below AVX-512; elsewhere it is not known, and taken for so."""
    below = ("DEFAULT", "NO AVX", "AVX2")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not (x86 and torch.backends.cpu.get_cpu_capability() in below)


class EagerEngine:
    """Plain PyTorch, one operation after the other.

    Args:
        model: (b, c, t, h, w) → (b, k), in eval mode.
        device: Device on which it runs.
        precision: Under ``bf16`` and ``fp16`` the whole model runs in that type and logits come back as float32.

    Attributes:
        module: The model, on the device and in the precision.

    Raises:
        DeviceError: The device ran out of memory.
    """

    name = "eager"

    def __init__(self, model: torch.nn.Module, device: str, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.unit_frames = unit_frames(model)
        self._dtype = DTYPES[precision]
        with _device_errors(device):
            self.module = model.eval().to(device=device, dtype=self._dtype)
        self._forward: Callable[..., Tensor] = self.module
        self._encode: Callable[..., Tensor] = getattr(self.module, "encode_frames", self.module)
        self._classify: Callable[..., Tensor] = getattr(self.module, "classify", self.module)

    def prepare(self, dtype: np.dtype[Any], scale_shift: ScaleShift) -> None:
        """There is nothing to prepare."""

    def __call__(
        self, views: Array, frame_indices: Indices | None = None, scale_shift: ScaleShift | None = None
    ) -> Floats:
        with _device_errors(self.device), torch.inference_mode():
            return self._back(self._forward(self._batch(views, scale_shift), **self._indices(frame_indices)))

    def encode(self, units: Array, scale_shift: ScaleShift | None = None) -> Floats:
        with _device_errors(self.device), torch.inference_mode():
            return self._back(self._encode(self._batch(units, scale_shift))[:, 0])

    def classify(self, features: Floats, frame_indices: Indices | None = None) -> Floats:
        with _device_errors(self.device), torch.inference_mode():
            sent = self._send(features).to(self._dtype)
            return self._back(self._classify(sent, **self._indices(frame_indices)))

    def _indices(self, frame_indices: Indices | None) -> dict[str, Tensor]:
        return {} if frame_indices is None else {"frame_indices": self._send(frame_indices)}

    def _batch(self, views: NDArray[Any], scale_shift: ScaleShift | None) -> Tensor:
        """Bring views to the device, and make numbers of pixels there: four times less to send."""
        sent = self._send(views)
        if scale_shift is None:
            return sent.to(self._dtype)
        scale, shift = (self._send(part)[:, None, None, None] for part in scale_shift)
        planes = sent.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
        if planes.data_ptr() == sent.data_ptr():
            planes = planes.clone()
        return planes.mul_(scale).add_(shift).to(self._dtype)

    def _send(self, array: NDArray[Any]) -> Tensor:
        array = np.ascontiguousarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if self.device.startswith("cuda"):
            # From pinned memory the copy runs beside what the device is doing.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    @staticmethod
    def _back(result: Tensor) -> Floats:
        return result.float().cpu().numpy()


class CompiledEngine(EagerEngine):
    """PyTorch through ``torch.compile``: faster after a first call that takes up to a minute.

    On CUDA devices the kernels are replayed as CUDA graphs, which pays where they are small.

    Raises:
        DeviceError: There is no C++ compiler, or the device ran out of memory.
    """

    name = "compile"

    def __init__(self, model: torch.nn.Module, device: str, precision: str) -> None:
        compilers = ("cl",) if sys.platform == "win32" else ("c++", "g++", "clang++")
        if device == "cpu" and not any(shutil.which(name) for name in compilers):
            raise DeviceError(
                "compile", "torch.compile needs a C++ compiler here", "install g++, or use engine=eager"
            )
        super().__init__(model, device, precision)
        mode = "reduce-overhead" if device.startswith("cuda") else None
        self._forward = torch.compile(self._forward, mode=mode)
        self._encode = torch.compile(self._encode, mode=mode)
        self._classify = torch.compile(self._classify, mode=mode)


# What PyTorch raises where a device is at fault; the second is there from 2.8 on.
_DEVICE_FAULTS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


@contextlib.contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Turn PyTorch's errors of a device into vidcls's own.

    Raises:
        DeviceError: Memory ran out, the device failed, or torch.compile could not compile the model.
    """
    try:
        yield
    except RuntimeError as error:
        first = first_line(error)
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in first:
            remedy = "use fewer views, a smaller batch or a smaller model"
            raise DeviceError(device, "out of memory", remedy) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            remedy = "use engine=eager, or another release of PyTorch"
            raise DeviceError("compile", f"torch.compile failed ({first})", remedy) from error
        if isinstance(error, _DEVICE_FAULTS):
            raise DeviceError(device, f"failed ({first})", "try device=cpu") from error
        raise
