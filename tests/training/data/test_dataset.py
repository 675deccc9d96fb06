"""Lists, their mistakes, the frames of training clips, and the order of batches."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.clips import make_clip, read_numbers
from vidcls.config import InputSpec
from vidcls.errors import UsageError
from vidcls.training import setup
from vidcls.training.camera_motion.loader import SyntheticLoader
from vidcls.training.data import listing, sets
from vidcls.training.data.classes import make_classes, unknown_labels
from vidcls.training.data.clips import Resize, random_clip
from vidcls.training.data.dataset import Batch, ClipDataset, ClipLoader, EpochSampler
from vidcls.training.data.listing import find_problems, read_listing
from vidcls.training.recipe import Augment


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.csv", "a.mp4,run\nb c.mp4,swim\n"),
        ("header.csv", "path,label\na.mp4,run\nb c.mp4,swim\n"),
        ("swapped.csv", "Label,n,Video\nrun,1,a.mp4\nswim,2,b c.mp4\n"),
        ("quoted.csv", '"a.mp4","run"\n"b c.mp4","swim"\n'),
        ("tabs.tsv", "a.mp4\trun\nb c.mp4\tswim\n"),
        ("tabs.txt", "path\tlabel\na.mp4\trun\nb c.mp4\tswim\n"),
        ("bom.csv", "\ufeffpath,label\r\na.mp4,run\r\n\r\nb c.mp4,swim\r\n"),
    ],
)
def test_tables_are_read(tmp_path: Path, name: str, text: str) -> None:
    found = read_listing(write(tmp_path / name, text))
    assert not found.problems
    assert [(Path(s.path), s.labels) for s in found.samples] == [
        (tmp_path / "a.mp4", ("run",)),
        (tmp_path / "b c.mp4", ("swim",)),
    ]


def test_lists_separated_by_spaces_have_numbers(tmp_path: Path) -> None:
    found = read_listing(
        write(tmp_path / "train.csv", "/data/a.mp4 3\n/data/b c.mp4 0\n"), videos="/elsewhere"
    )
    assert [(s.path, s.labels) for s in found.samples] == [("/data/a.mp4", ("3",)), ("/data/b c.mp4", ("0",))]
    assert make_classes(found) == (("0", "1", "2", "3"),)
    assert make_classes(found, ["w", "x", "y", "z"]) == (("w", "x", "y", "z"),)


def test_kinetics_annotations_are_mapped_onto_a_folder(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for path in ("abseiling/Ab_-1_000010_000020.mp4", "xyz.webm"):
        (clips / path).parent.mkdir(parents=True, exist_ok=True)
        (clips / path).write_bytes(b"x")
    rows = ["abseiling,Ab_-1,10,20,train", "yoga,xyz,3,13,train", "yoga,gone,0,10,train"]
    text = "label,youtube_id,time_start,time_end,split\n" + "\n".join(rows)
    found = read_listing(write(tmp_path / "k400.csv", text), videos=str(clips))
    assert [Path(s.path).relative_to(clips).as_posix() for s in found.samples] == [
        "abseiling/Ab_-1_000010_000020.mp4",
        "xyz.webm",
        "gone_000000_000010.mp4",
    ]
    assert [s.path for s in find_problems(found)[1]] == [str(clips / "gone_000000_000010.mp4")]


def test_folders_of_classes(folder: Path) -> None:
    found = read_listing(folder)
    assert make_classes(found) == (("down", "left", "right"),)
    assert len(found.samples) == 12


def test_a_folder_with_a_table_in_it(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", '"path",label,width\na.mp4,pan left,320\nsub/b.mp4,static,640\n')
    (tmp_path / "sub").mkdir()
    found = read_listing(tmp_path)
    assert [Path(s.path) for s in found.samples] == [tmp_path / "a.mp4", tmp_path / "sub/b.mp4"]
    assert [s.labels for s in found.samples] == [("pan left",), ("static",)]
    assert [s.origin for s in found.samples] == ["labels.csv:2", "labels.csv:3"]
    # One that only names the classes does not stand in the way of their folders.
    write(tmp_path / "labels.csv", "id,name\n0,sub\n")
    (tmp_path / "sub" / "b.mp4").touch()
    assert [s.labels for s in read_listing(tmp_path).samples] == [("sub",)]
    write(tmp_path / "labels.csv", "")
    assert [s.labels for s in read_listing(tmp_path).samples] == [("sub",)]


def test_several_heads_have_a_column_each(tmp_path: Path) -> None:
    found = read_listing(write(tmp_path / "l.csv", "path,verb,noun\na.mp4,2,cup\n"), heads=("noun", "verb"))
    assert found.samples[0].labels == ("cup", "2")
    assert make_classes(found) == (("cup",), ("0", "1", "2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,run\nb.mp4\n", "l.csv:2: 1 columns where 2 are needed"),
        ("a.mp4,run\n,run\n", "l.csv:2: the path is empty"),
        ("a.mp4,run\nb.mp4,\n", "l.csv:2: the label is empty"),
        ("a.mp4,Run\nb.mp4,run\n", "labels that differ only in spelling: 'Run' (1 clips), 'run' (1 clips)"),
        ("a.mp4,pan left\nb.mp4,pan_left\n", "differ only in spelling"),
        ("a.mp4,run\na.mp4,swim\n", "is 'swim' here and 'run' at l.csv:1"),
    ],
)
def test_mistakes_of_a_list(tmp_path: Path, text: str, message: str) -> None:
    problems, _ = find_problems(read_listing(write(tmp_path / "l.csv", text)), check_files=False)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize("text", ["", "name,thing\nfoo,bar\n"])
def test_lists_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        read_listing(write(tmp_path / "l.csv", text))


def test_everything_wrong_is_said_at_once(folder: Path, tmp_path: Path, recipe: Any) -> None:
    good = sorted(folder.rglob("*.mp4"))
    train = write(tmp_path / "train.csv", "".join(f"{p},{p.parent.name}\n" for p in good) + "gone.mp4,left\n")
    val = write(tmp_path / "val.csv", f"{good[0]},lft\nlost.mp4,left\n")
    plan = recipe(data=str(train), val=str(val))
    spec = setup.find_model(plan)
    with pytest.raises(UsageError) as error:
        sets.load_data(plan, spec)
    text = str(error.value)
    assert "2 files are missing and 1 mistake" in text
    assert "val.csv:1: label 'lft' (1 clips) is none of the 3 classes, did you mean 'left'?" in text
    assert f"no such file: {tmp_path / 'gone.mp4'}" in text
    assert f"no such file: {tmp_path / 'lost.mp4'}" in text
    assert "skip_missing=True" in text
    write(val, f"{good[0]},down\nlost.mp4,left\n")
    data = sets.load_data(plan.model_copy(update={"skip_missing": True}), spec)
    assert data.train is not None
    assert data.val is not None
    assert (len(data.train[0]), len(data.val[0])) == (12, 1)
    assert any("2 missing files are left out" in note for note in data.notes)
    assert any("1 clips are both trained on and validated with" in note for note in data.notes)


def test_labels_of_a_model_keep_its_order(tmp_path: Path) -> None:
    found = read_listing(write(tmp_path / "l.csv", "a.mp4,run\nb.mp4,swim\n"))
    assert make_classes(found, ["swim", "run"]) == (("swim", "run"),)
    assert make_classes(found, ["swim", "run", "fly"]) == (("run", "swim"),)
    assert not unknown_labels(found, [["swim", "run", "fly"]])


def spec(**changes: Any) -> InputSpec:
    values: dict[str, Any] = {"num_frames": 8, "stride": 2, "num_views": 1, "image_size": 32, "resize": 32}
    return InputSpec(**{**values, **changes})


def draws(view: InputSpec, length: int, fps: float = 25.0, count: int = 400) -> np.ndarray:
    rows = [random_clip(view, np.random.default_rng(i), num_frames=length, fps=fps) for i in range(count)]
    return np.stack(rows)


def test_vivit_clips_start_anywhere_that_scenic_allows() -> None:
    indices = draws(spec(), 30)
    starts = indices[:, 0]
    assert set(starts) == set(range(30 - 7 * 2))  # [0, max(L − (n − 1)·stride, 1))
    np.testing.assert_array_equal(indices, (starts[:, None] + np.arange(8) * 2) % 30)
    np.testing.assert_array_equal(draws(spec(), 5, count=3), np.tile(np.arange(8) * 2 % 5, (3, 1)))


def test_vivit_clips_are_spaced_in_time() -> None:
    """At 50 frames a second, a model of 25 takes every fourth frame for a stride of two."""
    indices = draws(spec(fps=25.0), 100, fps=50.0, count=50)
    assert (np.diff(indices, axis=1) == 4).all()


@pytest.mark.parametrize("sampling", ["timesformer", "vtn"])
def test_clips_measured_in_seconds(sampling: Any) -> None:
    indices = draws(spec(sampling=sampling, fps=30.0), 60, fps=30.0)
    assert indices.min() == 0
    assert indices[:, 0].max() == 43  # room: 60 − 16
    assert set(indices[:, -1] - indices[:, 0]) == {15}
    short = draws(spec(sampling=sampling, fps=30.0), 6, fps=30.0, count=5)
    assert short.max() == 5


def test_segments_are_drawn_one_frame_each() -> None:
    indices = draws(spec(sampling="segments"), 41)
    edges = np.round(np.arange(9) * 5.0).astype(int)
    assert (indices >= edges[:-1]).all()
    assert (indices <= edges[1:]).all()
    assert all(set(indices[:, j]) == set(range(edges[j], edges[j + 1] + 1)) for j in range(8))


@pytest.mark.parametrize("sampling", get_args(InputSpec.model_fields["sampling"].annotation))
@pytest.mark.parametrize("length", [1, 3, 40, 300])
def test_every_rule_has_its_random_form(sampling: Any, length: int) -> None:
    spec = InputSpec(num_frames=8, stride=4, sampling=sampling)
    drawn = {tuple(random_clip(spec, np.random.default_rng(i), num_frames=length, fps=25)) for i in range(20)}
    assert all(len(clip) == 8 and min(clip) >= 0 and max(clip) < length for clip in drawn)
    assert length < 300 or len(drawn) > 5


def test_a_window_is_spread_as_videomae_does() -> None:
    spec = InputSpec(num_frames=16, stride=4, sampling="videomae")
    clip = random_clip(spec, np.random.default_rng(0), num_frames=300, fps=30)
    assert (clip - clip[0]).tolist() == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    short = random_clip(spec, np.random.default_rng(0), num_frames=40, fps=30)
    assert short.tolist() == [0, 4, 8, 13, 17, 22, 26, 31, 35, 39, 39, 39, 39, 39, 39, 39]


def test_uniform_clips_cover_the_file() -> None:
    indices = draws(spec(sampling="uniform"), 80)
    assert (indices // 10 == np.arange(8)).all()
    assert draws(spec(sampling="uniform"), 3, count=20).max() == 2


def test_resize_in_the_decoder_is_that_of_the_views() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    assert Resize(32, "truncate", "bilinear")(frame).shape == (32, 44, 3)
    assert Resize(None, "truncate", "bilinear")(frame).shape == frame.shape
    assert Resize(32, "float", "bilinear")(frame).dtype == np.float32


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> list[listing.Sample]:
    root = tmp_path_factory.mktemp("numbered")
    paths = [make_clip(root / f"{i}.mp4", 40, size=(48, 96), options={"crf": "10"}) for i in range(3)]
    return [listing.Sample(str(path), ("x",)) for path in paths]


def test_a_training_clip_is_made_of_the_frames_drawn(numbered: list[listing.Sample]) -> None:
    view = spec(image_size=(48, 96), resize=None)
    dataset = ClipDataset(numbered, [(0,)] * 3, view, Augment(random_crop=False, flip=0.0), seed=5)
    batch = dataset[2, 1]
    expected = random_clip(view, np.random.default_rng([5, 2, 1]), num_frames=40, fps=25.0)
    pictures = ((batch.views[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert read_numbers(pictures) == expected.tolist()
    assert batch.indices[0].tolist() == (expected - expected.min()).tolist()
    dataset.close()


def test_clips_follow_from_seed_epoch_and_index_alone(numbered: list[listing.Sample]) -> None:
    setting = Augment.model_validate({"color": {}, "scale_jitter": (0.9, 1.3)})
    made = [ClipDataset(numbered, [(0,)] * 3, spec(), setting, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(made[0][0, 0].views, made[1][0, 0].views)
    assert not torch.equal(made[0][0, 0].views, made[0][1, 0].views)
    assert not torch.equal(made[0][0, 0].views, made[2][0, 0].views)
    for dataset in made:
        dataset.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_what_is_made(numbered: list[listing.Sample], workers: int) -> None:
    setting = Augment()
    dataset = ClipDataset(numbered * 4, [(i,) for i in range(12)], spec(), setting, seed=3)
    loader = ClipLoader(dataset, EpochSampler(12, 4, 2, seed=3), workers)
    groups = list(loader.epoch(1))
    assert [len(group) for group in groups] == [2, 2, 2]
    assert sorted(int(i) for group in groups for part in group for i in part.labels) == list(range(12))
    for part in groups[1]:
        for views, label in zip(part.views, part.labels, strict=True):
            assert torch.equal(views, dataset[1, int(label)].views[0])
    again = list(loader.epoch(1, start=2))
    assert len(again) == 1
    assert torch.equal(again[0][1].views, groups[2][1].views)
    loader.close()


def test_bad_clips_give_their_place_to_the_next(numbered: list[listing.Sample], tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.mp4", "no video")
    samples = [numbered[0], listing.Sample(str(bad), ("x",)), numbered[2]]
    dataset = ClipDataset(samples, [(0,), (1,), (2,)], spec(), Augment(), seed=0)
    batch = dataset[0, 1]
    assert int(batch.labels) == 2
    assert [path for path, _ in batch.bad] == [str(bad)]
    test = ClipDataset(samples, [(0,), (1,), (2,)], spec(), None)
    assert len(test[0, 1]) == 0
    assert len(test[0, 0]) == 1
    dataset.close()
    test.close()


def test_a_clip_that_vanishes_is_reported(numbered: list[listing.Sample], tmp_path: Path) -> None:
    copy = shutil.copy(numbered[0].path, tmp_path / "copy.mp4")
    dataset = ClipDataset([listing.Sample(str(copy), ("x",))], [(0,)], spec(), Augment())
    assert dataset[0, 0].error is None
    Path(copy).unlink()
    batch = dataset[1, 0]
    assert batch.error is not None
    assert "not_found" in str(batch.error)
    dataset.close()


def test_every_clip_comes_once_an_epoch_and_in_another_order() -> None:
    sampler = EpochSampler(10, 4, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set(epoch)
        keys = [key for batch in sampler for key in batch]
        assert len(keys) == len(set(keys)) == 10  # the last batch holds two
        assert {key[0] for key in keys} == {epoch}
        orders.append([index for _, index in keys])
    assert orders[0] != orders[1]
    sampler.set(1, start=1)
    assert [index for batch in sampler for _, index in batch] == orders[1][4:]


def test_devices_share_each_batch() -> None:
    shares = [EpochSampler(16, 8, 2, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    whole = EpochSampler(16, 8, seed=1)
    assert [share.parts for share in shares] == [2, 2]
    first = [[key for part in list(share)[:2] for key in part] for share in shares]
    assert sorted(first[0] + first[1]) == sorted(next(iter(whole)))


@pytest.mark.parametrize(("length", "world_size"), [(17, 2), (9, 4), (5, 4), (8, 2)])
def test_the_last_batch_is_shared_evenly(length: int, world_size: int) -> None:
    shares = [
        [key for part in EpochSampler(length, 8, 1, seed=1, rank=r, world_size=world_size) for key in part]
        for r in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    assert {index for share in shares for _, index in share} == set(range(length))


def test_a_balanced_epoch_has_each_label_equally_often() -> None:
    labels = [("a",)] * 17 + [("b",)] * 2 + [("c",)]
    sampler = EpochSampler(20, 6, seed=1, balance=labels)
    orders = []
    for epoch in (0, 0, 1):
        sampler.set(epoch)
        batches = [[index for _, index in batch] for batch in sampler]
        assert len(batches) == sampler.steps == 3
        assert all(
            Counter(labels[i] for i in batch) == {("a",): 2, ("b",): 2, ("c",): 2} for batch in batches
        )
        orders.append([index for batch in batches for index in batch])
    assert orders[0] == orders[1] != orders[2]
    assert len({index for index in orders[0] if index < 17}) == 6  # a large class repeats none


@pytest.mark.parametrize("workers", [0, 1])
def test_synthetic_clips_go_on_in_the_middle(workers: int) -> None:
    loader = SyntheticLoader(fake_block, 6, spec(image_size=(4, 4), resize=None), 10, 4, 2, workers=workers)
    whole = [[part.labels.flatten().tolist() for part in group] for group in loader.epoch(1)]
    assert whole == [[[10, 11], [12, 13]], [[14, 15], [16, 17]]]
    rest = list(loader.epoch(1, start=1))
    assert [part.labels.flatten().tolist() for part in rest[0]] == [[14, 15], [16, 17]]
    assert isinstance(rest[0][0], Batch)
    assert rest[0][0].views.shape == (2, 3, 8, 4, 4)


def fake_block(number: int) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """Six clips whose labels count on over the blocks."""
    return [
        (np.full((8, 4, 4, 3), i, np.uint8), i, np.zeros((7, 4))) for i in range(number * 6, number * 6 + 6)
    ]


def test_camera_motion_is_trained_from_clips_made_on_the_fly(recipe: Any, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    from vidcls.training.trainer import train

    plan = recipe(
        data="synthetic:camera-motion",
        config={"image_size": 16, "tubelet_size": [2, 8, 8], "depth": 2, "pool": "gap"},
        input={"num_frames": 8, "stride": 8, "fps": 25},
        init={"from": "none", "whiten": 8},
        synthetic={"motion_loss": 1.0, "plain_steps": 1},
        clips_per_epoch=16,
        batch_size=8,
        ema=0.9,
        schedule={"epochs": 1},
    )
    result = train(plan, tmp_path / "run", device="cpu", quiet=True)
    assert result.steps == 2
    assert "pan left" in (tmp_path / "run" / "labels.txt").read_text()
