"""Programs of ``torch.export`` on the CPU, run by PyTorch without the model's Python code.

`torch.export.load` unpickles and evaluates what a file holds, so that a stranger's file could run anything. vidcls
loads programs that it exported on this machine, which it knows by their checksums, and others only when told to.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from vidcls.engines.base import Floats
from vidcls.engines.whole_graph import GraphFacts, WholeGraphEngine
from vidcls.errors import CheckpointError, DeviceError, first_line
from vidcls.paths import cache_dir, write_text
from vidcls.zoo.weights import sha256_of

TRUST_VARIABLE = "VIDCLS_TRUST_PT2"
_MAX_TRUSTED = 1000


class ProgramEngine(WholeGraphEngine):
    """An exported program on the CPU; see `WholeGraphEngine` for the arguments.

    Raises:
        CheckpointError: The file is not trusted.
        DeviceError: PyTorch cannot load it.
    """

    name = "pt2"

    def __init__(self, path: Path, precision: str, facts: GraphFacts) -> None:
        super().__init__(path, precision, facts)
        check_trust(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own deprecations
                self._module = torch.export.load(str(path)).module()
        except Exception as error:  # anything may come of a file of another version
            raise DeviceError("torch.export", first_line(error), f"export {path.parent} again") from error

    def _run(self, inputs: list[NDArray[Any]]) -> Floats:
        with torch.no_grad():
            tensors = [torch.from_numpy(x if x.flags.writeable else x.copy()) for x in inputs]
            logits: Floats = self._module(*tensors).numpy()
        return logits


def check_trust(path: Path) -> None:
    """Refuse a program that was not exported on this machine, unless the person trusts it; raises CheckpointError."""
    if os.environ.get(TRUST_VARIABLE) == "1" or sha256_of(path) in _trusted():
        return
    raise CheckpointError(
        str(path),
        "was not exported on this machine, and loading such a file can run any code in it",
        f"if you trust whoever made it, set {TRUST_VARIABLE}=1; else use their safetensors or ONNX file",
    )


def trust(path: Path) -> None:
    """Take note that a program was exported on this machine; an OSError where that cannot be noted."""
    noted = [digest for digest in _trusted() if digest != sha256_of(path)]
    _list().parent.mkdir(parents=True, exist_ok=True)
    write_text(_list(), "\n".join([*noted[1 - _MAX_TRUSTED :], sha256_of(path)]) + "\n")


def _trusted() -> list[str]:
    try:
        return _list().read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []


def _list() -> Path:
    return cache_dir() / "models" / "trusted-pt2.txt"
