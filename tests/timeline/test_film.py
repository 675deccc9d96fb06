"""Films whose camera changes what it does at known times, with the bundled model."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import make_clip
from vidcls.errors import UsageError, VideoError
from vidcls.inference.load import load
from vidcls.timeline.result import Settings
from vidcls.timeline.scan import Scan
from vidcls.timeline.windows import plan_windows
from vidcls.video.reader import VideoReader

pytest.importorskip("cv2")
from tests.timeline.films import make_film, true_labels

SECTIONS = [("pan left", 6.3), ("static", 5.0), ("zoom in", 5.5), ("tilt up", 6.1), ("roll clockwise", 5.4)]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", SECTIONS, seed=1)


@pytest.fixture(scope="module")
def model():
    with load("camera-motion", clips=1) as model:
        yield model


@pytest.fixture(scope="module")
def found(model, film):
    return model.timeline(film)


def test_most_of_the_time_is_labeled_right_and_boundaries_are_within_one_step(found):
    moments = np.arange(0.05, found.duration, 0.1)
    shown = [segment.label if (segment := found.at(moment)) else None for moment in moments]
    right = np.mean([a == b for a, b in zip(shown, true_labels(SECTIONS, moments), strict=True)])
    assert right >= 0.9
    assert [segment.label for segment in found] == [label for label, _ in SECTIONS]
    true_ends = np.cumsum([seconds for _, seconds in SECTIONS])
    step = found.facts["step"]
    assert step == pytest.approx(1.28)
    assert np.abs([segment.end for segment in found] - true_ends).max() <= step
    assert np.abs([segment.start for segment in found][1:] - true_ends[:-1]).max() <= step


def test_each_tubelet_is_encoded_once(found):
    units, encoded = found.units
    assert units == 8 * found.facts["windows"]
    # Half of a window is the next one's; only the last window lies apart.
    assert encoded <= units / 2 + 4 + 8


def test_scores_are_those_of_each_window_by_itself(model, film):
    with VideoReader() as reader:
        info = reader.open(film)
        windows = plan_windows(model.spec.input, info, unit_frames=model.engine.unit_frames)
        scan = Scan(model, reader, info, windows)
        streamed = np.concatenate([scores for _, scores in scan.scores(scan.parts())])
        whole = reader.read(np.arange(info.num_frames)).frames
    assert len(streamed) == len(windows)
    for number in (0, 1, 7, len(windows) - 1):
        alone = load_and_score(model, whole[windows.indices[number]])
        # Streamed frames are scaled before their colors are converted (the rule `swscale`), these after it.
        assert np.allclose(streamed[number], alone, atol=2e-3)


def load_and_score(model, frames):
    from vidcls.inference.clip import clip_of_frames

    spec = model.spec.input.model_copy(update={"num_views": 1, "stride": 1})
    clip = clip_of_frames(frames, spec, None)
    return model.scores(model.clip_logits(clip)[0])


@pytest.mark.parametrize("window", [1.5])
def test_other_windows(model, film, window):
    found = model.timeline(film, window=window, step=0.5, top_k=1)
    assert found.facts["window"] == pytest.approx(window, abs=0.05)
    assert found.segments[-1].end == pytest.approx(found.duration)
    assert all(len(segment.top) == 1 for segment in found)


def test_segments_are_as_long_as_asked_for(model, film):
    assert all(one.end - one.start >= 6 - 1e-6 for one in model.timeline(film, min_length=6, step=0.3))


@pytest.mark.parametrize("frames", [1, 63, 66])
def test_short_videos(model, tmp_path, frames):
    found = model.timeline(make_clip(tmp_path / "clip.mp4", frames), threshold=0.05)
    assert found.segments[0].start == 0
    assert found.segments[-1].end == pytest.approx(frames / 25)


def test_a_short_video_is_scored_as_predict_scores_one_view(model, tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", 50)
    with load("camera-motion", num_views=1, clips=1) as one_view:
        expected = one_view.predict(clip)
    found = model.timeline(clip, threshold=0.01)
    assert found.segments[0].label == expected.label
    assert found.segments[0].score == pytest.approx(expected.score, abs=1e-5)
    assert set(expected.row["warnings"]) <= set(found.facts["warnings"])


def test_times_of_a_varying_rate_are_the_files(model, tmp_path):
    """The same film, its second half played at half the rate: what happens there lasts twice as long."""
    pictures = [frame for piece in _frames(tmp_path) for frame in piece]
    half = len(pictures) // 2
    times = [n / 25 if n < half else half / 25 + (n - half) * 2 / 25 for n in range(len(pictures))]
    slow = make_clip(tmp_path / "slow.mp4", pictures, times=times)
    found = model.timeline(slow)
    assert found.duration == pytest.approx(times[-1] + 0.04, abs=0.1)
    change = next(segment.start for segment in found if segment.start > 0)
    assert found.segments[0].label == "pan right"
    assert change == pytest.approx(half / 25, abs=found.facts["step"])


def _frames(folder):
    from tests.timeline.films import shots

    yield from shots([("pan right", 6.0), ("static", 4.0)], (96, 128), 25, 5)
    yield from shots([("static", 2.0)], (96, 128), 25, 6)


def test_pytorch_finds_the_same(film, found):
    with load("camera-motion", engine="eager") as other:
        again = other.timeline(film)
    assert [(s.label, s.start, s.end) for s in again] == [(s.label, s.start, s.end) for s in found]


@pytest.mark.parametrize(("name", "crops"), [("vivit-st-tiny", 3), ("vtn-tiny", 3), ("vit-tiny-frames", 1)])
def test_every_kind_of_model_works(tmp_path, name, crops):
    """Whole views, frames with their numbers, and frames averaged; labels mean nothing here."""
    clip = make_clip(tmp_path / "clip.mp4", 100, size=(64, 96))
    with load(name, random_weights=True, num_crops=crops) as model:
        found = model.timeline(clip, window=2.0, step=1.0, threshold=1e-6, min_length=0)
        alone = model.timeline(
            make_clip(tmp_path / "first.mp4", 50, size=(64, 96)), threshold=1e-6, min_length=0
        )
    assert found.facts["windows"] in (3, 4)
    assert found.segments[-1].end == pytest.approx(4.0)
    assert (found.units is None) == (name == "vivit-st-tiny")
    assert alone.segments


def test_what_cannot_be_read(model, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(VideoError):
            model.timeline(path)


def test_frames_in_memory_are_refused(model):
    with pytest.raises(UsageError, match="ndarray, not a video"):
        model.timeline(np.zeros((8, 32, 32, 3), np.uint8))


def test_a_damaged_video_keeps_what_can_be_read(model, film, tmp_path):
    data = bytearray(Path(film).read_bytes())
    cut = tmp_path / "cut.mp4"
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    cut.write_bytes(data)
    found = model.timeline(cut)
    assert found.segments
    assert any("damaged" in warning or "decoded" in warning for warning in found.facts["warnings"])


@pytest.mark.parametrize(
    ("wrong", "subject"),
    [
        ({"by": "scenes"}, "by"),
        ({"by": "shots", "step": 1.0}, "step"),
        ({"top_k": 0}, "top_k"),
        ({"threshold": 2.0}, "threshold"),
        ({"window": 1.0, "step": 3.0}, "step"),
    ],
)
def test_settings_that_make_no_sense(model, film, wrong, subject):
    with pytest.raises(UsageError) as caught:
        model.timeline(film, **wrong)
    assert caught.value.subject == subject


def test_defaults_of_python_and_the_command_line_are_the_same():
    import inspect

    from vidcls.inference.classifier import Classifier

    given = inspect.signature(Classifier.timeline).parameters
    for name, value in vars(Settings()).items():
        assert given[name].default == value


# --- shots ---


@pytest.fixture
def scenedetect():
    return pytest.importorskip("scenedetect", exc_type=ImportError)


def test_shots_are_found_where_they_are(model, film, scenedetect):
    found = model.timeline(film, by="shots")
    true_cuts = np.cumsum([seconds for _, seconds in SECTIONS])[:-1]
    assert np.allclose(found.cuts, true_cuts, atol=0.041)
    assert [segment.label for segment in found] == [label for label, _ in SECTIONS]
    assert [segment.start for segment in found][1:] == list(found.cuts)


def test_no_view_spans_a_cut(model, film, scenedetect):
    from vidcls.timeline.shots import ShotScan, find_shots

    with VideoReader() as reader:
        info = reader.open(film)
        shots = find_shots(reader, info)
        scan = ShotScan(model, reader, info, shots)
        for part in scan.parts():
            clip = scan._read(part)
            first, end = shots.edges[part.start : part.start + 2]
            assert clip.plan.indices.min() >= 0
            assert clip.plan.indices.max() < end - first


def test_short_shots_are_left_out_where_a_length_is_asked_for(model, film, scenedetect):
    found = model.timeline(film, by="shots", min_length=5.45)
    assert [segment.label for segment in found] == ["pan left", "zoom in", "tilt up"]
    assert len(found.cuts) == 4


# --- annotation ---


def test_pictures_of_odd_size_lose_a_row_and_a_column():
    from vidcls.timeline.annotate import Drawing
    from vidcls.timeline.result import Timeline

    draw = Drawing(Timeline("x", (), {}), 96, 142)
    assert draw(np.zeros((97, 143, 3), np.uint8), 0.0).shape == (96, 142, 3)


def test_annotated_video_has_every_frame_its_sound_and_the_labels(model, tmp_path):
    from vidcls.timeline.annotate import annotate

    clip = make_clip(tmp_path / "clip.mp4", 60, size=(98, 144), audio=True)
    found = model.timeline(clip, threshold=0.05)
    out = tmp_path / "out.mp4"
    done = []
    with VideoReader() as reader, VideoReader() as sound:
        annotate(found, out, reader, sound, lambda at, total: done.append((at, total)))
    assert done[-1] == (60, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]
    with VideoReader() as reader:
        info = reader.open(out)
        written = reader.read(range(60)).frames
        reader.open(clip)
        before = reader.read(range(60)).frames
    assert (info.num_frames, info.width, info.height) == (60, 144, 98)
    assert np.allclose(info.timestamps, np.arange(60) / 25, atol=1e-3)
    upper = np.abs(written[:, :60].astype(int) - before[:, :60].astype(int)).mean()
    foot = np.abs(written[:, -14:].astype(int) - before[:, -14:].astype(int)).mean()
    assert upper < 8
    assert foot > 3 * upper
    assert abs(_loudest(out) - _loudest(clip)) < 30
    assert _sound_seconds(out) == pytest.approx(_sound_seconds(clip), abs=0.2)


def _samples(path):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)]), 8000


def _sound_seconds(path):
    samples, rate = _samples(path)
    return len(samples) / rate


def _loudest(path):
    samples, rate = _samples(path)
    spectrum = np.abs(np.fft.rfft(samples))
    return spectrum.argmax() * rate / len(samples)
