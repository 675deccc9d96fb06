"""Containers told apart by content, and files made to do harm."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.vivit_files import flatten, packed, scenic_tree, write_msgpack
from vidcls.checkpoints import load_checkpoint, open_raw, read_checkpoint
from vidcls.errors import CheckpointError, UsageError


class Runs:
    """What a stranger's pickle does: run a command when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def refused(path: Path, words: str) -> None:
    """Opening ``path`` must end in one readable error about it."""
    with pytest.raises(CheckpointError, match=words) as caught:
        open_raw(path)
    assert "\n" not in str(caught.value)


def write_npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def test_containers_are_told_by_content(tmp_path: Path) -> None:
    """The file's name says nothing: all are called the same."""
    tensors = {
        "a.b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "c": torch.ones(2, dtype=torch.bfloat16),
    }
    names: dict[str, str] = {}
    for kind in ("safetensors", "torch", "legacy", "npz", "msgpack"):
        path = tmp_path / kind / "weights.bin"
        path.parent.mkdir()
        if kind == "safetensors":
            save_file(tensors, path)
        elif kind in ("torch", "legacy"):
            torch.save({"model": tensors, "epoch": 3}, path, _use_new_zipfile_serialization=kind == "torch")
        elif kind == "npz":
            with path.open("wb") as file:
                np.savez_compressed(
                    file,
                    **{"a/b": tensors["a.b"].numpy().T.copy().T, "c": np.full(2, 16256, "<i2").view("V2")},
                )
        else:
            write_msgpack(
                path, {"a": {"b": tensors["a.b"].numpy()}, "c": np.full(2, 16256, "<i2").view("V2"), "n": 1}
            )
        raw = open_raw(path)
        names[kind] = raw.kind
        found = list(raw.tensors.values())
        assert torch.equal(found[0], tensors["a.b"])
        assert found[1].dtype == torch.bfloat16
        assert torch.equal(found[1], tensors["c"])
        if kind in ("torch", "legacy"):
            assert list(raw.tensors) == ["model.a.b", "model.c"]
            assert raw.meta == {"epoch": 3}
        elif kind == "msgpack":
            assert list(raw.tensors) == ["a/b", "c"]
            assert raw.meta == {"n": 1}
    assert names == {k: "torch" if k == "legacy" else k for k in names}


def test_npz_keeps_fortran_order(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", a=np.asfortranarray(array), b=array.astype(">f4"), c=np.float32(3))
    raw = open_raw(tmp_path / "a.npz")
    assert np.array_equal(raw.tensors["a"].numpy(), array)
    assert np.array_equal(raw.tensors["b"].numpy(), array)
    assert raw.tensors["c"].shape == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "file is empty"),
        (b"\x00", "not a checkpoint of a known kind"),
        (b"hello, these are my weights", "not a checkpoint of a known kind"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip"),
        (pickle.dumps({"a": np.zeros(2)}), "plain pickle"),
        (b"PK\x03\x04 nothing of a zip", "damaged zip"),
        (struct.pack("<Q", 40) + b"{" + b" " * 30, "not a checkpoint of a known kind"),
        (struct.pack("<Q", 20) + b'{"a": [1, 2, 3     }' + b"\0" * 8, "damaged safetensors"),
        (struct.pack("<Q", 2) + b"{}", "no known checkpoint format"),
    ],
)
def test_files_that_are_no_checkpoints(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "no such checkpoint")
    refused(tmp_path, "folder without config.json")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "without weights")
    for name in ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"):
        folder = tmp_path / name.strip("_")
        folder.mkdir()
        (folder / name).write_text("{}")
        refused(folder, "Orbax")
    nested = tmp_path / "run" / "default"
    nested.mkdir(parents=True)
    (nested / "_METADATA").write_text("{}")
    refused(nested.parent, "Orbax")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in the file system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")


def test_unknown_names(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2), "b\x1b[31m": torch.zeros(2)}, tmp_path / "model")
    with pytest.raises(CheckpointError, match="no known checkpoint format"):
        read_checkpoint(tmp_path / "model")
    with pytest.raises(UsageError, match="choose one of"):
        read_checkpoint(tmp_path / "model", format="onnx")
    with pytest.raises(UsageError, match="choose one of"):
        read_checkpoint(tmp_path / "model", "vivit-xxl")


# --- torch ---


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_torch_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "model.pth", tmp_path / "mark"
    torch.save({"w": torch.zeros(2), "x": Runs(mark)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, rf"{os.mkdir.__module__}\.mkdir.*refused.*state_dict")
    assert not mark.exists()
    spaces = {"w": torch.zeros(2), "args": argparse.Namespace(a=1, x=Runs(mark))}
    torch.save(spaces, path, _use_new_zipfile_serialization=zipped)
    refused(path, rf"{os.mkdir.__module__}\.mkdir.*refused.*state_dict")
    assert not mark.exists()


class Takes:
    """Memory for the asking: the one greedy function that torch's safe mode would call."""

    def __reduce__(self) -> Any:
        return bytearray, (40 * 2**30,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_cannot_take_all_memory(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"w": torch.zeros(2), "x": Takes()}, path, _use_new_zipfile_serialization=zipped)
    refused(path, r"builtins\.bytearray.*refused")


def test_torch_files_that_claim_too_much(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path)
    refused(path, "claims the shape")
    laughs: Any = []
    for _ in range(30):
        laughs = [laughs, laughs]
    torch.save({"w": torch.zeros(1), "x": laughs}, path)
    refused(path, "too large or too deep")
    endless: dict[str, Any] = {}
    endless["again"] = endless
    torch.save(endless, path)
    refused(path, "too large or too deep")


def test_torch_files_without_plain_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for tensor in (
        torch.zeros(2, dtype=torch.complex64),
        torch.eye(2).to_sparse(),
        torch.zeros(2, device="meta"),
    ):
        torch.save({"w": tensor}, path)
        refused(path, "plain dense weights")
    torch.save({"epoch": 3}, path)
    refused(path, "holds no tensors")
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, r"torch\.nn\.modules\.linear\.Linear.*refused")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "model.pt", {"m/data.pkl": b"x", "m/code/a.py": b"x", "m/constants.pkl": b"x"}
    )
    refused(path, "TorchScript")


def test_other_zip_files(tmp_path: Path) -> None:
    refused(write_npz(tmp_path / "a.zip", {"readme.txt": b"hello"}), "neither a torch checkpoint nor an npz")


# --- npz ---


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", b"1234"),
            "other than the 4 bytes",
        ),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", b"1234"), "impossible shape"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}", b"1234"), "impossible shape"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}", b"1234"), "impossible shape"),
        (npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"1234"), "not numbers"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", b"12345678"), "not numbers"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"1234"), "not numbers"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", b"1234"), "damaged array"),
        (npy("__import__('os').mkdir('x')", b""), "damaged array"),
        (b"\x93NUMPY\x09\x00", "npy version"),
        (b"", "damaged array"),
    ],
)
def test_hostile_npz(content: bytes, words: str, tmp_path: Path) -> None:
    refused(write_npz(tmp_path / "a.npz", {"w.npy": content}), words)


def test_code_in_an_npz_file_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    objects = np.empty(1, dtype=object)
    objects[0] = Runs(mark)
    np.savez(tmp_path / "a.npz", w=objects)
    refused(tmp_path / "a.npz", "damaged array 'w'")
    assert not mark.exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as member:
        member.write(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (100000000,)}"))
        for _ in range(400):
            member.write(bytes(1_000_000))
    assert path.stat().st_size < 500_000
    refused(path, "would unpack to 0.4 GiB")


# --- msgpack ---


def ext(shape: Any, dtype: str, data: bytes, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data), use_bin_type=True))


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (ext([-1], "float32", b"1234"), "impossible shape"),
        (ext([2**40, 2**40], "float32", b"1234"), "other than the 4 bytes"),
        (ext([1.0], "float32", b"1234"), "impossible shape"),
        (ext([True], "float32", b"1234"), "impossible shape"),
        (ext([1] * 60, "float32", b"1234"), "impossible shape"),
        (ext([1], "object", b"12345678"), "array of type object"),
        (ext([1], "complex64", b"12345678"), "array of type complex64"),
        (ext([1], "no such type", b"1234"), "damaged msgpack"),
        (ext([1], "f4,f4", b"12345678"), "array of type"),
        (ext([2], "V0", b""), "array of type"),
        (ext([1], "float128", b"x" * 16), "damaged msgpack"),
        (ext(1, "float32", b"1234"), "not \\(shape, dtype, bytes\\)"),
        (msgpack.ExtType(1, b"\xc1"), "damaged msgpack"),
        (msgpack.ExtType(1, b""), "damaged msgpack"),
        (msgpack.ExtType(1, msgpack.packb([[1]])), "not \\(shape, dtype, bytes\\)"),
        (ext([1], "float32", b"1234", code=2), "complex"),
        (ext([1], "float32", b"1234", code=77), "unknown extension type 77"),
        ({"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {}}, "no chunks"),
        (
            {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 9},
                "chunks": {"0": ext([1], "float32", b"1234")},
            },
            "other than",
        ),
        (
            {
                "__msgpack_chunked_array__": True,
                "shape": {"0": "x"},
                "chunks": {"0": ext([1], "float32", b"1234")},
            },
            "impossible",
        ),
        (
            {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {"7": ext([1], "float32", b"1234")}},
            "damaged",
        ),
        ({b"x": 1}, "key is not a string"),
        ({3: 1}, "key is not a string"),
        ({"k" * 600: 1}, "key is too long"),
        (None, "without arrays"),
        (["a", 2, b"bytes", 1.5, True], "without arrays"),
    ],
)
def test_hostile_msgpack(leaf: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(msgpack.packb({"params": {"w": leaf}}, use_bin_type=True))
    refused(path, words)


@pytest.mark.parametrize(
    "content",
    [
        b"\x81\xa1w" * 2000,  # nested without end
        b"\x81\xa1w" + b"\x91" * 2000 + b"\x01",
        b"\x81\xa1w\xdd\xff\xff\xff\xff",  # four thousand million entries
        b"\x81\xa1w\xdf\xff\xff\xff\xff",
        b"\x81\xa1w\xc9\xff\xff\xff\xff\x01",  # an array of 4 GiB
        b"\x81\xa1w\xdb\xff\xff\xff\xff",
        b"\x81\xa1w\xc1",  # a tag that does not exist
        b"\x82\xa1w\x01",
        b"\x81",
    ],
)
def test_broken_msgpack(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    refused(path, "damaged msgpack")


def test_momentum_is_stepped_over(tmp_path: Path) -> None:
    """Whatever lies in the optimizer's state is not read, and need not even be readable."""
    nonsense = ext([-1], "object", b"")
    tree = {"opt_state": {"0": nonsense}, "params": {"w": packed(np.ones(2, np.float32))}, "rng": nonsense}
    path = write_msgpack(tmp_path / "checkpoint", tree)
    assert list(open_raw(path).tensors) == ["params/w"]


# --- Hugging Face folders ---


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../secret.safetensors"}}, "outside the folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "outside the folder"),
        ({"weight_map": {"a": "..\\secret"}}, "outside the folder"),
        ({"weight_map": {"a": ".."}}, "outside the folder"),
        ({"weight_map": {"a": "model-1.safetensors"}}, "shard model-1.safetensors is missing"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ({"weight_map": {"a": 3}}, "no weight_map"),
        ([], "not a JSON object"),
    ],
)
def test_hostile_folders(index: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, words)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1]", "\udcff"])
def test_broken_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(tmp_path, "config.json: not")


# --- every container, damaged at random ---


def written(kind: str) -> bytes:
    flat = flatten(scenic_tree(dim=4, heads=1, hidden=4, depth=1, grid=(1, 2, 2), tubelet=(1, 2, 2)))
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez(buffer, **flat)
    elif kind == "msgpack":
        tree = {key: packed(value) for key, value in flat.items()}
        buffer.write(msgpack.packb({"params": tree}, use_bin_type=True))
    elif kind == "safetensors":
        from safetensors.torch import save

        buffer.write(save({key: torch.from_numpy(value) for key, value in flat.items()}, {"vidcls": "{}"}))
    else:
        tensors = {key: torch.from_numpy(value) for key, value in flat.items()}
        torch.save(tensors, buffer, _use_new_zipfile_serialization=kind == "torch")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["npz", "msgpack", "safetensors", "torch", "legacy"])
def test_damage_never_ends_in_a_traceback(kind: str, tmp_path: Path) -> None:
    good, path = written(kind), tmp_path / "checkpoint"
    rng = np.random.default_rng(5)
    for attempt in range(150):
        data = bytearray(good)
        if attempt % 3 == 0:
            del data[int(rng.integers(1, len(data))) :]
        else:
            # Headers and directories lie at the two ends.
            for _ in range(int(rng.integers(1, 6))):
                near = int(rng.integers(0, min(1500, len(data))))
                data[near if attempt % 3 == 1 else -near] = int(rng.integers(0, 256))
        path.write_bytes(bytes(data))
        with suppress(CheckpointError):  # the damage may also be harmless
            load_checkpoint(path)
