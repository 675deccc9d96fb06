"""ONNX Runtime: runs exported ONNX models on the CPU, without importing torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.base import Floats
from vidcls.engines.whole_graph import GraphFacts, WholeGraphEngine
from vidcls.errors import DependencyError, DeviceError


class OnnxRuntimeEngine(WholeGraphEngine):
    """An ONNX model on the CPU.

    Args:
        path: The ``.onnx`` file.
        precision: See `WholeGraphEngine`, like the next.
        facts: See `WholeGraphEngine`.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        DeviceError: It cannot run the model.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, precision: str, facts: GraphFacts) -> None:
        super().__init__(path, precision, facts)
        try:
            import onnxruntime
        except ImportError:
            raise DependencyError("ONNX Runtime", "is not installed", "pip install 'vidcls[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if threads.isdecimal() and int(threads) > 0:
            options.intra_op_num_threads = int(threads)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no base of their own
            raise self._broken(error) from error
        self._inputs = [part.name for part in self._session.get_inputs()]

    def _run(self, inputs: list[NDArray[Any]]) -> Floats:
        try:
            logits = self._session.run(None, dict(zip(self._inputs, inputs, strict=False)))[0]
        except Exception as error:
            raise self._broken(error) from error
        return np.asarray(logits, dtype=np.float32)

    def _broken(self, error: Exception) -> DeviceError:
        first = str(error).strip().partition("\n")[0][:300]
        return DeviceError("ONNX Runtime", first, f"export {self._path.parent} again")
