"""Files that `torch.save` wrote, as zip archives (since 1.6) or one pickle after another (before).

Their pickles are walked through first (`vidcls.checkpoints.pickle_scan`); torch then reads them in its own safe mode.
"""

from __future__ import annotations

import argparse
import mmap
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidcls.checkpoints.base import decoding
from vidcls.checkpoints.pickle_scan import RefusedError, scan_legacy, scan_pickle
from vidcls.errors import CheckpointError

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
MAX_PICKLE_BYTES = 64 << 20
MAX_NODES = 250_000  # entries of a nested tree; the largest released file has about 3,000
MAX_DEPTH = 32
FREE_BYTES = 256 << 20  # below this, how often tensors share their data does not matter
MAX_SHARES = 8  # a model, its average and a copy or two may be the same tensors
MAX_NAME = 2048  # characters of one entry's name, all its words together

Content = tuple[dict[str, Tensor], dict[str, Any]]


def read_torch_zip(path: Path, archive: zipfile.ZipFile) -> Content:
    """Read a zip archive of torch's.

    Args:
        path: The file.
        archive: The same, opened.

    Raises:
        CheckpointError: Its pickle asks for what no plain checkpoint needs, or it is damaged.
    """
    members = archive.infolist()
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            str(path), "a TorchScript archive, which carries code", "save the module's state_dict() instead"
        )
    pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
    # What was scanned must be what torch reads: no second entry of a name, nothing behind the directory.
    if len(pickles) != 1 or len(set(names)) != len(names) or archive.comment:
        raise CheckpointError(str(path), "a torch file with two contents", "check that it is a checkpoint")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            str(path), "has more entries than any checkpoint", "check that it is a checkpoint"
        )
    folder = pickles[0].filename.removesuffix("data.pkl")
    sizes = {member.filename: member.file_size for member in members}
    with _refusing(path):
        for key, claimed in scan_pickle(archive.read(pickles[0])).items():
            name = f"{folder}data/{key.decode('utf-8', 'replace')}"
            if claimed > sizes.get(name, 0):
                raise RefusedError(
                    f"{name} claims {claimed} bytes and has {sizes.get(name, 0)}", "fetch it again"
                )
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    return _load(path, mapped=stored)


def read_torch_legacy(path: Path) -> Content:
    """Read a file from before torch 1.6.

    Raises:
        CheckpointError: As `read_torch_zip`.
    """
    if tarfile.is_tarfile(
        path
    ):  # torch would take it for its format of 2016, which older versions unpickle freely
        raise CheckpointError(str(path), "a tar archive in disguise", "check that it is a checkpoint")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        _refusing(path),
    ):
        scan_legacy(data)
    return _load(path, mapped=False)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what the scan refuses into an error about the file."""
    try:
        yield
    except RefusedError as error:
        raise CheckpointError(str(path), error.problem, error.remedy) from None


def _load(path: Path, *, mapped: bool) -> Content:
    with decoding(path, "torch file"), _namespaces_allowed():
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    tensors: dict[str, Tensor] = {}
    meta: dict[str, Any] = {}
    for name, value in _flatten(path, content):
        if isinstance(value, Tensor):
            check_tensor(path, name, value)
            tensors[name] = value.detach()
        else:
            meta[name] = value
    _check_sharing(path, tensors)
    if not tensors:
        raise CheckpointError(str(path), "holds no tensors", "give the file with the model's weights")
    return tensors, meta


def _namespaces_allowed() -> AbstractContextManager[Any]:
    """Let torch make the one object that training scripts put beside the weights: their parsed options."""
    allowed = getattr(torch.serialization, "safe_globals", None)
    if allowed is not None:
        return allowed([argparse.Namespace])
    torch.serialization.add_safe_globals([argparse.Namespace])  # torch 2.4
    return nullcontext()


def _flatten(path: Path, content: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of nested containers; bounded, for a small pickle can describe an endless tree."""
    stack: list[tuple[str, Any, int]] = [("", content, 0)]
    nodes = 0
    while stack:
        name, value, depth = stack.pop()
        nodes += 1
        children = _children(value)
        if children is None:
            yield name, value
            continue
        if nodes + len(stack) + len(children) > MAX_NODES or depth >= MAX_DEPTH or len(name) > MAX_NAME:
            raise CheckpointError(
                str(path),
                "its tree is too large or too deep for a checkpoint",
                "check that it is a checkpoint",
            )
        stack.extend(
            (f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in reversed(children)
        )


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (list, tuple, set)) and not isinstance(value, torch.Size):
        return list(enumerate(value))
    return None


def _check_sharing(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse many tensors over the same few bytes, each of which a model would need memory of its own for."""
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > FREE_BYTES and claimed > MAX_SHARES * sum(held.values()):
        raise CheckpointError(
            str(path),
            f"its tensors claim {claimed / 2**30:.1f} GiB over {sum(held.values())} bytes",
            "check that it is a checkpoint",
        )


def check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Admit only plain numbers that are there: by a stride of zero one element can claim to be a terabyte.

    Raises:
        CheckpointError: The tensor is sparse, quantized, complex, without data, or larger than its data.
    """
    problem = ""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        problem = "is sparse, quantized or has no data"
    elif tensor.is_complex():
        problem = "is complex"
    elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        problem = f"claims the shape {tuple(tensor.shape)} over {tensor.untyped_storage().nbytes()} bytes"
    if problem:
        raise CheckpointError(str(path), f"tensor {name!r} {problem}", "only plain dense weights can be read")
