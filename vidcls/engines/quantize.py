"""Converted model → int8, by NNCF's post-training quantization on the user's own clips."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.openvino import HEAD, UNITS, WHOLE
from vidcls.errors import needing


def quantize(parts: dict[str, Any], inputs: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """Quantize the part of a converted model that costs the most; the small head after units stays as it is.

    Weights and the inputs of matrix products become int8, in NNCF's mode for transformers.

    Args:
        parts: From `vidcls.engines.export.convert`.
        inputs: What is seen while the ranges are chosen: views (1, 3, t, h, w), or units (1, 3, frames, h, w).

    Returns:
        The parts with one of them quantized; those given are left as they are.

    Raises:
        DependencyError: NNCF is not installed.
    """
    # NNCF looks for compilers that nobody needs here, says so, and draws its bars on stdout, which is for data.
    for name in ("nncf", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    watched = sys.stderr.isatty()
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(sys.stderr if watched else nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of NNCF's own deprecations
        with needing("int8", "NNCF is not installed", "pip install 'vidcls[openvino]'"):
            import nncf
        name = UNITS if UNITS in parts else WHOLE
        smaller = nncf.quantize(
            parts[name].clone(),
            nncf.Dataset(list(inputs)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
        )
    return {name: smaller, **({HEAD: parts[HEAD]} if HEAD in parts else {})}
