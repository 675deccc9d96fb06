"""Flax's msgpack files: a tree of maps with arrays as extension types.

Source of the layout: flax ``serialization.py`` (extension codes 1 ndarray, 2 complex, 3 NumPy scalar; arrays
over 1 GiB in chunks). The tree is walked with msgpack's streaming reader, so that the optimizer's state, as
large as the model and more, is stepped over without being built, and each claim is bounded.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor

from vidcls.checkpoints.arrays import array_to_tensor, check_claim
from vidcls.errors import CheckpointError

MAX_NODES = 200_000
MAX_DEPTH = 32
MAX_KEY = 512  # characters
MAX_NAME = (
    2048  # of a name, all its keys together: one chain of long keys would be copied into each name below
)
CHUNKED = "__msgpack_chunked_array__"
# Parts of a training state that inference has no use for. Momentum alone is as large as the model.
SKIPPED = frozenset(
    {("opt_state",), ("optimizer", "state"), ("opt", "state"), ("rng",), ("model_state",), ("metadata",)}
)

_EXT_TAGS = frozenset({*range(0xC7, 0xCA), *range(0xD4, 0xD9)})
_STR_TAGS = frozenset({*range(0xA0, 0xC0), *range(0xD9, 0xDC)})
_NUMBER_TAGS = frozenset({*range(0x80), *range(0xE0, 0x100), 0xC2, 0xC3, *range(0xCA, 0xD4)})


def read_msgpack(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the arrays of a flax msgpack file, optimizer state left out.

    Returns:
        Flat ``a/b/c`` → tensor, and flat name → number or string for everything else.

    Raises:
        CheckpointError: The file is damaged, or claims what its bytes do not hold.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walker = _Walker(data)
        try:
            walker.value((), 0)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, msgpack.UnpackException) as error:
            reason = "the file ends too early" if isinstance(error, msgpack.OutOfData) else str(error)
            raise CheckpointError(
                str(path), f"damaged msgpack file ({reason[:200]})", "fetch it again"
            ) from error
    if not walker.tensors:
        raise CheckpointError(
            str(path), "a msgpack file without arrays", "give the checkpoint that scenic saved"
        )
    return walker.tensors, walker.meta


class _Walker:
    """Depth-first reader; ``tensors`` and ``meta`` fill as it goes."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.tensors: dict[str, Tensor] = {}
        self.meta: dict[str, Any] = {}
        self.order: list[str] = []  # of the arrays, as they come; those of a map lie side by side
        self.nodes = 0
        self.unpacker = msgpack.Unpacker(
            data,
            raw=False,
            ext_hook=_decode_extension,
            max_buffer_size=0,
            read_size=1 << 20,
            max_str_len=1 << 20,
            max_array_len=MAX_NODES,
        )

    def value(self, path: tuple[str, ...], depth: int) -> None:
        """Read the value at the reader's position."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH or sum(map(len, path)) > MAX_NAME:
            raise ValueError("its tree is too large or too deep for a checkpoint")
        tag = self.tag()
        if path in SKIPPED or tag == 0xC0:
            self.unpacker.skip()
        elif 0x80 <= tag <= 0x8F or tag in (0xDE, 0xDF):
            self.map(path, depth)
        elif 0x90 <= tag <= 0x9F or tag in (0xDC, 0xDD):
            for i in range(self.unpacker.read_array_header()):
                self.value((*path, str(i)), depth + 1)
        elif tag in _EXT_TAGS:
            name = "/".join(path)
            self.tensors[name] = self.unpacker.unpack()
            self.order.append(name)
        elif tag in _STR_TAGS or tag in _NUMBER_TAGS:
            self.meta["/".join(path)] = self.unpacker.unpack()
        else:
            self.unpacker.skip()  # bare bytes

    def map(self, path: tuple[str, ...], depth: int) -> None:
        before = len(self.order)
        for _ in range(self.unpacker.read_map_header()):
            if self.tag() not in _STR_TAGS:
                raise ValueError("a map's key is not a string")
            key = self.unpacker.unpack()
            if len(key) > MAX_KEY:
                raise ValueError("a map's key is too long")
            self.value((*path, key), depth + 1)
        if self.meta.pop("/".join((*path, CHUNKED)), None):
            self.join_chunks("/".join(path), before)

    def tag(self) -> int:
        position = self.unpacker.tell()
        if position >= len(self.data):
            raise msgpack.OutOfData
        return self.data[position]

    def join_chunks(self, name: str, before: int) -> None:
        """Join an array that was written in pieces: ``{shape, chunks}``, each a list or a map."""
        prefix = f"{name}/chunks/"
        chunks = {
            key.removeprefix(prefix): key
            for key in self.order[before:]
            if key.startswith(prefix) and key in self.tensors
        }
        pieces = [self.tensors.pop(chunks[str(i)]).reshape(-1) for i in range(len(chunks))]
        shape: list[int] = []
        while (length := self.meta.pop(f"{name}/shape/{len(shape)}", None)) is not None:
            shape.append(length)
        if not pieces:
            raise ValueError(f"array {name!r} has no chunks")
        joined = torch.cat(pieces)
        check_claim(shape, np.dtype(np.uint8), joined.numel())
        self.tensors[name] = joined.reshape(shape)
        self.order[before:] = [name]


def _decode_extension(code: int, data: bytes) -> Tensor:
    """An ndarray (code 1) or NumPy scalar (code 3): ``packb((shape, dtype name, bytes))``."""
    if code not in (1, 3):
        raise ValueError(f"unknown extension type {code}" if code != 2 else "complex numbers are not weights")
    content = msgpack.unpackb(data, raw=True, max_array_len=64, max_map_len=0, max_ext_len=0)
    if not isinstance(content, list) or len(content) != 3:
        raise ValueError("an array is not (shape, dtype, bytes)")
    shape, name, buffer = content
    if not isinstance(shape, list) or not isinstance(name, bytes) or not isinstance(buffer, bytes):
        raise ValueError("an array is not (shape, dtype, bytes)")
    dtype = np.dtype("V2") if name == b"bfloat16" else np.dtype(name[:32].decode("ascii"))
    if dtype.kind not in "fiubV" or dtype.names is not None or dtype.itemsize == 0:
        raise ValueError(f"array of type {dtype.name}")
    check_claim(shape, dtype, len(buffer))
    return array_to_tensor(np.frombuffer(buffer, dtype=dtype).reshape(shape))
