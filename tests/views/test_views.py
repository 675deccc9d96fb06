"""Which frames, which crops, which numbers: against the published code's own output."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import golden_dirs
from vidcls.config import InputSpec
from vidcls.errors import ConfigError, VideoError
from vidcls.views.resize import resize_frame, resized_size
from vidcls.views.transform import (
    apply_transform,
    clip_crop,
    crop_offsets,
    frame_transform,
    input_from_preprocessor,
    make_views,
    normalize,
    pixel_scale_shift,
    plan_clips,
)

RANDOM = np.random.default_rng(0)


def random_frames(count: int, height: int, width: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def cut(video: np.ndarray, spec: InputSpec, fps: float = 25.0) -> np.ndarray:
    """The way of a clip without its decoder → (v, 3, t, h, w)."""
    plan = plan_clips(spec, num_frames=len(video), fps=fps)
    return make_views(apply_transform(video[plan.unique], spec), plan.unique, plan, spec)


def by_name(folder: Path) -> str:
    return f"{folder.parents[1].name}-{folder.name}"


# Frames


@pytest.mark.parametrize("folder", golden_dirs("scenic-preproc"), ids=by_name)
def test_scenic_frames(folder: Path) -> None:
    with np.load(folder / "frame_indices.npz") as cases:
        assert len(cases.files) == 55
        for name in cases.files:
            length, frames, stride, views = map(int, re.findall(r"\d+", name))
            spec = InputSpec(num_frames=frames, stride=stride, num_views=views)
            plan = plan_clips(spec, num_frames=length, fps=25.0)
            np.testing.assert_array_equal(plan.indices, cases[name], err_msg=name)
            assert plan.looped == bool(plan.warnings) == (length <= (frames - 1) * stride), name


def frame_tables(pattern: str) -> list[Any]:
    rows = []
    for folder in golden_dirs(pattern):
        for video, cases in json.loads((folder / "frame_indices.json").read_text()).items():
            rows += [pytest.param(video, case, ref, id=f"{video[:16]}-{case}") for case, ref in cases.items()]
    return rows


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize(("video", "case", "expected"), frame_tables("preprocess-timesformer-fb"))
def test_timesformer_frames(video: str, case: str, expected: list[int], stamped: bool) -> None:
    if "@" in video:
        length, fps = map(int, re.findall(r"\d+", video))
        frames, stride, view, views = map(int, re.findall(r"\d+", case))
        spec = InputSpec(num_frames=frames, stride=stride, num_views=views, sampling="timesformer", fps=30)
    else:
        length, frames = map(int, re.findall(r"\d+", case))
        fps, view = 12, 0
        spec = InputSpec(num_frames=frames, num_views=1, sampling="segments")
    times = np.arange(length) / fps if stamped else None
    plan = plan_clips(spec, num_frames=length, fps=fps, timestamps=times)
    assert plan.indices[view].tolist() == expected


@pytest.mark.parametrize(("video", "case", "expected"), frame_tables("preprocess-vtn"))
def test_vtn_frames(video: str, case: str, expected: dict[str, list[int]]) -> None:
    length, fps = map(int, re.findall(r"\d+", video))
    if case == "full_video_250":
        spec = InputSpec(num_frames=250, stride=1, num_views=1, sampling="vtn", fps=25)
    else:
        spec = InputSpec(num_frames=16, stride=8, num_views=1, sampling="timesformer", fps=25)
    plan = plan_clips(spec, num_frames=length, fps=fps)
    assert plan.indices[0].tolist() == expected["decoded"] == expected["frames_index"]


def test_uniform_frames_lie_in_the_middle_of_equal_parts() -> None:
    spec = InputSpec(num_frames=4, num_views=1, sampling="uniform")
    assert plan_clips(spec, num_frames=40, fps=25).indices.tolist() == [[5, 15, 25, 35]]
    two = plan_clips(spec.model_copy(update={"num_views": 2}), num_frames=40, fps=25).indices
    assert two.tolist() == [[2, 12, 22, 32], [7, 17, 27, 37]]
    short = plan_clips(spec, num_frames=2, fps=25)
    assert short.indices.tolist() == [[0, 0, 1, 1]]
    assert short.looped
    assert "too short: 2 frames where a view spans 4" in short.warnings[0]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sampling=st.sampled_from(["vivit", "timesformer", "vtn", "segments", "uniform"]),
    length=st.integers(1, 400),
    frames=st.integers(1, 40),
    stride=st.integers(1, 20),
    views=st.integers(1, 6),
    fps=st.floats(0.5, 240),
    target=st.one_of(st.sampled_from(["auto", "native"]), st.floats(0.5, 120)),
    jitter=st.integers(0, 3),
)
def test_plans_name_frames_that_exist(
    sampling: Any, length: int, frames: int, stride: int, views: int, fps: float, target: Any, jitter: int
) -> None:
    spec = InputSpec(num_frames=frames, stride=stride, num_views=views, sampling=sampling, fps=25)
    steps = np.random.default_rng(jitter).uniform(0, 1 + jitter, length)
    times = np.cumsum(steps if jitter else np.ones(length)) / fps
    plan = plan_clips(spec, num_frames=length, fps=fps, timestamps=times, target_fps=target)
    assert plan.indices.shape == (views, frames)
    assert plan.indices.dtype == np.int64
    assert plan.indices.min() >= 0
    assert plan.indices.max() < length
    assert (np.diff(plan.unique) > 0).all()
    if not plan.looped:
        assert (np.diff(plan.indices, axis=1) >= 0).all()


VIVIT = InputSpec(num_frames=8, stride=2, num_views=2, fps=25)


@pytest.mark.parametrize("fps", [25.0, 24.9, 25.2])
def test_the_trained_rate_counts_frames_as_they_are(fps: float) -> None:
    times = np.arange(100) / fps
    auto = plan_clips(VIVIT, num_frames=100, fps=fps, timestamps=times)
    native = plan_clips(VIVIT, num_frames=100, fps=fps, timestamps=times, target_fps="native")
    np.testing.assert_array_equal(auto.indices, native.indices)


@pytest.mark.parametrize("fps", [12.5, 50.0, 60.0, 29.97])
@pytest.mark.parametrize("stamps", ["none", "exact", "milliseconds"])
def test_another_rate_is_spaced_in_time(fps: float, stamps: str) -> None:
    times = np.arange(round(8 * fps)) / fps
    given_times = {"none": None, "exact": times, "milliseconds": times.round(3)}[stamps]
    plan = plan_clips(VIVIT, num_frames=len(times), fps=fps, timestamps=given_times)
    wanted = plan_clips(VIVIT, num_frames=200, fps=25.0).indices / 25
    error = wanted - times[plan.indices]
    # On the screen at that moment: begun, and not yet replaced; a tenth of a frame is left for rounded times.
    assert error.min() > -0.11 / fps
    assert error.max() < 1.01 / fps


def test_the_warning_says_at_which_rate_frames_were_counted() -> None:
    plan = plan_clips(VIVIT, num_frames=20, fps=50.0)
    short = "too short: 10 frames where a view spans 15; its frames were repeated (frames counted at 25 fps)"
    assert plan.warnings == (short,)
    plan = plan_clips(VIVIT, num_frames=1, fps=25.0)
    assert plan.warnings == ("too short: 1 frame where a view spans 15; its frames were repeated",)


def test_doubling_the_rate_doubles_the_numbers() -> None:
    at_25 = plan_clips(VIVIT, num_frames=100, fps=25.0).indices
    for noise in (0.0, 4e-4):
        times = np.arange(200) / 50 + RANDOM.uniform(-noise, noise, 200)
        at_50 = plan_clips(VIVIT, num_frames=200, fps=50.0, timestamps=times)
        np.testing.assert_array_equal(at_50.indices, 2 * at_25)


@pytest.mark.parametrize("sampling", ["vivit", "uniform", "segments", "timesformer", "vtn"])
def test_variable_frame_rate_comes_out_in_time(sampling: Any) -> None:
    # Two seconds at 50 frames a second, then six at 10: counting frames would dwell on the beginning.
    times = np.concatenate([np.arange(100) / 50, 2 + np.arange(60) / 10])
    spec = InputSpec(num_frames=8, stride=4, num_views=1, sampling=sampling, fps=20)
    plan = plan_clips(spec, num_frames=160, fps=20.0, timestamps=times)
    even = plan_clips(spec, num_frames=160, fps=20.0).indices / 20
    error = even - times[plan.indices]
    assert np.abs(error).max() < 0.11  # frames of the slow part stay for 0.1 s
    native = plan_clips(spec, num_frames=160, fps=20.0, timestamps=times, target_fps="native")
    assert np.abs(even - times[native.indices]).max() > 0.4


def test_a_number_overrides_the_trained_rate() -> None:
    spec = InputSpec(num_frames=4, stride=1, num_views=1)
    plan = plan_clips(spec, num_frames=60, fps=30.0, target_fps=10)
    assert plan.indices.tolist() == [[24, 27, 30, 33]]
    slow = InputSpec(num_frames=4, stride=1, num_views=1, sampling="timesformer", fps=30)
    assert plan_clips(slow, num_frames=60, fps=30.0, target_fps=10).indices.tolist() == [[0, 3, 7, 11]]
    assert plan_clips(slow, num_frames=60, fps=60.0, target_fps="native").indices.tolist() == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="positive"):
        plan_clips(spec, num_frames=60, fps=30.0, target_fps=0)


@pytest.mark.parametrize(
    ("fps", "times"),
    [
        (0.0, None),
        (float("nan"), np.zeros(50)),
        (30.0, np.full(50, np.nan)),
        (30.0, np.zeros(50)),
        (30.0, np.arange(7.0)),
        (30.0, np.linspace(0, 1e300, 50)),
        (30.0, np.arange(50)[::-1] / 30),
    ],
)
def test_senseless_times_are_not_believed(fps: float, times: np.ndarray | None) -> None:
    plan = plan_clips(VIVIT, num_frames=50, fps=fps, timestamps=times)
    assert plan.indices.shape == (2, 8)
    assert plan.indices.max() < 50
    if not fps > 0:
        assert "no frame rate" in plan.warnings[0]


def test_a_clip_without_frames_has_no_plan() -> None:
    with pytest.raises(ValueError, match="one frame"):
        plan_clips(VIVIT, num_frames=0, fps=25.0)


# Pixels


@pytest.mark.parametrize("folder", golden_dirs("scenic-preproc"), ids=by_name)
def test_scenic_pipeline_to_the_last_bit(folder: Path) -> None:
    cases = json.loads((folder / "case.json").read_text())["cases"]
    with np.load(folder / "pipeline.npz") as arrays:
        names = {key.split("/")[0] for key in arrays.files}
        assert names
        for name in names:
            case = cases[name]
            spec = InputSpec(
                num_frames=case["num_frames"],
                stride=case["stride"],
                num_views=case["num_test_clips"],
                num_crops=3 if case["three_spatial_crops"] else 1,
                image_size=case["crop_size"],
                resize=case["min_resize"],
            )
            size = resized_size(case["H"], case["W"], spec.resize, spec.resize_rule)
            assert list(size) == case["resized_hw"]
            offsets = crop_offsets(*size, spec.image_size, spec.num_crops)
            assert [list(o) for o in offsets] == case["crop_offsets_yx"]
            views = cut(arrays[f"{name}/video_u8"], spec)
            np.testing.assert_array_equal(views.transpose(0, 2, 3, 4, 1), arrays[f"{name}/out"], err_msg=name)


SLOWFAST = {"resize_rule": "float", "center_crop": "ceil", "scale": 1 / 255, "offset": 0.0}
MEAN_STD = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}


@pytest.mark.parametrize("folder", golden_dirs("preprocess-timesformer-fb", "preprocess-vtn"), ids=by_name)
def test_slowfast_pipeline(folder: Path) -> None:
    crops = 1 if folder.name.endswith("vtn") else 3
    with np.load(folder / "io.npz") as arrays:
        outputs = [key for key in arrays.files if key.startswith("out_")]
        assert outputs
        for key in outputs:
            shape, short, size, crop = re.fullmatch(r"out_(\w+)_s(\d+)_c(\d+)_crop(\d)", key).groups()
            spec = InputSpec(
                num_frames=3, stride=1, num_views=1, num_crops=crops, image_size=int(size), resize=int(short),
                **SLOWFAST, **MEAN_STD,
            )  # fmt: skip
            views = cut(arrays[f"frames_{shape}"], spec)
            np.testing.assert_allclose(
                views[int(crop) if crops == 3 else 0], arrays[key], atol=2e-6, err_msg=key
            )


def hf_settings(kind: str) -> dict[str, Any]:
    if kind == "timesformer":
        own = {"image_processor_type": "VideoMAEImageProcessor", "rescale_factor": 1 / 255}
        own |= {"image_mean": [0.45] * 3, "image_std": [0.225] * 3, "size": {"shortest_edge": 32}}
    else:
        own = {"image_processor_type": "VivitImageProcessor", "rescale_factor": 1 / 127.5}
        own |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 36}}
    switches = {"do_normalize": "nonorm" not in kind, "do_resize": True, "do_rescale": True, "resample": 2}
    return own | switches | {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}


@pytest.mark.parametrize("folder", golden_dirs("preprocess-hf"), ids=by_name)
def test_hugging_face_pipeline(folder: Path) -> None:
    with np.load(folder / "io.npz") as arrays:
        outputs = [key for key in arrays.files if not key.startswith("frames_")]
        assert outputs
        for key in outputs:
            kind, shape, version = re.fullmatch(r"(\w+)_(\w+)_(v\d+)", key).groups()
            fields = input_from_preprocessor({"num_frames": 3, "image_size": 32}, hf_settings(kind))
            if version == "v446":
                fields["resize_rule"] = "round"  # version 4 resized with Pillow throughout
            views = cut(arrays[f"frames_{shape}"], InputSpec(stride=1, num_views=1, **fields))
            np.testing.assert_allclose(views[0].transpose(1, 0, 2, 3), arrays[key], atol=1e-6, err_msg=key)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("rule", ["torchvision", "round", "float"])
def test_resize_equals_the_library_it_is_named_after(rule: str, kernel: str) -> None:
    torch = pytest.importorskip("torch")
    for _ in range(40):
        height, width, new_height, new_width = map(int, RANDOM.integers(1, 90, 4))
        frame = random_frames(1, height, width)[0]
        image = torch.from_numpy(frame).permute(2, 0, 1)[None]
        if rule == "round":
            from PIL import Image

            code = Image.Resampling[kernel.upper()]
            expected = np.asarray(Image.fromarray(frame).resize((new_width, new_height), code))
        elif kernel == "nearest":
            size = (new_height, new_width)
            expected = (
                torch.nn.functional.interpolate(image, size, mode="nearest-exact")[0].permute(1, 2, 0).numpy()
            )
        elif kernel == "bicubic" and rule == "float":
            with pytest.raises(ConfigError, match="bicubic"):
                resize_frame(frame, (new_height, new_width), rule, kernel, (0, new_height, 0, new_width))
            return
        else:
            antialias = rule == "torchvision"
            image = image if antialias else image.float()
            expected = torch.nn.functional.interpolate(
                image, (new_height, new_width), mode=kernel, align_corners=False, antialias=antialias
            )[0].permute(1, 2, 0).numpy()  # fmt: skip
        top, left = int(RANDOM.integers(new_height)), int(RANDOM.integers(new_width))
        window = (top, new_height, left, new_width)
        ours = resize_frame(frame, (new_height, new_width), rule, kernel, window)
        atol = 1e-3 if rule == "float" and kernel == "bilinear" else 0
        np.testing.assert_allclose(ours, expected[top:, left:], rtol=0, atol=atol)
        assert ours.dtype == (np.float32 if rule == "float" else np.uint8)


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("rule", ["truncate", "round", "torchvision", "float"])
@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (50, 50), (20, 70), (70, 11), (9, 9), (33, 32)])
@pytest.mark.parametrize("resize", [36, None, (34, 51)])
def test_cutting_while_decoding_changes_nothing(shape: Any, rule: Any, num_crops: Any, resize: Any) -> None:
    """The frames that a decoder keeps give the same views as whole frames, padded by hand and cropped late."""
    spec = InputSpec(
        num_frames=2, stride=1, num_views=1, num_crops=num_crops, image_size=(32, 24), resize=resize, resize_rule=rule,
        scale=1.0, offset=0.0,
    )  # fmt: skip
    video = random_frames(2, *shape)
    size = resized_size(*shape, resize, rule)
    whole = np.stack([resize_frame(f, size, rule, "bilinear", (0, size[0], 0, size[1])) for f in video])
    views = cut(video, spec)
    assert views.shape == (num_crops, 3, 2, 32, 24)
    assert views.dtype == np.float32
    assert views.flags["C_CONTIGUOUS"]
    padded = np.pad(whole, ((0, 0), (50, 50), (50, 50), (0, 0)))
    for view, (y, x) in zip(views, crop_offsets(*size, spec.image_size, num_crops), strict=True):
        expected = padded[:, y + 50 : y + 82, x + 50 : x + 74]
        np.testing.assert_array_equal(view.transpose(1, 2, 3, 0), expected)
    kept = frame_transform(spec)(video[0])
    assert kept.shape[0] * kept.shape[1] <= max(size[0], 32) * max(size[1], 24)


@pytest.mark.parametrize("height", range(28, 36))
def test_padding_as_resize_with_crop_or_pad(height: int) -> None:
    # TensorFlow pads floor((target - size) / 2) before, and cuts floor((size - target) / 2).
    (y, _), = crop_offsets(height, 40, (32, 32), 1)  # fmt: skip
    assert y == ((height - 32) // 2 if height >= 32 else -((32 - height) // 2))


def test_three_crops_run_along_the_longer_side() -> None:
    assert crop_offsets(256, 455, (224, 224), 3) == [(16, 0), (16, 116), (16, 231)]
    assert crop_offsets(455, 257, (224, 224), 3) == [(0, 17), (116, 17), (231, 17)]
    assert crop_offsets(257, 257, (224, 224), 3) == [(17, 0), (17, 17), (17, 33)]
    assert crop_offsets(257, 257, (224, 224), 1) == [(16, 16)]
    assert crop_offsets(257, 257, (224, 224), 1, "ceil") == [(17, 17)]


def test_views_are_crop_major() -> None:
    video = np.zeros((60, 8, 20, 3), np.uint8)
    video[..., 0] = np.arange(60)[:, None, None]
    video[..., 1] = np.arange(20)
    spec = InputSpec(
        num_frames=2, stride=1, num_views=2, num_crops=3, image_size=8, resize=None, scale=1.0, offset=0.0
    )
    views = cut(video, spec)
    assert views[:, 0, 0, 0, 0].tolist() == [0, 58, 0, 58, 0, 58]
    assert views[:, 1, 0, 0, 0].tolist() == [0, 0, 6, 6, 12, 12]


def test_channel_order_and_per_channel_numbers() -> None:
    video = np.zeros((1, 4, 4, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    fields: dict[str, Any] = {"num_frames": 1, "num_views": 1, "image_size": 4, "resize": None, "scale": 0.1}
    fields |= {"offset": 1.0, "mean": (1.0, 2.0, 3.0), "std": (1.0, 2.0, 4.0)}
    rgb = cut(video, InputSpec(**fields))
    np.testing.assert_allclose(rgb[0, :, 0, 0, 0], [1.0, 0.5, 0.25], atol=1e-6)
    # The numbers belong to the places that the checkpoint reads, whatever color is there.
    bgr = cut(video, InputSpec(**fields, channels="bgr"))
    np.testing.assert_allclose(bgr[0, :, 0, 0, 0], [3.0, 0.5, -0.25], atol=1e-6)


@pytest.mark.parametrize("rule", ["truncate", "float"])
def test_normalizing_later_gives_the_same(rule: Any) -> None:
    spec = InputSpec(num_frames=4, num_crops=3, image_size=16, resize=18, resize_rule=rule, **MEAN_STD)
    video = random_frames(20, 24, 40)
    plan = plan_clips(spec, num_frames=20, fps=25.0)
    frames = apply_transform(video[plan.unique], spec)
    places = np.searchsorted(plan.unique, plan.indices)
    pixels = np.concatenate([clip_crop(frames, spec, crop)[places] for crop in range(3)])
    assert pixels.shape == (12, 4, 16, 16, 3)
    assert pixels.dtype == (np.float32 if rule == "float" else np.uint8)
    views = make_views(frames, plan.unique, plan, spec)
    np.testing.assert_array_equal(normalize(pixels, spec), views)
    scale, shift = pixel_scale_shift(spec)
    on_device = pixels.astype(np.float32) * scale + shift
    np.testing.assert_allclose(on_device.transpose(0, 4, 1, 2, 3), views, atol=1e-6)


def test_frames_must_be_those_of_the_plan() -> None:
    spec = InputSpec(num_frames=2, stride=1, num_views=1, image_size=8, resize=None)
    plan = plan_clips(spec, num_frames=2, fps=25.0)
    with pytest.raises(ValueError, match="not those"):
        make_views(random_frames(1, 8, 8), np.array([0]), plan, spec)
    with pytest.raises(ValueError, match="not prepared"):
        make_views(random_frames(2, 6, 8), np.array([0, 1]), plan, spec)


def test_transform_travels_between_processes_without_torch_or_pydantic() -> None:
    transform = frame_transform(InputSpec())
    again = pickle.loads(pickle.dumps(transform))
    frame = random_frames(1, 300, 400)[0]
    np.testing.assert_array_equal(again(frame), transform(frame))
    code = (
        "import pickle, sys; pickle.loads(bytes.fromhex(sys.argv[1]));"
        "assert not {'torch', 'pydantic', 'transformers'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code, pickle.dumps(transform).hex()], check=True)


def test_extreme_frames_are_refused() -> None:
    with pytest.raises(VideoError, match="too unequal") as caught:
        frame_transform(InputSpec())(np.zeros((1, 16384, 3), np.uint8))
    assert caught.value.kind == "too_large"


# Hugging Face settings


CLASSES = {
    "VivitImageProcessor": {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 20}},
    "VideoMAEImageProcessor": {"size": {"shortest_edge": 30}, "crop_size": {"height": 28, "width": 26}},
    "TimesformerVideoProcessor": {"size": {"shortest_edge": 30}, "crop_size": {"height": 28, "width": 28}},
    "ViTImageProcessor": {"size": {"height": 24, "width": 30}},
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"do_normalize": False},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    {"resample": 3},
    {"rescale_factor": 1 / 200},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", CLASSES)
def test_settings_give_what_transformers_gives(name: str, variant: dict[str, Any]) -> None:
    pytest.importorskip("torchvision")
    transformers = pytest.importorskip("transformers", minversion="5")
    settings_ = CLASSES[name] | variant
    processor = getattr(transformers, name)(**settings_)
    video = random_frames(3, 45, 62)
    batch = list(video) if name == "ViTImageProcessor" else [list(video)]
    expected = np.asarray(processor(batch, return_tensors="np")["pixel_values"]).reshape(
        3, 3, *expected_size(name)
    )
    stored = json.loads(processor.to_json_string())
    for data in (stored, {k: v for k, v in stored.items() if k in settings_ or k.endswith("_type")}):
        fields = input_from_preprocessor({"num_frames": 3}, data)
        views = cut(video, InputSpec(stride=1, num_views=1, **fields))
        np.testing.assert_allclose(views[0].transpose(1, 0, 2, 3), expected, atol=2e-6)


def expected_size(name: str) -> tuple[int, int]:
    size = CLASSES[name].get("crop_size", CLASSES[name]["size"])
    return size["height"], size["width"]


VIVIT_FILE = {"image_processor_type": "VivitImageProcessor"}


def test_settings_of_many_ages() -> None:
    default = input_from_preprocessor({"num_frames": 32}, VIVIT_FILE)
    assert default["scale"] == pytest.approx(1 / 127.5)
    assert (default["offset"], default["mean"], default["resize"]) == (-1.0, (0.5, 0.5, 0.5), 256)
    assert InputSpec(**default).image_size == (224, 224)
    old = input_from_preprocessor({}, {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 200})
    assert (old["resize"], old["resize_rule"], old["offset"]) == (200, "round", 0.0)
    square = input_from_preprocessor({}, {"feature_extractor_type": "ViTFeatureExtractor", "size": 384})
    assert (square["resize"], square["image_size"]) == ((384, 384), (384, 384))
    nested = input_from_preprocessor({}, {"image_processor": VIVIT_FILE | {"crop_size": 112}})
    assert nested["image_size"] == (112, 112)
    by_model = input_from_preprocessor({"model_type": "timesformer"}, {"size": {"shortest_edge": 448}})
    assert (by_model["resize"], by_model["scale"]) == (448, pytest.approx(1 / 255))
    raw = input_from_preprocessor(
        {}, VIVIT_FILE | {"do_rescale": False, "offset": False, "do_normalize": False}
    )
    assert (raw["scale"], raw["offset"], raw["mean"]) == (1.0, 0.0, None)
    assert input_from_preprocessor({"num_frames": 8, "image_size": 32}, None) == {
        "num_frames": 8,
        "image_size": (32, 32),
    }
    uncropped = VIVIT_FILE | {"do_center_crop": False, "do_resize": False}
    assert input_from_preprocessor({"image_size": 64}, uncropped)["image_size"] == (64, 64)
    with pytest.raises(ConfigError, match="neither resizes nor crops"):
        input_from_preprocessor({}, uncropped)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({"size": {"shortest_edge": -1}}, "shortest_edge"),
        ({"size": {"shortest_edge": 10**400}}, "shortest_edge"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "size"),
        ({"size": "224"}, "size"),
        ({"size": []}, "size"),
        ({"size": {"shortest_edge": True}}, "shortest_edge"),
        ({"crop_size": {"height": 0, "width": 224}}, "crop_size"),
        ({"crop_size": {"height": 224}}, "crop_size"),
        ({"crop_size": [1, 2, 3]}, "crop_size"),
        ({"resample": 4}, "resample"),
        ({"resample": [2]}, "resample"),
        ({"resample": "sinc"}, "resample"),
        ({"do_resize": "yes"}, "do_resize"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"rescale_factor": float("nan")}, "rescale_factor"),
        ({"rescale_factor": 10**400}, "rescale_factor"),
        ({"do_rescale": False, "offset": True}, "offset"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_mean": [0.5, 0.5, None]}, "image_mean"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std"),
        ({"image_std": {"r": 1}}, "image_std"),
        ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type"),
        ({"image_processor_type": ["VivitImageProcessor"]}, "image_processor_type"),
        ({"image_processor_type": None}, "image_processor_type"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_odd_settings_are_refused_by_name(bad: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        input_from_preprocessor({}, VIVIT_FILE | bad)
    assert what in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("config", "preprocessor"),
    [
        ([], None),
        ({"num_frames": "32"}, None),
        ({"num_frames": -1}, None),
        ({"image_size": [224, 224, 3]}, None),
        ({"image_size": {"width": 3}}, None),
        ({}, ["VivitImageProcessor"]),
        ({}, {"do_resize": True}),
    ],
)
def test_odd_files_are_refused(config: Any, preprocessor: Any) -> None:
    with pytest.raises(ConfigError):
        input_from_preprocessor(config, preprocessor)
