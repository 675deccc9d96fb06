"""Pickles that lead torch's safe mode into work without end, and the one object that may lie beside the weights."""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch

from vidcls.checkpoints import open_raw
from vidcls.checkpoints.torch_file import LEGACY_MAGIC
from vidcls.errors import CheckpointError

PROTO = b"\x80\x02"


def refused(path: Path, words: str) -> None:
    """Opening ``path`` ends soon, in one readable line that does not pass on torch's advice."""
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=words) as caught:
        open_raw(path)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


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


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_i13_1_a_hostile_pickle(attack: str, container: str, tmp_path: Path) -> None:
    pickled, words = ATTACKS[attack]
    refused(CONTAINERS[container](tmp_path / "model.pth", pickled), words)


def test_i13_1_keys_of_legacy_storages(tmp_path: Path) -> None:
    keys = PROTO + b"]" + shared_tuple(59) + b"a."
    refused(as_legacy(tmp_path / "model.pth", PROTO + b"}.", keys), "not a list of names")


def test_i13_1_a_tar_archive_in_disguise(tmp_path: Path) -> None:
    """Before torch 2.6, safe mode did not hold for the tar format: a file that is both must not reach it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x" * 20))
    header = bytearray(buffer.getvalue())
    start = LEGACY_MAGIC + PROTO + b"M\xe9\x03." + PROTO + b"}."
    header[: len(start)] = start
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    (tmp_path / "model.pth").write_bytes(header)
    assert tarfile.is_tarfile(tmp_path / "model.pth")
    refused(tmp_path / "model.pth", "tar archive in disguise")


def test_i13_1_a_zip_with_two_contents(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "model.pth", PROTO + b"}.")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", nested_encode(34))
    refused(path, "two contents")


def test_i13_3_a_zip_of_very_many_entries(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    entry = b"PK\x01\x02" + bytes(42)
    count = 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 46 * count, 4, 0)
    path.write_bytes(b"PK\x03\x04" + entry * count + end)
    refused(path, "more than 100,000 tensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_b12_a_namespace_beside_the_weights(zipped: bool, tmp_path: Path) -> None:
    """timm's and VideoMAE's scripts store their parsed options; they are values and nothing else."""
    options = argparse.Namespace(
        model="vit_base", lr=0.1, opt_betas=[0.9, 0.99], eval=None, nested=argparse.Namespace(a=1)
    )
    content = {
        "model": collections.OrderedDict(w=torch.arange(3.0)),
        "args": options,
        "milestones": collections.Counter({3: 1, 5: 1}),
        "seen": {1, 2},
        "salt": b"\x00\xff",
        "size": torch.Size([2, 3]),
        "kind": torch.float16,
    }
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    raw = open_raw(tmp_path / "model.pth")
    assert torch.equal(raw.tensors["model.w"], torch.arange(3.0))
    assert raw.meta["args.model"] == "vit_base"
    assert raw.meta["args.nested.a"] == 1
    assert raw.meta["milestones.3"] == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_b12_and_nothing_else(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for inside in (pathlib.PurePosixPath("/x"), argparse.ArgumentParser, print):
        content = {"w": torch.ones(1), "args": argparse.Namespace(x=inside)}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        refused(path, "needs the class or function .*refused")


def test_b12_tensors_as_training_leaves_them(tmp_path: Path) -> None:
    """Parameters, shared and strided tensors, a state dict's own attributes, an optimizer's state."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = "kept"  # type: ignore[attr-defined]
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": model[0].weight,
        "marked": marked,
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "rng": torch.get_rng_state(),
    }
    torch.save(content, tmp_path / "model.pth")
    raw = open_raw(tmp_path / "model.pth")
    assert torch.equal(raw.tensors["transposed"], content["transposed"])
    assert torch.equal(raw.tensors["state_dict.0.weight"], model[0].weight.detach())
    assert torch.equal(raw.tensors["marked"], torch.ones(2))
