"""Whole videos: end to end, piece by piece and from stored features give the same logits."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.clips import make_clip
from vidcls.checkpoints import save_checkpoint
from vidcls.errors import OutputError, UsageError, VideoError
from vidcls.inference import whole_video
from vidcls.inference.classifier import Classifier
from vidcls.inference.load import load, weights_file
from vidcls.inference.whole_video import WholeVideo
from vidcls.models import build
from vidcls.video.reader import Frames, VideoReader

BACKBONE = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
INPUT = {
    "sampling": "vtn",
    "num_frames": 20,
    "stride": 1,
    "fps": 25.0,
    "num_views": 1,
    "num_crops": 1,
    "image_size": (16, 16),
    "resize": 18,
    "resize_rule": "float",
    "interpolation": "bilinear",
    "center_crop": "ceil",
    "scale": 1 / 255,
    "offset": 0.0,
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
}
MODELS: dict[str, dict[str, Any]] = {
    # Positions wrap at 28, well within the clips.
    "vtn": {"backbone": BACKBONE, "attention_window": 4, "max_positions": 30, "temporal_num_heads": 2},
    "vit-frames": BACKBONE,
    "vt-frames": {"variant": "vt-resnet18", "width": 4, "token_dim": 32, "map_dim": 32},
}


def save_model(folder: Path, architecture: str, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = build(architecture, **MODELS[architecture], image_size=16, num_classes=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = folder / f"{architecture}.safetensors"
    save_checkpoint(model, path, input={**INPUT, **changes})
    return path


@pytest.fixture(scope="module")
def vtn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "vtn")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 75, size=(48, 64), bframes=2)


class CountingReader(VideoReader):
    """Counts what is asked of it."""

    opened = 0
    frames = 0

    def open(self, source: Any) -> Any:
        self.opened += 1
        return super().open(source)

    def read(self, indices: Sequence[int] | np.ndarray, transform: Any = None) -> Frames:
        self.frames += len(indices)
        return super().read(indices, transform)

    def stream(
        self, indices: Sequence[int] | np.ndarray, transform: Any = None, piece: int = 64
    ) -> Generator[Frames, None, None]:
        self.frames += len(indices)
        return super().stream(indices, transform, piece)


@pytest.fixture
def reader() -> Iterator[CountingReader]:
    with CountingReader() as reader:
        yield reader


def ready(path: Path, reader: VideoReader, **options: Any) -> Classifier:
    return load(path, reader=reader, engine="eager", device="cpu", **options)


def end_to_end(classifier: Classifier, clip: Path, indices: np.ndarray) -> np.ndarray:
    """Logits of the model itself, given all frames of the clip together."""
    spec = classifier.spec.input
    views = classifier.read(clip).views if len(indices[0]) == spec.num_frames else None
    if views is None:
        whole = classifier.spec.model_copy(
            update={"input": spec.model_copy(update={"num_frames": len(indices[0]), "sampling": "vivit"})}
        )
        changed = Classifier(
            classifier.engine, whole, classifier.labels, weights="", fps="native", reader=classifier._reader
        )
        read = changed.read(clip)
        assert np.array_equal(read.plan.indices, indices)
        views = read.views
    engine: Any = classifier.engine
    model = getattr(engine, "engine", engine).module
    keywords = {"frame_indices": torch.from_numpy(indices)} if classifier.uses_frame_indices else {}
    with torch.inference_mode():
        result: np.ndarray = model(torch.from_numpy(views), **keywords).numpy()
    return result


@pytest.mark.parametrize("architecture", list(MODELS))
def test_three_ways_to_see_a_whole_video(
    architecture: str, clip: Path, reader: CountingReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_video, "PIECE_FRAMES", (7, 11))
    monkeypatch.setattr(whole_video, "ENCODE_BATCH", 4)
    weights = save_model(tmp_path, architecture)
    classifier = ready(weights, reader)
    indices = np.arange(75)[None]
    expected = end_to_end(classifier, clip, indices)
    streamed = WholeVideo(classifier, reader=reader)
    features, plan = streamed.features(clip)
    assert np.array_equal(plan.indices, indices)
    assert features.values.shape[:2] == (1, 75)
    assert np.abs(streamed.logits(features, plan) - expected).max() < 1e-5
    stored = WholeVideo(classifier, reader=reader, features=tmp_path / "kept", weights=weights)
    for _ in range(2):
        found = stored.predict(clip)
        assert found.logits is not None
        assert np.abs(found.logits - expected[0]).max() < 1e-5
        assert (found.row["views"], found.row["frames"]) == (1, 75)
        assert found.row["decoder"] in ("decord", "pyav")
        assert found.row["warnings"] == []
        before = reader.opened, reader.frames
    assert (reader.opened, reader.frames) == before
    (file,) = (tmp_path / "kept").iterdir()
    assert file.name.startswith("clip-")


def test_what_is_stored_is_neither_decoded_nor_encoded_again(
    vtn: Path, clip: Path, reader: CountingReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = ready(vtn, reader)
    published = WholeVideo(
        classifier, every_frame=False, reader=reader, features=tmp_path, weights=weights_file(vtn)
    )
    first = published.predict(clip)
    expected = classifier.predict(clip)
    assert first.row["predictions"] == expected.row["predictions"] or np.allclose(
        first.scores, expected.scores, atol=1e-6
    )
    assert {k: v for k, v in first.row.items() if k != "predictions"} == {
        k: v for k, v in expected.row.items() if k != "predictions"
    }
    opened, frames = reader.opened, reader.frames
    monkeypatch.setattr(classifier.engine, "encode", None)
    assert np.array_equal(published.predict(clip).logits, first.logits)
    assert (reader.opened, reader.frames) == (opened, frames)
    monkeypatch.undo()
    every = WholeVideo(classifier, reader=reader, features=tmp_path, weights=vtn)
    every.predict(clip)
    assert reader.frames == frames + 75 - 20  # the twenty of before are not decoded again
    assert len(list(tmp_path.iterdir())) == 1


def test_features_belong_to_clip_weights_and_preparation(
    vtn: Path, reader: CountingReader, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 12, size=(48, 64))
    kept = tmp_path / "kept"

    def decoded(weights: Path = vtn, **options: Any) -> int:
        before = reader.frames
        WholeVideo(ready(weights, reader, **options), reader=reader, features=kept, weights=weights).predict(
            clip
        )
        return reader.frames - before

    assert decoded() == 12
    assert decoded() == 0
    assert decoded(num_crops=3) == 12
    assert decoded(save_model(tmp_path, "vtn", mean=(0.5, 0.5, 0.5))) == 12
    make_clip(clip, 13, size=(48, 64))
    assert decoded() == 13
    os.utime(clip, ns=(1, 1))
    assert decoded() == 13
    for file in kept.iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert decoded() == 13  # a damaged file is made anew
    assert decoded() == 0


def test_bytes_are_known_by_their_content(
    vtn: Path, clip: Path, reader: CountingReader, tmp_path: Path
) -> None:
    whole = WholeVideo(ready(vtn, reader), reader=reader, features=tmp_path, weights=vtn)
    first = whole.predict(clip.read_bytes())
    frames = reader.frames
    assert np.array_equal(whole.predict(clip.read_bytes()).logits, first.logits)
    assert reader.frames == frames


def test_what_was_encoded_before_an_interruption_is_kept(
    vtn: Path, clip: Path, reader: CountingReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_video, "PIECE_FRAMES", (16, 16))

    def interrupt(name: str, done: int, total: int) -> None:
        assert total == 75
        if done > 32:
            raise KeyboardInterrupt

    classifier = ready(vtn, reader)
    whole = WholeVideo(classifier, reader=reader, features=tmp_path, weights=vtn, progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        whole.predict(clip)
    frames = reader.frames
    again = WholeVideo(classifier, reader=reader, features=tmp_path, weights=vtn)
    found = again.predict(clip)
    assert reader.frames - frames == 75 - 32
    assert found.logits is not None
    expected = end_to_end(classifier, clip, np.arange(75)[None])
    assert np.abs(found.logits - expected[0]).max() < 1e-5


def test_stride_and_rate(vtn: Path, clip: Path, reader: CountingReader) -> None:
    for options, expected in (
        ({"stride": 4}, np.arange(0, 75, 4)),
        ({"fps": "native", "stride": 2}, np.arange(0, 75, 2)),
        ({"fps": 5.0}, np.arange(0, 75, 5)),
        ({"fps": 10.0}, np.arange(0, 75, 2.5).astype(int)),
    ):
        _, plan = WholeVideo(ready(vtn, reader, **options), reader=reader).features(clip)
        assert np.array_equal(plan.indices, [expected]), options


def test_a_video_with_uneven_times_is_seen_whole(vtn: Path, reader: CountingReader, tmp_path: Path) -> None:
    times = np.cumsum(np.resize([0.02, 0.1, 0.04], 30))
    clip = make_clip(tmp_path / "uneven.mkv", 30, size=(48, 64), times=times.tolist())
    _, plan = WholeVideo(ready(vtn, reader), reader=reader).features(clip)
    assert np.array_equal(plan.indices, [np.arange(30)])


def test_memory_does_not_grow_with_the_video(
    vtn: Path, reader: CountingReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the clip: at most two pieces are decoded, and one batch is in the backbone."""
    monkeypatch.setattr(whole_video, "PIECE_FRAMES", (16, 16))
    monkeypatch.setattr(whole_video, "ENCODE_BATCH", 8)
    clip = make_clip(tmp_path / "long.mp4", 200, size=(32, 32))
    classifier = ready(vtn, reader)
    encode, stream = classifier.engine.encode, reader.stream
    encoded: list[int] = []
    pieces: list[int] = []

    def watched_encode(units: Any, scale_shift: Any = None) -> Any:
        encoded.append(len(units))
        return encode(units, scale_shift)

    def watched_stream(*arguments: Any) -> Iterator[Frames]:
        for piece in stream(*arguments):
            assert len(pieces) * 16 - sum(encoded) <= 2 * 16  # the one at hand and the one before it
            pieces.append(len(piece.indices))
            yield piece

    monkeypatch.setattr(classifier.engine, "encode", watched_encode)
    monkeypatch.setattr(reader, "stream", watched_stream)
    WholeVideo(classifier, reader=reader).predict(clip)
    assert max(encoded) == 8
    assert max(pieces) == 16
    assert sum(encoded) == sum(pieces) == 200


def test_bad_clips_and_folders(vtn: Path, clip: Path, reader: CountingReader, tmp_path: Path) -> None:
    classifier = ready(vtn, reader)
    whole = WholeVideo(classifier, reader=reader, features=tmp_path / "kept", weights=vtn)
    (tmp_path / "text.mp4").write_text("no video")
    results = list(whole.predict_many([tmp_path / "text.mp4", clip, tmp_path / "none.mp4"]))
    assert [type(result.error) for result in results] == [VideoError, type(None), VideoError]
    assert results[0].row["error"].startswith(f"{tmp_path / 'text.mp4'}: ")
    assert results[0].row["frames"] is None
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot hold features"):
        WholeVideo(classifier, reader=reader, features=tmp_path / "file", weights=vtn)


def test_models_without_features_of_frames_are_refused(reader: CountingReader) -> None:
    classifier = load("vivit-fe-tiny", random_weights=True, reader=reader, engine="eager")
    with pytest.raises(UsageError, match="choose a model of vtn, vit-frames, vt-frames"):
        WholeVideo(classifier, reader=reader)


def test_videos_beyond_all_bounds_are_refused(
    vtn: Path, clip: Path, reader: CountingReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_video, "MAX_FRAMES", 74)
    with pytest.raises(VideoError, match="75 frames are more than 74; choose a larger stride"):
        WholeVideo(ready(vtn, reader), reader=reader).predict(clip)
