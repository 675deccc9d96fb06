"""Graphs that OpenVINO has compiled, kept on this machine so that the next process need not compile them again.

In ``compiled`` in the cache folder. A file holds the transformed graph without the weights, which are mapped from the
model's own ``.bin``; its name is a digest of that model's files, of what is computed and how, of OpenVINO and of the
CPU. OpenVINO trusts what it reads there, so only files are read that nobody but this user can have written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from vidcls.paths import cache_dir, engine_cache_limit, replacing

WITHOUT_WEIGHTS = {"CACHE_MODE": "OPTIMIZE_SIZE"}  # a setting of OpenVINO
MAX_BYTES = 64 << 20  # of one graph; those that were measured have less than 2 MiB
MAX_KEPT = 64
_DIGEST = hashlib.sha256().digest_size
_OTHERS_WRITE = 0o022


class KeptGraph:
    """The place of one compiled graph in the cache.

    Args:
        core: OpenVINO's core.
        part: The graph's ``.xml``, beside which its ``.bin`` lies.
        settings: What it is compiled with.
        variant: What was changed in it before.
    """

    def __init__(self, core: Any, part: Path, settings: Mapping[str, Any], variant: Any) -> None:
        self._core = core
        self._weights = part.with_suffix(".bin")
        self._settings = dict(settings)
        known = {
            "openvino": _version(),
            "cpu": [
                core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
            ],
            "files": [(str(file.resolve()), *_identity(file)) for file in (part, self._weights)],
            "settings": self._settings,
            "variant": variant,
        }
        self._too_large = False
        self._key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).digest()
        self.path = cache_dir() / "compiled" / f"{self._key.hex()[:40]}.graph"

    def load(self) -> Any:
        """Return the compiled graph; None where there is none that is whole, ours and fits."""
        graph = _read_own(self.path)
        if graph is None or graph[:_DIGEST] != self._digest(graph[_DIGEST:]):
            return None
        self._too_large = len(graph) == _DIGEST
        if self._too_large:
            return None
        settings = {**self._settings, "WEIGHTS_PATH": str(self._weights)}
        try:
            found = self._core.import_model(io.BytesIO(graph[_DIGEST:]), "CPU", settings)
        except (RuntimeError, TypeError):  # what another OpenVINO wrote, or what this one cannot read
            return None
        with contextlib.suppress(OSError):
            os.utime(self.path)
        return found

    def save(self, compiled: Any) -> None:
        """Keep a compiled graph; where that is not possible, the next process compiles it again."""
        with contextlib.suppress(OSError, RuntimeError, TypeError):
            if self._too_large:
                return
            stream = io.BytesIO()
            compiled.export_model(stream)
            # One that holds weights after all is no faster to read than to compile; the empty one says so.
            graph = stream.getvalue() if stream.getbuffer().nbytes <= MAX_BYTES else b""
            folder = self.path.parent
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(self._digest(graph) + graph)
            files = sorted(folder.glob("*.graph"), key=lambda file: file.stat().st_mtime)
            for file in files[:-MAX_KEPT]:
                file.unlink(missing_ok=True)

    def _digest(self, graph: bytes) -> bytes:
        return hashlib.sha256(self._key + graph).digest()


def can_keep(core: Any) -> bool:
    """Whether this OpenVINO can write a compiled graph without its weights."""
    return "WEIGHTS_PATH" in core.get_property("CPU", "SUPPORTED_PROPERTIES") and engine_cache_limit() > 0


def _version() -> str:
    import openvino

    return str(openvino.get_version())


def _identity(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _read_own(path: Path) -> bytes | None:
    """Return a small file's content; None where it cannot be read, or another user could have written it."""
    try:
        if not _is_own(os.lstat(path.parent)):
            return None
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            allowed = S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES + _DIGEST and _is_own(status)
            return file.read(MAX_BYTES + _DIGEST) if allowed else None
    except OSError:
        return None


def _is_own(status: os.stat_result) -> bool:
    """Whether a file or folder is this user's and nobody else may write it; Windows keeps that by its own rules."""
    if not S_ISREG(status.st_mode) and not S_ISDIR(status.st_mode):
        return False
    return os.name != "posix" or (status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE)
