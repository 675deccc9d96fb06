"""Containers of checkpoints, told apart by content: folder, safetensors, torch, npz, msgpack.

The files come from strangers. Nothing here runs code from a file, every size that a file claims is held
against the bytes that are really there before memory is taken, and whatever is wrong ends as one
`CheckpointError`.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vidcls.checkpoints.arrays import array_to_tensor, check_claim
from vidcls.checkpoints.base import Raw
from vidcls.checkpoints.msgpack_tree import read_msgpack
from vidcls.errors import CheckpointError, VidclsError

MAX_JSON_BYTES = 16 << 20
MAX_NODES = 1_000_000  # entries of a nested tree; the largest released file has about 3,000
MAX_DEPTH = 32
MAX_INFLATION = 100  # unpacked bytes per byte on disk; weights hardly compress at all
FREE_INFLATION_BYTES = 256 << 20  # below this the ratio does not matter

TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ORBAX_NAMES = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "_sharding")


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
            return _open_folder(path)
        if not path.exists():
            raise CheckpointError(str(path), "no such checkpoint", "check the path")
        if not path.is_file():
            raise CheckpointError(str(path), "not a regular file", "give a checkpoint file or folder")
        if (folder_raw := _beside_config(path)) is not None:
            return folder_raw
        tensors, meta, kind = _open_file(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            str(path), f"cannot be read ({reason})", "check the file's permissions"
        ) from error
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(
            str(path), f"too large or too deeply nested to read ({type(error).__name__})", "fetch it again"
        ) from error
    return Raw(path, kind, tensors, meta)


@contextmanager
def _decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a foreign decoder raises or warns of into one error about the file.

    The decoders let through what a damaged byte happens to lead to (struct.error, TokenError, zlib.error,
    AttributeError, ...), so there is no list to name here; the cause stays chained.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (VidclsError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(
            str(path), f"damaged {what} ({_first_line(error)})", "fetch it again"
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
    if head.startswith(TORCH_LEGACY_MAGIC):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_pickle(path, data)
        return (*_read_torch(path, mapped=False), "torch")
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

    with _decoding(path, "safetensors file"), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        meta: dict[str, Any] = dict(file.metadata() or {})
    for name, tensor in tensors.items():
        _check_tensor(path, name, tensor)
    return tensors, meta


# --- zip: torch and npz ----------------------------------------------------------------------------------


def _open_zip(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    with _decoding(path, "zip archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_inflation(path, members)
        names = [member.filename for member in members]
        for member in members:
            if member.filename.rpartition("/")[2] == "data.pkl":
                _check_pickle(path, archive.read(member))
        if any(name.endswith(".npy") for name in names):
            return _read_npz(path, archive), {}, "npz"
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            str(path), "a TorchScript archive, which carries code", "save the module's state_dict() instead"
        )
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        return (*_read_torch(path, mapped=stored), "torch")
    raise CheckpointError(
        str(path),
        "a zip archive that is neither a torch checkpoint nor an npz file",
        "unpack it and give what is inside",
    )


def _check_inflation(path: Path, members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    if unpacked > FREE_INFLATION_BYTES and unpacked > MAX_INFLATION * path.stat().st_size:
        raise CheckpointError(
            str(path),
            f"would unpack to {unpacked / 2**30:.1f} GiB from {path.stat().st_size} bytes",
            "it is no checkpoint",
        )


def _read_npz(path: Path, archive: zipfile.ZipFile) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            name = member.filename.removesuffix(".npy")
            with _decoding(path, f"array {name!r}"):
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


# --- torch -----------------------------------------------------------------------------------------------


def _read_torch(path: Path, *, mapped: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _decoding(path, "torch file"):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
        except pickle.UnpicklingError as error:
            raise CheckpointError(str(path), *_explain_pickle(str(error))) from error
    tensors: dict[str, Tensor] = {}
    meta: dict[str, Any] = {}
    for name, value in _flatten(path, content):
        if isinstance(value, Tensor):
            _check_tensor(path, name, value)
            tensors[name] = value.detach()
        else:
            meta[name] = value
    if not tensors:
        raise CheckpointError(str(path), "holds no tensors", "give the file with the model's weights")
    return tensors, meta


def _check_pickle(path: Path, data: bytes | mmap.mmap) -> None:
    """Refuse what torch's own safe mode would still call: ``bytearray(n)`` takes n bytes for ten in the file."""
    if data.find(b"bytearray") >= 0:
        raise CheckpointError(str(path), *_explain_pickle("GLOBAL builtins.bytearray"))


def _explain_pickle(text: str) -> tuple[str, str]:
    found = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"(?:class|type|function) <?'?([\w.]+)", text)
    if found is None:
        return (
            f"not a torch checkpoint of plain tensors ({_first_line(text)})",
            "save the model's state_dict()",
        )
    return (
        f"needs the class or function {found.group(1)!r}, and running code from a checkpoint is refused",
        "re-save only the state_dict() in the environment the file came from",
    )


def _flatten(path: Path, content: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts, lists and tuples; bounded, for a small pickle can describe an endless tree."""
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    nodes = 0
    while stack:
        name, value, depth = stack.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise CheckpointError(
                str(path), "its tree is too large or too deep for a checkpoint", "it is no checkpoint"
            )
        if isinstance(value, Mapping):
            children = [(str(key), child) for key, child in value.items()]
        elif isinstance(value, (list, tuple, set)) and not isinstance(value, torch.Size):
            children = [(str(i), child) for i, child in enumerate(value)]
        else:
            yield name, value
            continue
        stack.extend(
            (f"{name}.{key}" if name else key, child, depth + 1) for key, child in reversed(children)
        )


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Only plain numbers that are there: by a stride of zero one element can claim to be a terabyte."""
    problem = ""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        problem = "is sparse, quantized or has no data"
    elif tensor.is_complex():
        problem = "is complex"
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        problem = f"claims the shape {tuple(tensor.shape)} over {tensor.untyped_storage().nbytes()} bytes"
    if problem:
        raise CheckpointError(str(path), f"tensor {name!r} {problem}", "only plain dense weights can be read")


# --- Hugging Face folders --------------------------------------------------------------------------------


def _open_folder(path: Path) -> Raw:
    if (path / "config.json").is_file():
        return _read_hf(path, path)
    if any((path / name).exists() or (path / "default" / name).exists() for name in ORBAX_NAMES):
        raise CheckpointError(
            str(path),
            "an Orbax checkpoint folder, which only JAX's own tools can read",
            "restore it with orbax.checkpoint, then save its params with flax.serialization.to_bytes",
        )
    raise CheckpointError(
        str(path),
        "a folder without config.json",
        "give a Hugging Face model folder, or the weights file itself",
    )


def _beside_config(path: Path) -> Raw | None:
    """A Hugging Face folder named by its weights file instead of by itself."""
    config = path.parent / "config.json"
    if path.name not in ("model.safetensors", "pytorch_model.bin") or not config.is_file():
        return None
    return _read_hf(path.parent, path) if "model_type" in read_json(config) else None


def _read_hf(folder: Path, path: Path) -> Raw:
    preprocessor = folder / "preprocessor_config.json"
    meta = {
        "config": read_json(folder / "config.json"),
        "preprocessor": read_json(preprocessor) if preprocessor.is_file() else {},
    }
    tensors: dict[str, Tensor] = {}
    for shard in _hf_shards(folder):
        tensors.update(_open_file(shard)[0])
    return Raw(path, "hf", tensors, meta)


def _hf_shards(folder: Path) -> list[Path]:
    for name in (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ):
        file = folder / name
        if not file.is_file():
            continue
        if not name.endswith(".json"):
            return [file]
        shards = read_json(file).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise CheckpointError(str(file), "no weight_map of file names", "fetch the file again")
        return [_shard(folder, shard) for shard in dict.fromkeys(shards.values())]
    raise CheckpointError(
        str(folder),
        "a model folder without weights",
        "fetch model.safetensors (or pytorch_model.bin) into it",
    )


def _shard(folder: Path, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or "\\" in name or ":" in name:
        raise CheckpointError(
            str(folder), f"its index names a file outside the folder ({name!r})", "fetch it again"
        )
    if not (folder / name).is_file():
        raise CheckpointError(str(folder), f"shard {name} is missing", "fetch the whole folder")
    return folder / name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size.

    Raises:
        CheckpointError: Too large, not JSON, or not an object.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(str(path), "too large for a configuration file", "fetch it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            str(path), f"not valid JSON ({_first_line(error)})", "fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(str(path), "not a JSON object", "fetch it again")
    return content


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :200
    ]
