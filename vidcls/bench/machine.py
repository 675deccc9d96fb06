"""What machine this is: names, memory, and the fastest matrix product it does."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vidcls.bench.timing import measure
from vidcls.doctor.machine import instructions, processor

PACKAGES = ("vidcls", "torch", "openvino", "nncf", "transformers", "numpy", "av", "decord")


def describe() -> dict[str, Any]:
    """Return what a figure depends on: processor, cores, load, versions."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": found,
    }


def peak_memory(device: str = "cpu") -> int | None:
    """Return the most bytes that this process has held: of the device's memory, or of the machine's."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        try:
            import psutil
        except ImportError:
            return None
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_matmul(device: str, precision: str, seconds: float = 4.0) -> float | None:
    """Return the best rate of a matrix product in 10⁹ floating-point operations a second.

    The product is that of a transformer's linear layer, (n, d) × (d, 4 d), in two sizes, as either may suit the caches
    better; each multiply-add counts as two. None for int8, which PyTorch's products do not do.
    """
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        return None
    rates = []
    for size in (4096, 8192) if device.startswith("cuda") else (1024, 2048):
        left = torch.randn(size, size // 2, device=device).to(dtypes[precision])
        layer = torch.nn.Linear(size // 2, 2 * size, bias=False, device=device, dtype=dtypes[precision])
        with torch.inference_mode():
            timing = measure(
                lambda: layer(left),  # noqa: B023 - called within this turn
                wait=synchronizer(device),
                spread=0.0,
                seconds=seconds / 2,
                warm_up=3,
            )
        rates.append(2 * size * (size // 2) * (2 * size) / timing.best / 1e9)
    return max(rates)


def synchronizer(device: str) -> Any:
    """Return a function that waits until a device has done its work."""
    import torch

    if device.startswith("cuda"):
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device == "mps" else (lambda: None)
