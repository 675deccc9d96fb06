"""Containers of checkpoints, told apart by content: folder, safetensors, torch, npz, msgpack.

The files come from strangers. Nothing here runs code from a file, every size that a file claims is held
against the bytes that are really there before memory is taken, and whatever is wrong ends as one
`CheckpointError`.
"""

from __future__ import annotations

import mmap
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from vidcls.checkpoints.arrays import array_to_tensor, check_claim
from vidcls.checkpoints.base import Raw, decoding
from vidcls.checkpoints.folders import open_folder, with_config_beside
from vidcls.checkpoints.metadata import KEY
from vidcls.checkpoints.msgpack_tree import read_msgpack
from vidcls.checkpoints.torch_file import LEGACY_MAGIC, check_tensor, read_torch_legacy, read_torch_zip
from vidcls.errors import CheckpointError

MAX_TENSORS = 100_000  # of one file; the largest released one has about 3,000, with its optimizer
MAX_INFLATION = 20  # unpacked bytes per byte on disk; weights hardly compress at all
FREE_INFLATION_BYTES = 256 << 20  # below this the ratio does not matter


def open_raw(path: str | os.PathLike[str]) -> Raw:
    """Open a checkpoint of any container.

    Args:
        path: A file, or a folder as Hugging Face writes them.

    Raises:
        CheckpointError: It does not exist, is of no known container, is damaged, needs code to be run, or
            claims sizes that its bytes do not hold.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return open_folder(path, lambda file: _open_file(file)[0])
        if not path.exists():
            raise CheckpointError(str(path), "no such checkpoint", "check the path")
        if not path.is_file():
            raise CheckpointError(str(path), "not a regular file", "give a checkpoint file or folder")
        tensors, meta, kind = _open_file(path)
        raw = Raw(path, kind, tensors, meta)
        return raw if KEY in meta else with_config_beside(raw)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            str(path), f"cannot be read ({reason})", "check the file's permissions"
        ) from error
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(
            str(path), f"too large or too deeply nested to read ({type(error).__name__})", "fetch it again"
        ) from error


def _open_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    with path.open("rb") as file:
        head = file.read(16)
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(str(path), "the file is empty", "fetch it again")
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(path)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return (*_read_safetensors(path), "safetensors")
    if head.startswith(LEGACY_MAGIC):
        return (*read_torch_legacy(path), "torch")
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        raise CheckpointError(
            str(path),
            "a plain pickle, which can run any code when opened",
            "ask for the file as torch.save or safetensors writes it",
        )
    if 0x80 < head[0] <= 0x8F or head[0] in (0xDE, 0xDF):
        return (*read_msgpack(path), "msgpack")
    raise CheckpointError(
        str(path),
        "not a checkpoint of a known kind (safetensors, torch, npz, flax msgpack, Hugging Face folder)",
        _hint(head),
    )


def _hint(head: bytes) -> str:
    if head.lstrip()[:1] == b"<":
        return "it is a web page; the download went wrong, fetch the file itself"
    if head.startswith(b"version https://"):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if head.startswith(b"\x1f\x8b"):
        return "it is gzip-compressed; unpack it first"
    return "check that it is the weights file and that the download was complete"


# --- safetensors -----------------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header_end = 8 + int.from_bytes(data[:8], "little")
        _check_count(path, data[8:header_end].count(b"{"))  # each tensor is described by an object of JSON
    with decoding(path, "safetensors file"), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        meta: dict[str, Any] = dict(file.metadata() or {})
    for name, tensor in tensors.items():
        check_tensor(path, name, tensor)
    return tensors, meta


def _check_count(path: Path, count: int) -> None:
    if count > MAX_TENSORS:
        raise CheckpointError(
            str(path), f"describes more than {MAX_TENSORS:,} tensors", "check that it is a checkpoint"
        )


# --- zip: torch and npz ----------------------------------------------------------------------------------


def _open_zip(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    _check_count(path, _zip_members(path))
    with decoding(path, "zip archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_inflation(path, members)
        if any(member.filename.endswith(".npy") for member in members):
            return _read_npz(path, archive), {}, "npz"
        if any(member.filename.rpartition("/")[2] == "data.pkl" for member in members):
            return (*read_torch_zip(path, archive), "torch")
    raise CheckpointError(
        str(path),
        "a zip archive that is neither a torch checkpoint nor an npz file",
        "unpack it and give what is inside",
    )


def _zip_members(path: Path) -> int:
    """How many entries the archive's directory must have, by its size: reading a million takes many seconds."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"PK\x05\x06", max(len(data) - 70_000, 0))
        if end < 0:
            return 0  # zipfile says what is wrong with it
        size = int.from_bytes(data[end + 12 : end + 16], "little")
        wide = data.rfind(b"PK\x06\x06", max(end - 1000, 0), end)
        if size == 0xFFFFFFFF and wide >= 0:
            size = int.from_bytes(data[wide + 40 : wide + 48], "little")
        return min(size, len(data)) // 46  # bytes of the shortest entry


def _check_inflation(path: Path, members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    if unpacked > FREE_INFLATION_BYTES and unpacked > MAX_INFLATION * path.stat().st_size:
        raise CheckpointError(
            str(path),
            f"would unpack to {unpacked / 2**30:.1f} GiB from {path.stat().st_size} bytes",
            "check that it is a checkpoint",
        )


def _read_npz(path: Path, archive: zipfile.ZipFile) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            name = member.filename.removesuffix(".npy")
            with decoding(path, f"array {name!r}"):
                tensors[name] = array_to_tensor(_read_npy(archive, member))
    return tensors


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """One array, its header held against the bytes that follow: NumPy allocates what the header says."""
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"npy version {version}")
        shape, fortran_order, dtype = readers[version](file)
        header_size = file.tell()
        check_claim(shape, dtype, member.file_size - header_size)
        data = file.read(member.file_size - header_size)
    array: np.ndarray[Any, Any] = np.frombuffer(data, dtype=dtype)
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    return np.reshape(array, shape, order=order)
