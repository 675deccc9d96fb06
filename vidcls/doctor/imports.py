"""Compiled packages, each tried in a process of its own, for ``vidcls doctor``.

One that is broken often does not raise but hangs or takes its process with it, and that is just what a person runs
the doctor for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROBE_TIMEOUT = 60.0  # seconds; torch's first import from a cold network disk takes tens
MARK = "vidcls-probe:"  # libraries print while they load; the answer is on the line that begins so

# Decoders that work without special hardware; FFmpeg's own "av1", for one, needs a graphics card.
CODECS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1"),
    "mpeg4": ("mpeg4",),
}


def _probe_numpy() -> dict[str, Any]:
    import numpy as np

    return {"version": np.__version__, "sum": int(np.arange(4).sum())}


def _probe_torch() -> dict[str, Any]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "name": about.name,
                "memory": about.total_memory,
                "capability": f"{about.major}.{about.minor}",
                "bf16": about.major >= 8,
            }
        )
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda_build": torch.version.cuda,
        "cuda": devices,
        "mps": torch.backends.mps.is_available(),
    }


def _probe_av() -> dict[str, Any]:
    import av
    from av.codec import Codec
    from av.error import FFmpegError

    decoders = []
    for name in (name for names in CODECS.values() for name in names):
        try:
            Codec(name, "r")
        except (FFmpegError, ValueError):
            continue
        decoders.append(name)
    libraries = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"version": av.__version__, "libraries": libraries, "decoders": decoders}


def _probe_decord() -> dict[str, Any]:
    import decord

    return {"version": decord.__version__}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": _probe_torch,
    "numpy": _probe_numpy,
    "av": _probe_av,
    "decord": _probe_decord,
}


def run_probe(name: str) -> None:
    """Import one package in this process and print what it reports, as a line that begins with ``MARK``."""
    try:
        answer = PROBES[name]()
    except Exception as error:  # whatever a broken package raises is the answer
        answer = {"error": f"cannot be imported ({type(error).__name__}: {error})"}
    print(MARK + json.dumps(answer), flush=True)


def start(name: str) -> subprocess.Popen[str]:
    """Begin to try a package, a key of `PROBES`, and return at once."""
    # The current folder must not be searched for packages: it is wherever the person keeps clips.
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p] + [sys.argv[1]]; "
        "from vidcls.doctor.imports import run_probe; run_probe(sys.argv[2])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parents[2]), name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for what `start` began; return what the package reports, or ``{"error": why not}``."""
    try:
        out, err = process.communicate(timeout=PROBE_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"its import does not end within {PROBE_TIMEOUT:.0f} s"}
    answers = [line.removeprefix(MARK) for line in out.splitlines() if line.startswith(MARK)]
    if answers:
        return json.loads(answers[-1])
    last = err.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    return {"error": f"its import ends the process ({last[0]})"}
