"""`vidcls explain` and `model.explain`: targets, methods, engines, and what is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.cli.in_process import run_cli
from tests.clips import make_clip
from tests.models.test_all_architectures import FRAMES, every_architecture, tiny, views
from vidcls.engines import make_engine
from vidcls.errors import UsageError
from vidcls.explain.occlusion import log_odds, occlude
from vidcls.inference.classifier import Classifier
from vidcls.inference.load import load

PLAIN = (np.ones(3, np.float32), np.zeros(3, np.float32))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("explain") / "clip.mp4", 70, size=(48, 64))


@pytest.fixture(scope="module")
def model() -> Any:
    with load("camera-motion", num_views=2, device="cpu", engine="numpy") as classifier:
        yield classifier


@every_architecture
def test_occlusion_is_what_covering_by_hand_costs(architecture: str) -> None:
    engine = make_engine(tiny(architecture), "cpu", "fp32", "eager")
    view = views(1).numpy()[0].transpose(1, 2, 3, 0)
    indices = np.arange(FRAMES) if architecture == "vtn" else None
    heat = occlude(engine, view, indices, PLAIN, (2, False), (2, 2, 3))
    assert heat.shape == (2, 2, 3)
    covered = view.copy()
    covered[2:, 8:, 8:16] = view.reshape(-1, 3).mean(0)
    many = None if indices is None else np.repeat(indices[None], 2, 0)
    odds = log_odds(engine(np.stack([view, covered]), many, PLAIN), (2, False))
    assert heat[1, 1, 1] == pytest.approx(odds[0] - odds[1], abs=1e-4)


def test_occlusion_encodes_only_what_was_covered() -> None:
    engine = make_engine(tiny("vivit-fe"), "cpu", "fp32", "eager")
    seen: list[int] = []
    encode = engine.encode

    def spy(units: Any, scale_shift: Any = None) -> Any:
        seen.append(len(units))
        return encode(units, scale_shift)

    engine.encode = spy  # type: ignore[method-assign]
    view = views(1).numpy()[0].transpose(1, 2, 3, 0)
    told: list[int] = []
    occlude(engine, view, None, PLAIN, (0, False), (2, 2, 3), told.append)
    assert seen == [2] + [1] * 12
    assert sum(told) == 12


def test_log_odds() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    np.testing.assert_allclose(log_odds(logits.astype(np.float32), (0, False)), np.log([1, 1 / 9]), atol=1e-6)
    assert np.isfinite(log_odds(np.array([[1e4, -1e4]], np.float32), (0, False))).all()
    assert log_odds(np.array([[3.0]], np.float32), (0, False)) == 3
    assert log_odds(np.array([[3.0, 9.0]], np.float32), (0, True)) == 3  # each class a question of its own


@pytest.mark.parametrize("method", ["rollout", "gradient", "occlusion"])
def test_an_explanation_of_a_clip(model: Classifier, clip: Path, method: str) -> None:
    found = model.explain(clip, method=method)
    prediction = model.predict(clip)
    assert (found.label, found.score) == (prediction.label, pytest.approx(prediction.score))
    assert found.frames.shape == (2, 32, 48, 48, 3)
    assert found.heat.dtype == np.float32
    assert found.heat.shape == ((2, 8, 7, 7) if method == "occlusion" else (2, 8, 6, 6))
    np.testing.assert_allclose(found.frame_weights.sum(1), 1, rtol=1e-4)
    if method != "occlusion":
        np.testing.assert_allclose(found.heat.sum((1, 2, 3)), 1, rtol=1e-4)
    assert found.heat[found.hottest] == found.heat.max()
    assert (np.diff(found.times, axis=1) >= 0).all()
    record = json.loads(json.dumps(found.to_dict()))
    assert np.array(record["heat"]).shape == found.heat.shape
    assert "frames" not in record


def test_the_class_can_be_chosen(model: Classifier, clip: Path) -> None:
    order = [
        one.index for one in (model.explain(clip, target=f"rank {n}", method="rollout") for n in (1, 2, 10))
    ]
    scores = model.predict(clip).scores
    assert scores is not None
    assert order == [int(np.argsort(-scores, kind="stable")[n]) for n in (0, 1, 9)]
    assert model.explain(clip, target="zoom in", method="rollout").label == "zoom in"
    assert model.explain(clip, target=3, method="rollout").index == 3
    one, other = (model.explain(clip, target=target) for target in ("pan left", "zoom in"))
    assert np.abs(one.heat - other.heat).max() > 1e-4
    for target in ("zoom inn", "rank 11", "rank 0", 10):
        with pytest.raises(UsageError, match="target"):
            model.explain(clip, target=target, method="rollout")


def test_an_exported_model_is_explained_by_occlusion_alone(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    run_cli("export", "--model", "camera-motion", "--format", "openvino", "-o", str(tmp_path / "exported"))
    with load(weights=tmp_path / "exported", num_views=1) as exported:
        found = exported.explain(clip, method="occlusion", cells=(2, 3, 3))
        assert found.heat.shape == (1, 2, 3, 3)
        with pytest.raises(UsageError, match="use method=occlusion"):
            exported.explain(clip)


def test_files_of_every_kind(model: Classifier, clip: Path, tmp_path: Path) -> None:
    found = model.explain(clip)
    for suffix in (".png", ".gif", ".mp4", ".npz"):
        found.save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == found.plot().size
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 64
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 64
    with np.load(tmp_path / "a.npz", allow_pickle=False) as numbers:
        assert np.array_equal(numbers["heat"], found.heat)
        assert json.loads(str(numbers["about"]))["label"] == found.label
    with pytest.raises(UsageError, match=r"end its name in .png, .gif, .mp4, .npz"):
        found.save(tmp_path / "a.txt")


def test_the_hottest_cell_is_drawn_hottest() -> None:
    from vidcls.explain.draw import colors, overlay

    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    shown = overlay(np.full((64, 64, 3), 128, np.uint8), heat).astype(int)
    warmth = shown[..., 0] - shown[..., 2]
    place = np.unravel_index(warmth.argmax(), warmth.shape)
    assert (place[0] // 16, place[1] // 16) == (1, 2)
    assert warmth[56, 8] == 0
    ramp = colors(np.linspace(0, 1, 50, dtype=np.float32)).astype(int).sum(-1)
    assert (np.diff(ramp) >= 0).all()


def test_the_command(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    done = run_cli("explain", str(clip), "-o", str(out), "--views", "1")
    assert done.returncode == 0, done.stderr
    assert "hottest in view 1 at" in done.stderr
    assert out.stat().st_size > 1000
    for arguments, text in (
        ((str(clip), "-o", str(out)), "already exists"),
        ((str(clip), "-o", str(tmp_path / "a.txt")), "end its name in .png"),
        ((str(tmp_path / "none.mp4"), "-o", str(tmp_path / "b.png")), "none.mp4"),
        ((str(clip), "-o", str(tmp_path / "b.png"), "--method", "gradients"), "did you mean 'gradient'?"),
        ((str(clip), "-o", str(tmp_path / "b.png"), "--target", "pan lefft"), "did you mean 'pan left'?"),
        ((str(clip), "-o", str(tmp_path / "b.png"), "--cells", "2x2"), "--cells: '2x2' is not TxHxW"),
        ((str(clip), "-o", str(tmp_path / "b.png"), "--cells", "2x2x2"), "--method gradient"),
    ):
        failed = run_cli("explain", *arguments)
        assert failed.returncode in (1, 2), failed.stderr
        assert text in failed.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names there")
def test_warnings_of_the_clip_and_the_model_are_said(tmp_path: Path) -> None:
    short = str(make_clip(tmp_path / "a\nb.mp4", 3, size=(48, 64)))
    options = ("-m", "vivit-fe-tiny", "--random-weights", "--views", "1")
    done = run_cli("explain", short, *options, "-o", str(tmp_path / "a.npz"))
    first, second, last = done.stderr.splitlines()
    assert first.endswith("a\\nb.mp4: random weights: the labels mean nothing")
    assert "a\\nb.mp4: too short: 3 frames" in second
    assert last.startswith("vidcls: class ")
    assert len(json.loads(str(np.load(tmp_path / "a.npz")["about"]))["warnings"]) == 2


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"target": True}, "target: True is neither"),
        ({"target": 3.5}, "target: 3.5 is neither"),
        ({"cells": (1, 2)}, "cells: "),
        ({"cells": (1, 2, 2.5)}, "cells: "),
    ],
)
def test_what_python_may_give_is_checked(model: Any, clip: Path, wrong: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        model.explain(clip, method="occlusion", **wrong)


def test_a_clip_is_not_replaced_by_its_explanation(clip: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.mp4"
    own.write_bytes(clip.read_bytes())
    done = run_cli("explain", str(own), "-o", str(own), "--overwrite")
    assert (done.returncode, own.read_bytes()) == (2, clip.read_bytes())
    assert "is the input itself; choose another output" in done.stderr
    assert "vidcls: '': no such file" in run_cli("explain", "", "-o", str(tmp_path / "a.png")).stderr
