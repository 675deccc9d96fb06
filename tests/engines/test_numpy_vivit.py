"""NumPy's engine: the logits of PyTorch, without torch, and nothing that is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.clips import make_clip
from vidcls.checkpoints import save_checkpoint
from vidcls.engines import numpy_vivit as small
from vidcls.engines.select import EngineRequest, engine_for, numpy_engine_of
from vidcls.engines.torch import EagerEngine
from vidcls.errors import CheckpointError, DeviceError
from vidcls.inference.load import load
from vidcls.models import build
from vidcls.models.count import count
from vidcls.zoo.facts import plain_config
from vidcls.zoo.find import find_model

SIZES = {
    "image_size": (20, 36), "num_frames": 6, "tubelet_size": (2, 8, 8), "num_classes": 5, "embed_dim": 24, "depth": 2,
    "num_heads": 2,
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {"pool": "gap"},
    {"pool": "token", "temporal_num_heads": 3, "temporal_mlp_ratio": 2.0},
    {"pool": "gap", "temporal_depth": 0, "qkv_bias": False},
    {"pool": "token", "representation_size": 7, "mlp_ratio": 1.5, "norm_eps": 1e-3},
]
AFFINE = np.array([0.01, 0.02, 0.03], np.float32), np.array([-1.0, -0.9, -1.2], np.float32)


def model_of(**changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build("vivit-fe", **{"temporal_depth": 2, **SIZES, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("changes", CHANGES)
def test_logits_are_those_of_pytorch(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    ours, theirs = numpy_engine_of(model), EagerEngine(model, "cpu", "fp32")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 6, 20, 36, 3)).astype(np.uint8)
    views = rng.normal(size=(3, 3, 6, 20, 36)).astype(np.float32)
    assert theirs(views).std() > 0.1
    np.testing.assert_allclose(ours(views), theirs(views), atol=1e-5, rtol=0)
    np.testing.assert_allclose(ours(pixels, None, AFFINE), theirs(pixels, None, AFFINE), atol=1e-5, rtol=0)
    units = pixels.reshape(9, 2, 20, 36, 3)
    features = ours.encode(units, AFFINE)
    np.testing.assert_allclose(features, theirs.encode(units, AFFINE), atol=1e-5, rtol=0)
    features = features.reshape(3, 3, -1)
    np.testing.assert_allclose(ours.classify(features), theirs.classify(features), atol=1e-5, rtol=0)


def test_many_units_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = numpy_engine_of(model_of(pool="gap"))
    units = np.random.default_rng(0).integers(0, 256, (7, 2, 20, 36, 3)).astype(np.uint8)
    whole = engine.encode(units, AFFINE)
    monkeypatch.setattr(small, "UNIT_BATCH", 3)
    np.testing.assert_allclose(engine.encode(units, AFFINE), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("changes", CHANGES)
def test_shapes_are_those_of_the_model(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    assert small.shapes(plain_config(model)) == {k: tuple(v.shape) for k, v in model.state_dict().items()}


def test_the_cost_is_near_the_count() -> None:
    model = model_of(pool="gap", embed_dim=96)
    found = small.macs(plain_config(model), units=3, views=1)
    assert found == pytest.approx(count(model, 6, (20, 36)).macs, rel=0.02)


def test_others_are_refused() -> None:
    with pytest.raises(DeviceError, match="factorized encoders with the tanh GELU"):
        numpy_engine_of(model_of(activation="gelu"))
    with pytest.raises(DeviceError, match="numpy: runs factorized encoders"):
        numpy_engine_of(build("vit-frames", embed_dim=16, depth=1, num_heads=2, num_classes=2))
    with pytest.raises(DeviceError, match="bf16: the engine numpy cannot do it"):
        load("camera-motion", engine="numpy", precision="bf16")


def saved(path: Path, **changes: Any) -> Path:
    save_checkpoint(model_of(**changes), path, labels=tuple("abcde"), dtype=torch.float16)
    return path


@pytest.mark.parametrize("engine", ["auto", "numpy"])
def test_what_a_small_file_says_is_what_torch_makes_of_it(tmp_path: Path, engine: str) -> None:
    """The same answer by both ways, at the first look at a file and later."""
    path = saved(tmp_path / "model.safetensors", pool="gap", image_size=(16, 16))
    clip = make_clip(tmp_path / "clip.mp4", 20, size=(64, 64))
    with load(path, engine="eager") as classifier:  # the first look
        known = classifier.predict(clip)
    with load(path, engine=engine, clips=1) as classifier:  # from what was remembered
        if engine == "numpy":
            assert classifier.engine.name == "numpy"
        row = classifier.predict(clip).row
    os.utime(path, (1, 1))  # forgotten
    with load(path, engine="numpy", clips=1) as classifier:
        assert classifier.engine.name == "numpy"
        fresh = classifier.predict(clip)
    assert fresh.logits is not None
    assert known.logits is not None
    np.testing.assert_allclose(fresh.logits, known.logits, atol=1e-5, rtol=0)
    assert [p["label"] for p in fresh.row["predictions"]] == [p["label"] for p in row["predictions"]]
    assert {k: v for k, v in fresh.row.items() if k != "predictions"} == {
        k: v for k, v in known.row.items() if k != "predictions"
    }


def test_damaged_files_are_left_to_the_reader_that_explains(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors", pool="gap")
    whole = path.read_bytes()
    assert small.read_metadata(path) is not None
    path.write_bytes(whole[:-100])
    assert small.read_metadata(path) is None
    with pytest.raises(CheckpointError):
        load(path, clips=1)
    config = plain_config(model_of(pool="gap"))
    path.write_bytes(whole)
    assert small.fits(path, config)
    assert not small.fits(path, {**config, "depth": 3})
    save_checkpoint(model_of(pool="gap"), path, dtype=torch.bfloat16)
    assert not small.fits(path, config)  # numpy has no such type
    assert small.read_tensors(path, config) is None


def test_it_is_taken_for_few_clips_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model.safetensors", pool="gap", image_size=(16, 16))
    found = find_model(path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delitem(sys.modules, "torch")

    def chosen(**request: Any) -> bool:
        engine = engine_for(found, found.facts.spec.input, EngineRequest(**request))
        return isinstance(engine, small.NumpyViViTEngine)

    assert chosen(clips=1)
    assert not chosen(clips=None)  # it may be a million
    assert not chosen(clips=10_000_000)
    assert not chosen(clips=1, precision="bf16")
    assert not chosen(clips=1, engine="eager")
    assert not chosen(clips=1, device="cuda")
    assert chosen(engine="numpy")
    assert not chosen(engine="numpy", device="cuda")
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert not chosen(clips=1)  # it is imported already


def test_predict_with_the_bundled_model_needs_no_torch(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 30, size=(64, 64))
    code = (
        "import sys; from vidcls.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "VIDCLS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(clip), "-f", "json"],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"static"' in done.stdout
