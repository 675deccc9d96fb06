"""What ``import vidcls`` offers: names, what `predict` takes, and what a prediction says of itself."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidcls
from tests.clips import make_clip
from vidcls.errors import UsageError, VideoError

EXAMPLE = Path(__file__).parents[1] / "examples" / "pan-left.mp4"


@pytest.fixture(scope="module")
def model() -> Iterator[vidcls.Classifier]:
    with vidcls.load("camera-motion", device="cpu") as classifier:
        yield classifier


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    with vidcls.VideoReader() as reader:
        info = reader.open(EXAMPLE)
        found: np.ndarray = reader.read(np.arange(info.num_frames)).frames
        return found


def test_every_name_is_there_and_documented() -> None:
    for name in vidcls.__all__:
        found = getattr(vidcls, name)
        assert inspect.getdoc(found), name
        assert found.__module__.startswith("vidcls."), name
    assert sorted(vidcls.__all__) == sorted(vidcls._HOME)
    tree = ast.parse(Path(vidcls.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    for_type_checkers = [
        (statement.module, alias.name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    ]
    assert sorted(for_type_checkers) == sorted((home, name) for name, home in vidcls._HOME.items())


def test_every_error_class_is_public() -> None:
    errors = importlib.import_module("vidcls.errors")
    classes = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, Exception)}
    assert classes <= set(vidcls.__all__)
    assert all(issubclass(getattr(vidcls, name), vidcls.VidclsError) for name in classes)


def test_public_methods_are_documented() -> None:
    for name in vidcls.__all__:
        found = getattr(vidcls, name)
        if not inspect.isclass(found) or hasattr(found, "model_fields"):
            continue
        for member, value in vars(found).items():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_a_prediction_speaks_for_itself(model: vidcls.Classifier) -> None:
    prediction = model.predict(EXAMPLE, top_k=3)
    assert (prediction.label, prediction.score) == prediction.top[0][:2]
    assert prediction.label == "pan left"
    assert len(prediction.top) == 3
    assert [one.score for one in prediction.top] == sorted((s for _, s, _ in prediction.top), reverse=True)
    assert model.labels[prediction.top[0].class_index] == "pan left"
    assert prediction.scores is not None
    assert prediction.scores[prediction.top[1].class_index] == pytest.approx(prediction.top[1].score)
    record = prediction.to_dict()
    assert record == prediction.row
    record["predictions"].clear()
    assert prediction.label == "pan left"


@pytest.fixture(scope="module")
def exact() -> Iterator[vidcls.Classifier]:
    """A model with the resize rule of published checkpoints, which is computed on RGB."""
    pytest.importorskip("torch")
    with vidcls.load("vivit-fe-tiny", random_weights=True, device="cpu") as classifier:
        yield classifier


def test_representations_fit_a_screen(model: vidcls.Classifier, tmp_path: Path) -> None:
    (failed,) = model.predict_many([tmp_path / "none.mp4"])
    assert (failed.label, failed.score, failed.top) == (None, None, ())
    for shown in (model, model.read(EXAMPLE), model.predict(EXAMPLE), failed):
        assert len(repr(shown)) <= 400
        assert "\n" not in repr(shown)
        assert repr(shown).startswith(f"{type(shown).__name__}(")
    assert "pan left" in repr(model.predict(EXAMPLE))
    assert "no such file" in repr(failed)


def test_a_clip_in_any_form_scores_alike(model: vidcls.Classifier, frames: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    expected = model.predict(EXAMPLE).scores
    with vidcls.VideoReader() as reader:
        rate = reader.open(EXAMPLE).fps
    tensor = torch.from_numpy(frames)
    for clip in (str(EXAMPLE), EXAMPLE.read_bytes()):
        np.testing.assert_array_equal(model.predict(clip).scores, expected)
    # A file's frames are scaled before their colors are converted (the rule `swscale`); what is held is RGB already.
    in_memory = model.predict(frames, frame_rate=rate).scores
    np.testing.assert_allclose(in_memory, expected, atol=1e-3)
    for held in (frames, tensor, tensor.permute(0, 3, 1, 2), frames[:, :, ::-1][:, :, ::-1]):
        found = model.predict(held, frame_rate=rate)
        np.testing.assert_allclose(found.scores, in_memory, atol=1e-6)
        assert found.row["path"] == "frames"
        assert found.row["duration"] == pytest.approx(len(frames) / rate)
    many = list(model.predict_many([EXAMPLE, frames, EXAMPLE.read_bytes()], frame_rate=rate))
    assert [p.row["path"] for p in many] == [str(EXAMPLE), "frames", "-"]
    for found, scores in zip(many, (expected, in_memory, expected), strict=True):
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)


def test_a_published_rule_gives_held_frames_the_scores_of_the_file(
    exact: vidcls.Classifier, frames: np.ndarray
) -> None:
    with vidcls.VideoReader() as reader:
        held = exact.predict(frames, frame_rate=reader.open(EXAMPLE).fps)
    np.testing.assert_allclose(held.scores, exact.predict(EXAMPLE).scores, atol=1e-6)


def test_frames_without_a_rate_are_taken_as_counted(model: vidcls.Classifier, frames: np.ndarray) -> None:
    spec = model.spec.input
    dense = frames[: spec.num_frames * spec.stride]
    native = model.predict(dense)
    with vidcls.load("camera-motion", device="cpu", fps="native") as other:
        assert (native.row["fps"], native.row["duration"]) == (None, None)
        np.testing.assert_allclose(native.scores, other.predict(dense, frame_rate=50.0).scores, atol=1e-6)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ([EXAMPLE], "predict_many"),
        (None, "NoneType"),
        (3, "int"),
        (np.zeros((4, 8, 8), np.uint8), "(4, 8, 8)"),
        (np.zeros((4, 8, 8, 4), np.uint8), "(4, 8, 8, 4)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "(0, 8, 8, 3)"),
        (np.zeros((4, 8, 8, 3), np.float32), "float32"),
        (np.array(["a.mp4"]), "(1,)"),
    ],
)
def test_what_is_no_clip_is_refused_in_a_sentence(model: vidcls.Classifier, clip: Any, words: str) -> None:
    for call in (lambda: model.predict(clip), lambda: list(model.predict_many([clip]))):
        with pytest.raises(UsageError) as caught:
            call()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
def test_a_frame_rate_that_is_none_is_refused(
    model: vidcls.Classifier, frames: np.ndarray, rate: float
) -> None:
    with pytest.raises(UsageError, match="frame_rate"):
        model.predict(frames, frame_rate=rate)


def test_a_bad_file_raises_from_predict(model: vidcls.Classifier, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        model.predict(tmp_path / "text.mp4")


def test_a_clip_with_other_sizes_in_memory(exact: vidcls.Classifier, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "tall.mp4", 40, size=(96, 64))
    with vidcls.VideoReader() as reader:
        info = reader.open(path)
        held = reader.read(np.arange(info.num_frames)).frames
    expected = exact.predict(path).scores
    np.testing.assert_allclose(exact.predict(held, frame_rate=info.fps).scores, expected, atol=1e-6)


def test_models_are_listed_with_what_can_run_first() -> None:
    names = vidcls.list_models()
    assert names[0] == "camera-motion"
    assert set(names) == set(vidcls.load_registry())
    chosen = vidcls.list_models(dataset="kinetics400", family="vivit", has_weights=True)
    assert "vivit-b-16x2-k400-hf" in chosen
    known = vidcls.load_registry()
    for name in chosen:
        assert known[name].dataset == "Kinetics-400"
        assert known[name].architecture.startswith("vivit")
        assert known[name].weights is not None
    assert vidcls.list_models(dataset="no such set") == []
