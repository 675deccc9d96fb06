"""Frames, crops and pixels of VideoMAE, V-JEPA 2 and timm: against the published code's own output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import golden_dirs
from vidcls.config import InputSpec
from vidcls.errors import ConfigError
from vidcls.views.resize import resize_frame
from vidcls.views.transform import (
    apply_transform,
    crop_offsets,
    input_from_preprocessor,
    make_views,
    plan_clips,
)

IMAGENET: dict[str, Any] = {
    "scale": 1 / 255,
    "offset": 0.0,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "k400_16x4_5clips": {"sampling": "videomae", "num_frames": 16, "stride": 4, "num_views": 5},
    "k400_16x4_7clips": {"sampling": "videomae", "num_frames": 16, "stride": 4, "num_views": 7},
    "ssv2_16_2clips": {"sampling": "videomae-sparse", "num_frames": 16, "stride": 1, "num_views": 2},
    "v2_sparse_16_2clips_where_different": {},
    "v2_sparse_16_3clips": {"sampling": "videomae-sparse", "num_frames": 16, "stride": 1, "num_views": 3},
    "ssv2_16x4_2clips": {"sampling": "vjepa2", "num_frames": 16, "stride": 4, "num_views": 2},
    "ssv2_64x2_2clips": {"sampling": "vjepa2", "num_frames": 64, "stride": 2, "num_views": 2},
    "diving48_32x2_4clips": {"sampling": "vjepa2", "num_frames": 32, "stride": 2, "num_views": 4},
}


def cut(video: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The way of a clip without its decoder → (v, 3, t, h, w)."""
    plan = plan_clips(spec, num_frames=len(video), fps=25.0)
    return make_views(apply_transform(video[plan.unique], spec), plan.unique, plan, spec)


def protocols() -> list[Any]:
    found = []
    for folder in golden_dirs("preprocess-videomae", "preprocess-vjepa2"):
        tables = json.loads((folder / "frame_indices.json").read_text())
        for name, videos in tables.items():
            if name != "note":
                found.append(pytest.param(name, videos, id=f"{folder.parents[1].name}-{name}"))
    return found


@pytest.mark.parametrize(("name", "videos"), protocols())
def test_frames_of_the_published_test(name: str, videos: dict[str, Any]) -> None:
    spec = InputSpec(fps=None, **PROTOCOLS[name])
    for length, expected in videos.items():
        plan = plan_clips(spec, num_frames=int(length), fps=30.0)
        np.testing.assert_array_equal(plan.indices, expected, err_msg=length)


@given(
    rule=st.sampled_from(("videomae", "videomae-sparse", "vjepa2")),
    length=st.integers(1, 500),
    frames=st.integers(1, 40),
    stride=st.integers(1, 9),
    views=st.integers(1, 7),
)
def test_any_length_gives_frames_of_the_file_in_order(
    rule: Any, length: int, frames: int, stride: int, views: int
) -> None:
    spec = InputSpec(sampling=rule, num_frames=frames, stride=stride, num_views=views)
    plan = plan_clips(spec, num_frames=length, fps=25.0)
    assert plan.indices.shape == (views, frames)
    assert plan.indices.min() >= 0
    assert plan.indices.max() < length
    assert (np.diff(plan.indices, axis=1) >= 0).all()
    assert (np.diff(plan.indices[:, 0]) >= 0).all()


# Pixels


def pictures(pattern: str) -> list[Any]:
    return [
        pytest.param(folder, side, id=f"{folder.parents[1].name}-{side}")
        for folder in golden_dirs(pattern)
        for side in ("landscape", "portrait")
    ]


@pytest.mark.parametrize(("folder", "side"), pictures("preprocess-videomae"))
def test_videomae_pixels(folder: Path, side: str) -> None:
    config = json.loads((folder / "case.json").read_text())["hf_config"]
    two = {"num_frames": 2, "stride": 1, "num_views": 1, "sampling": "uniform"}
    with np.load(folder / "io.npz") as io:
        video = io[f"frames_{side}"]
        fields = input_from_preprocessor(
            {}, {**config, "image_processor_type": "VideoMAEImageProcessor", "resample": 2}
        )
        views = cut(video, InputSpec(**{**two, **fields}))
        np.testing.assert_allclose(views[0].transpose(1, 0, 2, 3), io[f"hf_{side}"], atol=1e-5)
        spec = InputSpec(
            **two,
            **IMAGENET,
            num_crops=3,
            three_crops="floor",
            image_size=32,
            resize=32,
            resize_rule="opencv",
        )
        np.testing.assert_allclose(cut(video, spec), io[f"original_3crops_{side}"], atol=1e-5)


@pytest.mark.parametrize(("folder", "side"), pictures("preprocess-vjepa2"))
def test_vjepa2_pixels(folder: Path, side: str) -> None:
    config = json.loads((folder / "case.json").read_text())["hf_config"]
    two = {"num_frames": 2, "stride": 1, "num_views": 1, "sampling": "uniform", "image_size": 28}
    with np.load(folder / "io.npz") as io:
        video = io[f"frames_{side}"]
        # The class sets ``size`` itself, whatever the file says.
        config = {**config, "size": {"shortest_edge": 999}, "video_processor_type": "VJEPA2VideoProcessor"}
        fields = input_from_preprocessor({}, config)
        views = cut(video, InputSpec(**{**two, **fields}))
        np.testing.assert_allclose(views[0].transpose(1, 0, 2, 3), io[f"hf_{side}"], atol=1e-5)
        center = InputSpec(**two, **IMAGENET, resize=32, resize_rule="opencv", center_crop="round")
        np.testing.assert_allclose(cut(video, center)[0], io[f"original_centre_{side}"], atol=1e-5)
        three = InputSpec(
            **two, **IMAGENET, resize=28, resize_rule="opencv", num_crops=3, three_crops="steps"
        )
        np.testing.assert_allclose(cut(video, three), io[f"original_3views_{side}"], atol=1e-5)


@given(
    height=st.integers(2, 60),
    width=st.integers(2, 60),
    new_height=st.integers(1, 70),
    new_width=st.integers(1, 70),
    data=st.data(),
)
def test_a_window_of_opencvs_resize_is_that_part_of_the_whole(
    height: int, width: int, new_height: int, new_width: int, data: st.DataObject
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left = data.draw(st.integers(0, new_height - 1)), data.draw(st.integers(0, new_width - 1))
    size = (new_height, new_width)
    whole = resize_frame(frame, size, "opencv", "bilinear", (0, new_height, 0, new_width))
    part = resize_frame(frame, size, "opencv", "bilinear", (top, new_height, left, new_width))
    np.testing.assert_array_equal(part, whole[top:, left:])
    flat = np.full_like(frame, 200)
    same = resize_frame(flat, size, "opencv", "bilinear", (0, new_height, 0, new_width))
    assert np.abs(same.astype(int) - 200).max() <= 1


def test_opencv_knows_one_kernel() -> None:
    with pytest.raises(ConfigError, match="'bicubic' does not go with resize_rule 'opencv'"):
        apply_transform(
            np.zeros((1, 4, 4, 3), np.uint8), InputSpec(resize_rule="opencv", interpolation="bicubic")
        )


def test_crops_of_odd_room() -> None:
    assert crop_offsets(32, 43, (32, 32), 3, "ceil") == [(0, 0), (0, 6), (0, 11)]
    assert crop_offsets(32, 43, (32, 32), 3, "floor") == [(0, 0), (0, 5), (0, 11)]
    assert crop_offsets(32, 43, (32, 32), 3, "steps") == [(0, 0), (0, 5), (0, 10)]
    assert crop_offsets(37, 43, (32, 32), 1, "round") == [(2, 6)]
