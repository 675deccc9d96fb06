"""Where windows lie, and which frames they hold."""

from __future__ import annotations

import numpy as np
import pytest

from vidcls.config import load_registry
from vidcls.errors import UsageError
from vidcls.timeline.windows import SPREAD, SPREAD_SECONDS, plan_windows
from vidcls.video.reader import VideoInfo
from vidcls.views.sampling import plan_clips

ENTRIES = load_registry()
CAMERA = ENTRIES["camera-motion"].input
ONE_PER_RULE = {spec.input.sampling: spec for spec in ENTRIES.values()}


def info_of(frames: int, fps: float = 25.0, times: np.ndarray | None = None) -> VideoInfo:
    times = np.arange(frames) / fps if times is None else times
    duration = float(times[-1]) + 1 / fps
    return VideoInfo("x", frames, fps, duration, 340, 256, 0, "h264", "pyav", times, False)


def test_the_default_is_the_models_clip_length_and_half_of_it():
    windows = plan_windows(CAMERA, info_of(1000), unit_frames=4)
    assert np.allclose(windows.ends - windows.starts, 64 / 25)
    assert windows.step == pytest.approx(32 / 25)
    assert np.allclose(np.diff(windows.starts)[:-1], 32 / 25)
    assert windows.ends[-1] == pytest.approx(40.0)
    assert windows.indices[1].tolist() == list(range(32, 96, 2))


@pytest.mark.parametrize("sampling", ONE_PER_RULE)
def test_every_window_is_sampled_as_the_model_samples_a_clip_of_its_length(sampling):
    spec = ONE_PER_RULE[sampling].input.model_copy(update={"fps": None, "num_views": 1})
    windows = plan_windows(spec, info_of(900, 30.0))
    first = round(windows.starts[1] * 30)
    length = round((windows.ends[1] - windows.starts[1]) * 30)
    alone = plan_clips(spec, num_frames=length, fps=30.0, timestamps=np.arange(length) / 30.0)
    assert np.array_equal(windows.indices[1] - first, alone.indices[0])


@pytest.mark.parametrize(
    "name", ["camera-motion", "vivit-b-16x2-k400-hf", "timesformer-base-k400", "vtn-vit-b-k400"]
)
@pytest.mark.parametrize("frames", [1, 2, 31, 64, 65, 100, 777])
@pytest.mark.parametrize("fps", [12.5, 25.0, 29.97, 60.0])
def test_windows_cover_every_video(name, frames, fps):
    if name not in ENTRIES:
        pytest.skip("not in the registry")
    info = info_of(frames, fps)
    windows = plan_windows(ENTRIES[name].input, info, unit_frames=1)
    assert windows.starts[0] == 0
    assert windows.ends[-1] == pytest.approx(info.duration, abs=0.05)
    assert (windows.starts[1:] <= windows.ends[:-1] + 1e-9).all()
    assert windows.indices.min() >= 0
    assert windows.indices.max() < frames


def test_a_video_shorter_than_a_window_is_sampled_as_predict_samples_it():
    info = info_of(40)
    windows = plan_windows(CAMERA, info, unit_frames=4)
    alone = plan_clips(
        CAMERA.model_copy(update={"num_views": 1}), num_frames=40, fps=25.0, timestamps=info.timestamps
    )
    assert np.array_equal(windows.indices, alone.indices)
    assert windows.warnings == alone.warnings
    assert (windows.starts.tolist(), windows.ends.tolist()) == ([0.0], [1.6])


def test_neighbors_share_tubelets_at_any_step():
    for step in (None, 0.3, 1.0, 2.0):
        windows = plan_windows(CAMERA, info_of(5000), step=step, unit_frames=4)
        units = windows.indices[:-1].reshape(-1, 4)
        assert len(np.unique(units, axis=0)) <= 5000 / 8


def test_a_window_of_another_length_spreads_the_models_frames_over_it():
    windows = plan_windows(CAMERA, info_of(2000), window=5.12, step=1.0, unit_frames=4)
    assert np.allclose(windows.ends - windows.starts, 5.12, atol=1e-6)
    assert set(np.diff(windows.indices[0])) == {4}
    shorter = plan_windows(CAMERA, info_of(2000), window=2.0, unit_frames=4)
    assert np.allclose(shorter.ends - shorter.starts, 2.0, atol=0.05)
    assert shorter.indices[0][-1] == pytest.approx(2.0 * 25 * 31 / 32, abs=1)


def test_frames_of_a_varying_rate_are_found_by_their_times():
    # A second at 50 frames/s, a second at 10, and so on.
    steps = np.concatenate([np.full(50, 0.02), np.full(10, 0.1)] * 10)
    times = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    info = info_of(len(times), 30.0, times)
    windows = plan_windows(CAMERA, info, unit_frames=4)
    for number in range(len(windows)):
        wanted = windows.starts[number] + np.arange(32) * 0.08
        shown = times[windows.indices[number]]
        assert (shown <= wanted + 0.011).all()
        assert (wanted - shown < 0.1 + 1e-6).all()
    assert windows.ends[-1] == pytest.approx(info.duration, abs=0.05)


def test_with_native_frames_the_times_are_the_files():
    times = np.concatenate([np.arange(100) / 50, 2 + np.arange(100) / 10])
    info = info_of(200, 17.0, times)
    windows = plan_windows(CAMERA, info, fps="native", unit_frames=4)
    for start, indices in zip(windows.starts, windows.indices, strict=True):
        assert start == pytest.approx(times[indices[0]])


@pytest.mark.parametrize("sampling", [rule for rule in SPREAD if rule in ONE_PER_RULE])
def test_models_that_spread_over_a_clip_get_four_seconds(sampling):
    spec = ONE_PER_RULE[sampling].input
    windows = plan_windows(spec, info_of(3000, 30.0))
    assert np.allclose(windows.ends - windows.starts, SPREAD_SECONDS, atol=spec.num_frames / 30 / 2 + 1e-6)


@pytest.mark.parametrize(
    ("window", "step", "subject"),
    [(1.0, 2.0, "step"), (0.0, None, "window"), (None, -1.0, "step"), (float("nan"), None, "window")],
)
def test_lengths_that_make_no_sense(window, step, subject):
    with pytest.raises(UsageError) as caught:
        plan_windows(CAMERA, info_of(500), window=window, step=step)
    assert caught.value.subject == subject


def test_too_many_windows_are_refused():
    with pytest.raises(UsageError, match="windows"):
        plan_windows(CAMERA, info_of(4_000_000), step=0.01)
