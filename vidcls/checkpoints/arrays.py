"""NumPy arrays as they lie in npz and msgpack files, to torch tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_claim(shape: Sequence[int], dtype: np.dtype[Any], size: int) -> None:
    """Hold a claimed shape against the bytes that are there, before memory is taken for it.

    Args:
        shape: As the file claims it.
        dtype: Element type.
        size: Bytes of data in the file.

    Raises:
        ValueError: A dimension is not a natural number, or the bytes are more or fewer than the shape needs.
    """
    if len(shape) > 16 or any(type(n) is not int or not 0 <= n < 2**48 for n in shape):
        raise ValueError(f"impossible shape {str(tuple(shape))[:80]}")
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(
            f"shape {tuple(shape)} of {dtype.name} needs other than the {size} bytes that follow"
        )


def array_to_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Copy an array of numbers into a tensor of the same type.

    NumPy has no bfloat16: files hold it as raw two-byte records (``V2``), which is what JAX writes.

    Raises:
        TypeError: The array holds anything but numbers.
    """
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:
        return torch.from_numpy(array.copy().view(np.int16)).view(torch.bfloat16).reshape(array.shape)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"holds {array.dtype.name}, not numbers")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
