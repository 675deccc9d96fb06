"""ONNX Runtime: runs exported ONNX models on the CPU, without importing torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.base import Floats, asked_threads
from vidcls.engines.whole_graph import GraphFacts, WholeGraphEngine
from vidcls.errors import DeviceError, first_line, needing


class OnnxRuntimeEngine(WholeGraphEngine):
    """An ONNX model on the CPU; see `WholeGraphEngine` for the arguments.

    Raises:
        DependencyError: ONNX Runtime is not installed.
        DeviceError: It cannot run the model.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, precision: str, facts: GraphFacts) -> None:
        super().__init__(path, precision, facts)
        with needing("ONNX Runtime", "is not installed", "pip install 'vidcls[onnx]'"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads := asked_threads():
            options.intra_op_num_threads = threads
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
        return DeviceError("ONNX Runtime", first_line(error), f"export {self._path.parent} again")
