"""Pickles that lead torch's safe mode into work without end, and the one object that may lie beside the weights."""

from __future__ import annotations

import argparse
import collections
import contextlib
import pathlib
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch

from tests.checkpoints.hostile_files import (
    ATTACKS,
    CONTAINERS,
    PROTO,
    as_legacy,
    as_zip,
    nested_encode,
    others,
    shared_tuple,
    tar_in_disguise,
    zip_of_many_entries,
)
from vidcls.checkpoints import load_checkpoint, open_raw
from vidcls.errors import CheckpointError, VidclsError


def refused(path: Path, words: str) -> None:
    """Opening ``path`` ends soon, in one readable line that does not pass on torch's advice."""
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=words) as caught:
        open_raw(path)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


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
    path = tar_in_disguise(tmp_path / "model.pth")
    assert tarfile.is_tarfile(path)
    refused(path, "tar archive in disguise")


def test_i13_1_a_zip_with_two_contents(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "model.pth", PROTO + b"}.")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", nested_encode(34))
    refused(path, "two contents")


def test_i13_3_a_zip_of_very_many_entries(tmp_path: Path) -> None:
    refused(zip_of_many_entries(tmp_path / "model.pth"), "more than 100,000 tensors")


def test_i13_1_every_other_hostile_file(tmp_path: Path) -> None:
    """Each is refused, or read for what it holds; no code of any is run."""
    mark = tmp_path / "mark"
    for name, write in others(mark).items():
        path = tmp_path / "model"
        write(path)
        start = time.perf_counter()
        with contextlib.suppress(VidclsError):
            load_checkpoint(path)
            raise AssertionError(f"{name}: loaded")
        assert time.perf_counter() - start < 8, name
        assert not mark.exists(), name


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
