"""What this machine is: its processor, cores and memory, as far as the system says it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# Instruction sets that decide the speed.
INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "sve",
)


def processor() -> str:
    """Return the processor's name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Return which of ``INSTRUCTIONS`` the processor has; none where the system does not say."""
    found = _cpuinfo()
    flags = set((found.get("flags") or found.get("features") or "").lower().split())
    return [name for name in INSTRUCTIONS if name in flags]


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo, by key in lower case; only Linux has it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
