"""Checkpoints that are made to do harm: to run code, to take all memory, never to end.

The tests hold each to its error; ``benchmarks/hostile_checkpoints.py`` counts what becomes of all of them.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from safetensors.torch import save_file

from vidcls.checkpoints.torch_file import LEGACY_MAGIC

PROTO = b"\x80\x02"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def as_zip(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(8))
    return path


def as_legacy(path: Path, pickled: bytes, keys: bytes = PROTO + b"].") -> Path:
    path.write_bytes(LEGACY_MAGIC + PROTO + b"M\xe9\x03." + PROTO + b"}." + pickled + keys)
    return path


CONTAINERS = {"zip": as_zip, "legacy": as_legacy}


def nested_encode(levels: int) -> bytes:
    """``encode(encode(…, "hex"), "hex")``: twice the memory at each level."""
    calls = b"c_codecs\nencode\n" * levels
    return PROTO + calls + text("x" * 100) + (text("hex") + b"\x86R") * levels + b"."


def shared_tuple(levels: int) -> bytes:
    """A tuple of two of a tuple of two of …, of which each level is written once."""
    out = b")"
    for level in range(levels):
        out += b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86"
    return out


ATTACKS = {
    "encode": (nested_encode(34), "calls '_codecs.encode' in a way"),
    "tuple key": (PROTO + b"}" + shared_tuple(59) + b"K\x01s.", "key that is neither text nor a number"),
    "tuple in a set": (
        PROTO + b"c__builtin__\nset\n]" + shared_tuple(59) + b"a\x85R.",
        "calls 'builtins.set'",
    ),
    "tuple key in a counter": (
        PROTO + b"ccollections\nCounter\n]" + shared_tuple(59) + b"a\x85R.",
        "calls 'collections.Counter'",
    ),
    "tuple keys in an ordered dictionary": (
        PROTO + b"ccollections\nOrderedDict\n]" + shared_tuple(59) + b"K\x01\x86a\x85R.",
        "calls 'collections.OrderedDict'",
    ),
    "long key": (PROTO + b"}" + text("k" * 5000) + b"K\x01s.", "dictionary key of 5000 bytes"),
    "many entries": (PROTO + b"](" + b"N" * 3_000_000 + b"e.", "more entries than any checkpoint"),
    "shared lists": (
        PROTO + b"]" + b"".join(b"q\x00](h\x00h\x00e" for _ in range(60)) + b".",
        "too large or too deep",
    ),
    "other opcode": (PROTO + b"I42\n.", "pickle opcode 0x49"),
    "other protocol": (b"\x80\x04N.", "pickle of protocol 4"),
    "class": (PROTO + b"cpathlib\nPosixPath\n)\x81.", "'pathlib.PosixPath'.*refused"),
    "function": (PROTO + b"cos\nsystem\n" + text("true") + b"\x85R.", "'os.system'.*refused"),
    "namespace made with arguments": (PROTO + b"cargparse\nNamespace\nK\x01\x85\x81.", "makes an object"),
    "namespace with slots": (
        PROTO + b"cargparse\nNamespace\n)\x81}}\x86b.",
        "sets attributes",
    ),
    "attributes of a tensor": (
        PROTO + b"ctorch\nSize\n)\x85R}b.",
        "sets attributes",
    ),
    "sparse": (PROTO + b"ctorch._utils\n_rebuild_sparse_tensor\n.", "only plain dense weights"),
    "no storage": (
        PROTO + b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        "calls 'torch._utils._rebuild_tensor_v2'",
    ),
    "huge storage": (
        PROTO
        + b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + b"\x8a\x07\x00\x00\x00\x00\x00\x00\x01tQ.",
        "claims 1125899906842624 bytes|claims 0 bytes",
    ),
    "stack underflow": (PROTO + b"R.", "damaged torch file"),
    "mark underflow": (PROTO + b"t.", "damaged torch file"),
    "unset memo": (PROTO + b"h\x07.", "damaged torch file"),
    "no end": (PROTO + b"NNN", "damaged torch file"),
    "name without end": (PROTO + b"c" + b"a" * 10_000, "damaged torch file"),
}


def tar_in_disguise(path: Path) -> Path:
    """A file that is both a tar archive and what torch wrote before 1.6."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x" * 20))
    header = bytearray(buffer.getvalue())
    start = LEGACY_MAGIC + PROTO + b"M\xe9\x03." + PROTO + b"}."
    header[: len(start)] = start
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    return path


def zip_of_many_entries(path: Path, count: int = 1_000_000) -> Path:
    entry = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 46 * count, 4, 0)
    path.write_bytes(b"PK\x03\x04" + entry * count + end)
    return path


def safetensors_of_many_tensors(path: Path, count: int = 200_000) -> Path:
    entries = ",".join(
        f'"{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(count)
    )
    header = f"{{{entries}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


class Runs:
    """What a stranger's pickle does: run a command when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def msgpack_leaf(shape: Any, dtype: str, data: bytes, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data), use_bin_type=True))


def _chain(inside: Any, levels: int = 25) -> Any:
    for _ in range(levels):
        inside = {"x" * 500: inside}
    return inside


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _npz(path: Path, member: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", member)


def _native(path: Path, architecture: str = "vivit-st", **config: Any) -> None:
    record = {"version": 1, "architecture": architecture, "config": config}
    save_file({"head.bias": torch.zeros(3)}, path, {"vidcls": json.dumps(record)})


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as member:
        member.write(_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (100000000,)}"))
        for _ in range(400):
            member.write(bytes(1_000_000))


def _shared(path: Path) -> None:
    shared = torch.zeros(1 << 20)
    torch.save({f"layer{number}": shared for number in range(1000)}, path)


def _objects(path: Path, mark: Path) -> None:
    objects = np.empty(1, dtype=object)
    objects[0] = Runs(mark)
    with path.open("wb") as file:
        np.savez(file, w=objects)


def _packed(tree: Any) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(msgpack.packb(tree, use_bin_type=True))


def others(mark: Path) -> dict[str, Callable[[Path], object]]:
    """Hostile files of all containers but those of `ATTACKS`: name → what writes one.

    Args:
        mark: A folder that exists if and only if code from one of the files was run.
    """
    one = msgpack_leaf([1], "float32", b"1234")
    made: dict[str, Callable[[Path], object]] = {
        "torch zip with code": lambda path: torch.save({"w": torch.zeros(2), "x": Runs(mark)}, path),
        "torch legacy with code": lambda path: torch.save(
            {"w": torch.zeros(2), "x": Runs(mark)}, path, _use_new_zipfile_serialization=False
        ),
        "npz with code": lambda path: _objects(path, mark),
        "tar in disguise": tar_in_disguise,
        "zip of a million entries": zip_of_many_entries,
        "zip bomb": _bomb,
        "safetensors of 200,000 tensors": safetensors_of_many_tensors,
        "tensors over the same bytes": _shared,
        "a terabyte by strides": lambda path: torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path),
        "msgpack of 64,000 maps": _packed({**{f"m{n}": {"a": n} for n in range(64_000)}, "w": one}),
        "msgpack of long names": _packed(_chain({f"k{n}": n for n in range(50_000)})),
        "msgpack without end": lambda path: path.write_bytes(b"\x81\xa1w" * 2000),
        "msgpack of 4 GiB": lambda path: path.write_bytes(b"\x81\xa1w\xc9\xff\xff\xff\xff\x01"),
        "msgpack array of 2^80 numbers": _packed({"w": msgpack_leaf([2**40, 2**40], "float32", b"1234")}),
        "torch tree of long names": lambda path: torch.save(
            _chain({f"k{n}": torch.zeros(1) if n == 0 else n for n in range(10_000)}), path
        ),
    }
    for shape in ("(1000000000000,)", "(-1,)", "(2**70,)", "(True,)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
        made[f"npz of shape {shape}"] = lambda path, header=header: _npz(path, _npy(header, b"1234"))  # type: ignore[misc]
    for architecture in ("vivit-st", "vivit-fe", "timesformer-divided", "videomae", "vtn", "vit-frames"):
        for key in ("depth", "embed_dim", "num_frames"):
            if architecture == "vtn":
                key = {"depth": "temporal_depth", "embed_dim": "max_positions"}.get(key, "mlp_dim")
            made[f"{architecture} of {key} 10^9"] = lambda path, a=architecture, k=key: _native(
                path, a, **{k: 10**9}
            )  # type: ignore[misc]
    return made
