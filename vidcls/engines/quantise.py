"""Converted model → int8, by NNCF's post-training quantisation on the user's own clips."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.engines.openvino import HEAD, UNITS, WHOLE
from vidcls.errors import DependencyError


def quantise(parts: dict[str, Any], inputs: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """Quantise the part of a converted model that costs the most; the small head after units stays as it is.

    Weights and the inputs of matrix products become int8, in NNCF's mode for transformers.

    Args:
        parts: From `vidcls.engines.convert.convert`.
        inputs: What is seen while the ranges are chosen: views (1, 3, t, h, w), or units (1, 3, frames, h, w).

    Returns:
        The parts with one of them quantised; those given are left as they are.

    Raises:
        DependencyError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError:
        raise DependencyError("int8", "NNCF is not installed", "pip install 'vidcls[openvino]'") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    name = UNITS if UNITS in parts else WHOLE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NNCF's own deprecations
        smaller = nncf.quantize(
            parts[name].clone(),
            nncf.Dataset(list(inputs)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
        )
    return {name: smaller, **({HEAD: parts[HEAD]} if HEAD in parts else {})}
