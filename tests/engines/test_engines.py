"""Engines: the same logits whatever runs the model, and what is shared between views is computed once."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from vidcls.config import InputSpec, load_registry
from vidcls.engines import Engine, check_names, choose_precision, lazy, make_engine, surely_cpu
from vidcls.engines.select import EngineRequest, choose
from vidcls.engines.torch import EagerEngine
from vidcls.errors import DeviceError
from vidcls.inference.clip import Clip
from vidcls.inference.shared_units import batches, cut_clip, score_clip
from vidcls.models import build
from vidcls.video.reader import VideoInfo
from vidcls.views.transform import ClipPlan, pixel_scale_shift

TINY = [name for name, spec in load_registry().items() if "tiny" in name and spec.weights is None]
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


def make_model(name: str) -> tuple[Any, InputSpec]:
    """A tiny model with weights large enough for mistakes to show."""
    spec = load_registry()[name]
    torch.manual_seed(1)
    model = build(spec.architecture, **spec.config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.2)
    return model, spec.input


def make_clip(spec: InputSpec, indices: np.ndarray) -> Clip:
    """A clip of noise, as if it had been read."""
    unique = np.unique(indices)
    noise = np.random.default_rng(0)
    height, width = spec.image_size[0] + 3, spec.image_size[1] + 8
    frames = noise.integers(0, 256, (len(unique), height, width, 3), np.uint8)
    info = VideoInfo("clip", 99, 25.0, 4.0, width, height, 0, "raw", "none", np.arange(99) / 25, False)
    return Clip(frames, unique, ClipPlan(indices, False, ()), spec, info, "none", ())


def windows(frames: int, step: int, count: int) -> np.ndarray:
    return np.arange(frames)[None] + step * np.arange(count)[:, None]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("crops", [1, 3])
def test_shared_units_change_no_logit(name: str, crops: int) -> None:
    model, spec = make_model(name)
    spec = spec.model_copy(update={"num_crops": crops})
    clip = make_clip(spec, windows(spec.num_frames, 4, 5))
    engine = make_engine(model, "cpu", "fp32")
    indices = clip.view_indices if type(model).uses_frame_indices else None
    plain = engine(clip.views, indices)
    whole = engine(cut_clip(clip, 0)[: 5 * crops], indices, pixel_scale_shift(spec))
    assert np.abs(whole - plain).max() < 1e-5
    logits, counts = score_clip(engine, clip, indices)
    assert (counts is not None) == bool(engine.unit_frames)
    if counts is not None:
        units, encoded = counts
        assert np.abs(logits - plain).max() < 1e-5
        assert units == crops * 5 * spec.num_frames // engine.unit_frames
        # Five windows, each four frames later than the one before, together span 16 frames more than one.
        assert encoded == crops * (spec.num_frames + 16) // engine.unit_frames


def test_tubelets_are_shared_only_where_all_their_frames_are() -> None:
    model, spec = make_model("vivit-fe-tiny")
    engine = make_engine(model, "cpu", "fp32")
    assert engine.unit_frames == 2
    clip = make_clip(spec, windows(spec.num_frames, 1, 2))  # shifted by half a tubelet: no two are alike
    logits, counts = score_clip(engine, clip, None)
    assert counts == (spec.num_frames, spec.num_frames)
    assert np.abs(logits - engine(clip.views)).max() < 1e-5


def test_pixels_are_cut_as_views_are() -> None:
    spec = InputSpec(num_frames=4, image_size=(8, 8), resize=10, num_crops=3, channels="bgr")
    clip = make_clip(spec, windows(4, 2, 3))
    scale, shift = pixel_scale_shift(spec)
    parts = [cut_clip(clip, 0)[part] for part in batches(9, 4)]
    assert [len(part) for part in parts] == [4, 4, 1]
    pixels = np.concatenate(parts)
    assert pixels.dtype == np.uint8
    assert np.abs((pixels * scale + shift).transpose(0, 4, 1, 2, 3) - clip.views).max() < 1e-6


@needs_openvino
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", TINY)
def test_openvino_gives_the_logits_of_pytorch(name: str) -> None:
    from vidcls.engines.export import measure_error, openvino_parts
    from vidcls.engines.openvino import OpenVINOEngine

    model, spec = make_model(name)
    parts = openvino_parts(model, spec.num_frames, spec.image_size)
    spec = spec.model_copy(update={"num_crops": 1})
    eager = make_engine(model, "cpu", "fp32")
    engine: Engine = OpenVINOEngine(parts, "fp32", eager.unit_frames)
    assert measure_error(model, engine, spec) < 1e-5
    clip = make_clip(spec, windows(spec.num_frames, 4, 3))
    indices = clip.view_indices if type(model).uses_frame_indices else None
    plain = eager(clip.views, indices)
    scale_shift = pixel_scale_shift(spec)
    engine.prepare(np.dtype(np.uint8), scale_shift)
    pixels = cut_clip(clip, 0)[:3]
    assert np.abs(engine(pixels, indices, scale_shift) - plain).max() < 1e-5
    assert np.abs(engine(clip.views, indices) - plain).max() < 1e-5
    # The normalization is part of the graph: another one makes another graph.
    other = (scale_shift[0] * 2, scale_shift[1] + 1)
    assert np.abs(engine(pixels, indices, other) - eager(pixels, indices, other)).max() < 1e-5
    floats = pixels.astype(np.float32) + 0.25
    assert np.abs(engine(floats, indices, scale_shift) - eager(floats, indices, scale_shift)).max() < 1e-5
    if engine.unit_frames:
        assert np.abs(score_clip(engine, clip, indices)[0] - plain).max() < 1e-5


@needs_openvino
def test_a_wrong_conversion_is_found() -> None:
    from vidcls.engines.export import measure_error, openvino_parts
    from vidcls.engines.openvino import OpenVINOEngine

    model, spec = make_model("vit-tiny-frames")
    parts = openvino_parts(model, spec.num_frames, spec.image_size)
    model.head.bias = torch.nn.Parameter(model.head.bias + 0.01)  # not in place: the two share their memory
    with pytest.raises(DeviceError, match="differ by"):
        measure_error(model, OpenVINOEngine(parts, "fp32", 1), spec)


@needs_openvino
def test_precisions_that_the_cpu_lacks_are_refused() -> None:
    from vidcls.engines.openvino import settings

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    assert settings(Core(), "fp32")["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings(Core(), "int8")["INFERENCE_PRECISION_HINT"] == "f32"
    with pytest.raises(DeviceError, match="bf16"):
        settings(Core(), "bf16")


def test_bf16_is_close_and_whole() -> None:
    model, spec = make_model("vivit-fe-tiny")
    clip = make_clip(spec, windows(spec.num_frames, 4, 2))
    exact = make_engine(model, "cpu", "fp32")(clip.views)
    rounded = make_engine(model, "cpu", "bf16")(clip.views)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["vivit-st-tiny", "vivit-fe-tiny", "vtn-tiny"])
def test_cuda_takes_pixels_and_agrees_with_the_cpu(name: str, precision: str) -> None:
    model, spec = make_model(name)
    clip = make_clip(spec, windows(spec.num_frames, 4, 3))
    indices = clip.view_indices if type(model).uses_frame_indices else None
    expected = make_engine(model, "cpu", "fp32")(clip.views, indices)
    engine = make_engine(model, "cuda", precision)
    assert choose_precision("auto", "cuda") in ("bf16", "fp16")
    found = engine(cut_clip(clip, 0)[:3], indices, pixel_scale_shift(spec))
    assert np.abs(found - expected).max() < (1e-3 if precision == "fp32" else 0.1)


@pytest.mark.slow
def test_compile_gives_the_logits_of_eager() -> None:
    model, spec = make_model("vivit-fe-tiny")
    clip = make_clip(spec, windows(spec.num_frames, 4, 2))
    plain = make_engine(model, "cpu", "fp32")(clip.views)
    try:
        compiled = make_engine(model, "cpu", "fp32", "compile")
    except DeviceError as error:
        pytest.skip(str(error))
    assert np.abs(compiled(clip.views) - plain).max() < 1e-5
    assert np.abs(score_clip(compiled, clip, None)[0] - plain).max() < 1e-5


def test_a_lazy_engine_is_made_once_and_when_needed() -> None:
    model, spec = make_model("vivit-fe-tiny")
    made = []

    def make() -> Engine:
        made.append(make_engine(model, "cpu", "fp32"))
        return made[-1]

    engine: Any = lazy(make, 2)
    assert engine.unit_frames == 2
    assert not made
    clip = make_clip(spec, windows(spec.num_frames, 4, 2))
    assert np.array_equal(engine(clip.views), engine.engine(clip.views))
    assert (engine.name, engine.device, engine.precision) == ("eager", "cpu", "fp32")
    assert len(made) == 1


AUTO = EngineRequest()


@pytest.mark.parametrize(
    ("request_", "device", "macs", "exported", "expected"),
    [
        (AUTO, "cpu", None, False, "eager"),
        (AUTO, "cpu", None, True, "openvino"),
        (AUTO, "cpu", 1e9, True, "numpy"),
        (AUTO, "cpu", 1e12, True, "openvino"),
        (AUTO, "cpu", 1e12, False, "eager"),
        (AUTO, "cuda:1", 1e9, True, "eager"),
        (AUTO, "mps", 1e9, True, "eager"),
        (EngineRequest(precision="bf16"), "cpu", 1e9, True, "openvino"),
        (EngineRequest(precision="bf16"), "cpu", 1e9, False, "eager"),
        (EngineRequest(precision="fp16"), "cpu", 1e9, True, "eager"),
        (EngineRequest(precision="int8"), "cpu", 1e9, False, "openvino"),
        (EngineRequest("compile"), "cpu", 1e9, True, "compile"),
        (EngineRequest("openvino"), "cpu", 1e9, False, "openvino"),
    ],
)
def test_the_rule_of_auto(
    request_: EngineRequest, device: str, macs: float | None, exported: bool, expected: str
) -> None:
    assert choose(request_, device, numpy_macs=macs, exported=exported) == expected


def test_names_are_checked() -> None:
    check_names("eager", "bf16")
    for engine, precision in (("fast", "fp32"), ("eager", "fp8"), ("eager", "int8")):
        with pytest.raises(DeviceError):
            check_names(engine, precision)
    assert surely_cpu("cpu")
    assert not surely_cpu("cuda:0")


@needs_openvino
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_cannot_be_converted_says_so() -> None:
    from vidcls.engines.export import openvino_parts

    class Stubborn(torch.nn.Module):
        def forward(self, views: torch.Tensor) -> torch.Tensor:
            return views * float(views.sum())  # depends on the data: no graph can be made of it

    with pytest.raises(DeviceError, match="cannot convert"):
        openvino_parts(Stubborn(), 2, (8, 8))


def test_a_failure_of_the_compiler_is_one_line() -> None:
    from torch._inductor.exc import InductorError

    def forward(views: torch.Tensor) -> torch.Tensor:
        raise InductorError(TypeError("CantSplit"), None)

    model, spec = make_model("vivit-fe-tiny")
    engine = make_engine(model, "cpu", "fp32")
    assert isinstance(engine, EagerEngine)
    engine._forward = forward
    clip = make_clip(spec, windows(spec.num_frames, 4, 2))
    with pytest.raises(DeviceError, match=r"torch\.compile failed .*CantSplit.*engine=eager"):
        engine(clip.views)
