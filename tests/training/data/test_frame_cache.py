"""Resized frames on the disk: the same clips as without, no decoding after the first epoch, bounded, damage is seen."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.clips import make_clip
from vidcls.config import InputSpec
from vidcls.errors import UsageError
from vidcls.training.data.dataset import ClipDataset
from vidcls.training.data.frame_cache import FrameCache
from vidcls.training.data.listing import Sample
from vidcls.training.recipe import Augment
from vidcls.training.trainer import train
from vidcls.video.reader import VideoReader

FRAMES, SIDE = 20, 32
PICTURES = FRAMES * SIDE * 48 * 3 + 128
"""Bytes of the file of one clip, 32 pixels high."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("cached")
    return [Sample(str(make_clip(folder / f"{i}.mp4", FRAMES, size=(64, 96))), ("x",)) for i in range(3)]


def dataset(clips: list[Sample], cache: FrameCache | None, augment: bool = True) -> ClipDataset:
    spec = InputSpec(num_frames=4, stride=2, num_views=1, image_size=(SIDE, SIDE), resize=SIDE)
    labels = [(0,)] * len(clips)
    return ClipDataset(clips, labels, spec, Augment() if augment else None, seed=3, cache=cache)


def made(folder: Path, max_bytes: int = 10 * PICTURES) -> FrameCache:
    cache = FrameCache(folder, max_bytes)
    cache.prepare()
    return cache


@pytest.mark.parametrize("augment", [True, False])
def test_cached_clips_are_the_same_and_are_not_decoded(
    clips: list[Sample], tmp_path: Path, augment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataset(clips, None, augment)
    wanted = [plain[epoch, i] for epoch in range(3) for i in range(3)]
    plain.close()
    cached = dataset(clips, made(tmp_path / "cache"), augment)
    first = [cached[0, i] for i in range(3)]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3

    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    for name in ("open", "read", "stream"):
        monkeypatch.setattr(VideoReader, name, refuse)
    found = [*first, *(cached[epoch, i] for epoch in (1, 2) for i in range(3))]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.views, other.views)
        assert torch.equal(one.indices, other.indices)


def test_damage_is_seen_and_decoded_anew(clips: list[Sample], tmp_path: Path) -> None:
    cached = dataset(clips, made(tmp_path / "cache"))
    whole = [cached[1, i].views for i in range(3)]
    for path in (tmp_path / "cache").glob("*.npy"):
        array = np.load(path, mmap_mode="r+")
        array[:, 3, 5] ^= 1
        array.flush()
    again = [cached[1, i].views for i in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    for path in (tmp_path / "cache").glob("*.json"):
        path.write_text("{}")
    assert torch.equal(cached[1, 0].views, whole[0])
    cached.close()


def test_the_cache_has_a_bound(clips: list[Sample], tmp_path: Path) -> None:
    cached = dataset(clips * 2, made(tmp_path / "cache", 4 * PICTURES))
    for i in range(3):
        cached[0, i]
    files = list((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 3
    # Another way to make pictures takes other room: there is some for one clip, and none for three.
    other = dataset(clips, made(tmp_path / "cache", 4 * PICTURES))
    other.spec = other.spec.model_copy(update={"interpolation": "bicubic", "resize_rule": "round"})
    old = max(path.stat().st_mtime for path in (tmp_path / "cache").glob("*.json")) - 3600
    for i, path in enumerate(sorted((tmp_path / "cache").glob("*.json"))):
        os.utime(path, (old + i, old + i))
    for i in range(3):
        other[0, i]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.npy")) <= 4 * PICTURES
    assert len(set((tmp_path / "cache").glob("*.npy")) - set(files)) == 3  # the oldest two went
    assert len(set((tmp_path / "cache").glob("*.npy")) & set(files)) == 1
    small = dataset(clips, made(tmp_path / "small", 3 * PICTURES))
    small[0, 0]
    assert not list((tmp_path / "small").glob("*.npy"))  # one clip may take a fourth
    for one in (cached, other, small):
        one.close()


def test_another_file_of_the_same_name_is_read(clips: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    shutil.copy(clips[0].path, path)
    cached = dataset([Sample(str(path), ("x",))], made(tmp_path / "cache"))
    before = cached[0, 0].views
    make_clip(path, np.full((FRAMES, 64, 96, 3), 200, np.uint8))
    assert not torch.equal(cached[0, 0].views, before)
    cached.close()


def test_a_folder_that_cannot_be_written_costs_only_time(clips: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cached = dataset(clips, FrameCache(tmp_path / "file", 10**9))
    plain = dataset(clips, None)
    assert torch.equal(cached[0, 0].views, plain[0, 0].views)
    cached.close()
    plain.close()


def test_a_run_with_the_cache_ends_with_the_same_weights(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDCLS_CACHE", str(tmp_path / "cache"))
    runs = [
        train(recipe(frame_cache=size, workers=1), tmp_path / str(size), device="cpu", quiet=True)
        for size in (0, 1)
    ]
    one, other = (load_file(run.weights) for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(list((tmp_path / "cache" / "frames").glob("*.npy"))) == 12
    with pytest.raises(UsageError, match="keeps frames of one size"):
        train(recipe(frame_cache=1, augment={"short_side": [40, 60]}), tmp_path / "other", device="cpu")
