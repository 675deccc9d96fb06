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

PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")


def quantize(parts: dict[str, Any], inputs: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
    """Quantize the part of a converted model that costs the most; the small head after units stays as it is.

    Weights and the inputs of matrix products become int8, in NNCF's mode for transformers. What reads the pixels stays
    as it is: filters that cancel brightness no longer do with weights of 8 bits. On the bundled model that is nine
    tenths of the error, and it is one or two hundredths of a transformer's work.

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
            ignored_scope=nncf.IgnoredScope(names=readers_of_pixels(parts[name])),
        )
    return {name: smaller, **({HEAD: parts[HEAD]} if HEAD in parts else {})}


def readers_of_pixels(model: Any) -> list[str]:
    """Names of the convolutions and matrix products that values of the input reach through no other."""
    found: set[str] = set()
    seen: set[str] = set()
    ahead = list(model.get_parameters())
    while ahead:
        node = ahead.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if name in seen or kind == "ShapeOf":
            continue
        seen.add(name)
        if kind in PRODUCTS:
            found.add(name)
        else:
            ahead += [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]
    return sorted(found)
