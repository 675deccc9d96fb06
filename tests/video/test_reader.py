"""Which frames come out of which file, by which decoder, and what a person is told of the bad ones."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.clips import make_clip, read_numbers, set_rotation
from vidcls.errors import DependencyError, UsageError, VideoError
from vidcls.video.decoders import choose
from vidcls.video.decord_decoder import DecordDecoder
from vidcls.video.index import build_index
from vidcls.video.pyav_decoder import Run, plan_runs
from vidcls.video.reader import VideoReader

SHARED = Path(__file__).parents[3] / "shared" / "videos"
needs_decord = pytest.mark.skipif(
    not DecordDecoder.available(), reason="decord has no wheel for this machine"
)
DECODERS = [pytest.param("decord", marks=needs_decord), "pyav"]
FAST = {"preset": "veryfast"}

# name → suffix, make_clip's arguments
CLIPS = {
    "h264": (".mp4", {}),
    "h264-b-frames": (".mp4", {"bframes": 3, "gop": 7, "options": FAST}),
    "h264-mkv": (".mkv", {"bframes": 3, "gop": 24, "options": FAST}),
    "h264-flv": (".flv", {"bframes": 2, "options": FAST}),
    "h264-flv-no-b-frames": (".flv", {}),
    "h264-open-gop": (
        ".mp4",
        {"bframes": 3, "gop": 20, "options": {**FAST, "x264-params": "open-gop=1:scenecut=0"}},
    ),
    "h264-ts": (".ts", {"bframes": 2, "gop": 10, "options": FAST}),
    "h264-10-bit": (".mp4", {"pix_fmt": "yuv420p10le"}),
    "h264-full-range": (".mp4", {"pix_fmt": "yuvj420p"}),
    "h264-444": (".mp4", {"pix_fmt": "yuv444p"}),
    "h264-bt709": (".mp4", {"options": {"colorspace": "bt709"}}),
    "h264-bt709-full-range": (".mp4", {"pix_fmt": "yuvj420p", "options": {"colorspace": "bt709"}}),
    "h264-bt2020": (".mp4", {"options": {"colorspace": "bt2020nc"}}),
    "vp9-full-range": (".webm", {"codec": "libvpx-vp9", "options": {"color_range": "pc"}}),
    "hevc-full-range": (".mp4", {"codec": "libx265", "pix_fmt": "yuvj420p"}),
    "h264-sound": (".mp4", {"audio": True}),
    "hevc": (".mp4", {"codec": "libx265"}),
    "mpeg4-avi": (".avi", {"codec": "mpeg4"}),
    "mpeg4-avi-b-frames": (".avi", {"codec": "mpeg4", "bframes": 2}),
    "mpeg4-odd": (".avi", {"codec": "mpeg4", "size": (97, 145)}),
    "mjpeg": (".mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "vp9": (".webm", {"codec": "libvpx-vp9"}),
    "av1": (".mkv", {"codec": "libsvtav1"}),
    "gif": (".gif", {"codec": "gif", "pix_fmt": "gray"}),
    "mpeg2-ps": (".mpg", {"codec": "mpeg2video"}),
}
# Where decord's own scaler is older than FFmpeg's, or it cannot read the file at all (see decord_misfit).
INEXACT = {"h264-10-bit": 1.0, "mpeg4-odd": 0.6}
NOT_BY_DECORD = {"h264-ts", "av1", "gif", "mpeg2-ps"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Makes each named clip once."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name):
        suffix, arguments = CLIPS[name]
        path = folder / f"{name}{suffix}"
        if not path.exists():
            try:
                make_clip(path, 60, **arguments)
            except (ValueError, LookupError) as error:  # this build of PyAV lacks the encoder
                pytest.skip(f"cannot make it here: {error}")
        return path

    return make


@pytest.fixture(scope="module")
def readers():
    """One reader, and so one worker, per decoder for all tests of the module."""
    opened = {name: VideoReader(name, timeout=60) for name in ("auto", "decord", "pyav")}
    yield opened
    for reader in opened.values():
        reader.close()


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("decoder", ["auto", *DECODERS])
def test_exact_frames(clips, readers, name, decoder):
    path = clips(name)
    reader = readers[decoder]
    info = reader.open(path)
    assert (info.num_frames, info.variable_frame_rate) == (60, False)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert info.duration == pytest.approx(2.4, rel=1e-2)
    np.testing.assert_allclose(info.timestamps, np.arange(60) / 25, atol=1e-3)
    size = CLIPS[name][1].get("size", (96, 144))
    assert (info.height, info.width) == size
    if decoder == "decord" and name in NOT_BY_DECORD:
        with pytest.raises(VideoError, match=r"decord could not read it .*use decoder=auto"):
            reader.read([0])
        return
    for wanted in ([0], [59], [31], [58, 3, 3, 17], range(60), [5, 29, 30, 31, 55]):
        got = reader.read(list(wanted))
        assert got.indices.tolist() == sorted(set(wanted))
        assert read_numbers(got.frames) == got.indices.tolist()
        assert got.frames.shape == (len(got.indices), *size, 3)
        assert got.frames.dtype == np.uint8
        assert got.warnings == ()
    assert got.decoder == ("pyav" if decoder == "auto" else decoder) == info.decoder


@needs_decord
@pytest.mark.parametrize("name", [n for n in CLIPS if n not in NOT_BY_DECORD])
def test_decoders_deliver_the_same_pictures(clips, readers, name):
    path = clips(name)
    frames = {}
    for decoder in ("decord", "pyav"):
        readers[decoder].open(path)
        frames[decoder] = readers[decoder].read(range(0, 60, 7)).frames.astype(int)
    difference = np.abs(frames["decord"] - frames["pyav"]).mean()
    assert difference <= INEXACT.get(name, 0)


@needs_decord
@pytest.mark.skipif(not SHARED.exists(), reason="the project's shared clips are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("arm_wrestling.mp4", 0),
        ("flipping_pancake.mkv", 0),
        ("mpeg4.avi", 0),
        ("h265.mp4", 0),
        ("rotated_0.mov", 0),
        ("rotated_90.mov", 0),
        ("two_video_streams.mp4", 0),
        ("h264_10bit.mp4", 3.5),
    ],
)
def test_decoders_agree_on_shared_clips(readers, name, bound):
    frames = {}
    for decoder in ("auto", "decord", "pyav"):
        info = readers[decoder].open(SHARED / name)
        wanted = np.linspace(0, info.num_frames - 1, 20).astype(int)
        frames[decoder] = readers[decoder].read(wanted).frames.astype(int)
    assert np.abs(frames["decord"] - frames["pyav"]).mean() <= bound
    assert np.abs(frames["auto"] - frames["pyav"]).mean() == 0


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation(tmp_path, readers, decoder, degrees):
    path = make_clip(tmp_path / "turned.mov", 20)
    upright = readers[decoder].open(path)
    plain = readers[decoder].read([3, 11]).frames
    set_rotation(path, degrees)
    info = readers[decoder].open(path)
    turned = readers[decoder].read([3, 11]).frames
    assert info.rotation == degrees
    swapped = degrees != 180
    assert (info.height, info.width) == ((144, 96) if swapped else (upright.height, upright.width))
    np.testing.assert_array_equal(turned, np.rot90(plain, -degrees // 90, axes=(1, 2)))


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_best_of_two_video_streams_is_read(tmp_path, readers, decoder):
    path = make_clip(tmp_path / "two.mp4", 40, second_size=(192, 288), both_default=True)
    info = readers[decoder].open(path)
    got = readers[decoder].read([0, 20, 39])
    assert (info.height, info.width) == (192, 288)
    assert read_numbers(got.frames) == [2048, 2068, 2087]


@needs_decord
def test_where_decord_would_choose_another_stream_pyav_reads(tmp_path, readers):
    """FFmpeg 4.1, which decord has, does not prefer the stream that is marked as default; later ones do."""
    path = make_clip(tmp_path / "two.mp4", 40, second_size=(192, 288))
    info = readers["auto"].open(path)
    got = readers["auto"].read([0, 20, 39])
    assert (info.height, info.width) == (96, 144)
    assert read_numbers(got.frames) == [0, 20, 39]
    assert got.decoder == "pyav"
    assert got.warnings == ()
    readers["decord"].open(path)
    with pytest.raises(VideoError, match="use decoder=auto"):
        readers["decord"].read([0])


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path, readers, decoder, suffix):
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 50)).round(3)
    path = make_clip(tmp_path / f"vfr{suffix}", 50, times=times.tolist(), bframes=2, options=FAST)
    info = readers[decoder].open(path)
    assert info.variable_frame_rate
    np.testing.assert_allclose(info.timestamps, times - times[0], atol=2e-3)
    assert info.fps == pytest.approx(49 / (times[-1] - times[0]), rel=1e-3)
    got = readers[decoder].read([0, 9, 25, 49])
    assert read_numbers(got.frames) == [0, 9, 25, 49]


def test_a_start_that_is_not_zero(tmp_path, readers):
    path = make_clip(tmp_path / "late.mkv", 30, times=[7 + i * 0.04 for i in range(30)])
    info = readers["auto"].open(path)
    assert info.timestamps[0] == 0
    assert info.duration == pytest.approx(1.2, abs=0.01)
    assert not info.variable_frame_rate
    assert read_numbers(readers["auto"].read([2, 29]).frames) == [2, 29]


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_edit_list_cuts_frames_off(tmp_path, readers, decoder):
    path = make_clip(tmp_path / "cut.mp4", 40, gop=40)
    _set_media_time(path, 10)
    info = readers[decoder].open(path)
    assert info.num_frames == 30
    if decoder == "decord":  # FFmpeg 4.1 counts what was cut
        with pytest.raises(VideoError, match=r"counts 40 frames instead of 30.*use decoder=auto"):
            readers[decoder].read([0])
    else:
        assert read_numbers(readers[decoder].read([0, 5, 29]).frames) == [10, 15, 39]


def _set_media_time(path, frames):
    """Rewrites the edit list of an MP4 whose first edit starts at 0: begin after so many of its frames."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst")
    count = struct.unpack(">I", data[at + 8 : at + 12])[0]
    assert count == 1
    base = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    assert struct.unpack(">i", data[at + 16 : at + 20])[0] == 0
    data[at + 16 : at + 20] = struct.pack(">i", frames * base // 25)
    path.write_bytes(data)


def test_one_frame(tmp_path, readers):
    info = readers["auto"].open(make_clip(tmp_path / "one.mp4", 1))
    assert (info.num_frames, info.fps) == (1, 25)
    assert info.timestamps.tolist() == [0]
    assert read_numbers(readers["auto"].read([0, 0]).frames) == [0]


def test_bytes(clips, readers):
    data = clips("h264").read_bytes()
    info = readers["auto"].open(data)
    assert (info.path, info.num_frames) == ("-", 60)
    assert read_numbers(readers["auto"].read([7]).frames) == [7]
    for content, kind in ((b"", "empty"), (b"no video", "not_a_video")):
        with pytest.raises(VideoError) as caught:
            readers["auto"].open(content)
        assert caught.value.kind == kind
        assert str(caught.value).startswith("-: ")


def test_bytes_leave_no_file_behind(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with VideoReader() as reader:
        reader.open(clips("h264").read_bytes())
        assert list(tmp_path.iterdir())
        reader.open(clips("h264"))
        assert not list(tmp_path.glob("*.video"))
        reader.open(clips("h264").read_bytes())
    assert not list(tmp_path.glob("*.video"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"codec": "av1"}, "AV1"),
        ({"pix_fmt": "yuv420p10le"}, "yuv420p10le"),
        ({"height": 97}, "odd"),
        ({"height": 97, "pix_fmt": "yuv444p"}, ""),
        ({"height": 4320, "width": 7680}, "this size"),
        ({"timestamps": np.arange(20_000) / 25}, "long file"),
        ({"open_gop": True}, "seek"),
        ({"guessed": True}, "seek"),
        ({"sorted": False}, "seek"),
        ({"false_keys": True}, "seek"),
        ({"container": "flv"}, ""),
        ({"container": "flv", "place": np.arange(60) ^ 1}, "seek"),
        ({"container": "avi"}, "seek"),
        ({"plain": False}, "other files"),
        ({"repaired": True}, "times"),
        ({"resized": True}, "new size"),
        ({"container": "mpegts"}, "seek"),
    ],
)
def test_what_decord_is_not_given(clips, changes, reason):
    index = replace(build_index(str(clips("h264"))), **changes)
    assert reason in DecordDecoder.misfit(index)
    assert bool(reason) == bool(DecordDecoder.misfit(index))
    assert choose(index, "pyav") == ["pyav"]
    assert choose(index, "decord") == ["decord"]
    usual = ["pyav", "decord"] if DecordDecoder.available() else ["pyav"]
    assert choose(index, "auto") == (["pyav"] if reason else usual)


def halve(picture):
    """Every second pixel; not contiguous, not writable alike."""
    return picture[::2, ::2].astype(np.float32)


def fail(picture):
    raise ZeroDivisionError("by the transform")


@pytest.mark.parametrize("decoder", DECODERS)
def test_transform_runs_in_the_worker(clips, readers, decoder):
    reader = readers[decoder]
    reader.open(clips("h264"))
    whole = reader.read([4, 9]).frames
    half = reader.read([4, 9], halve).frames
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, whole[:, ::2, ::2])
    with pytest.raises(RuntimeError, match="by the transform"):
        reader.read([4], fail)
    assert read_numbers(reader.read([4]).frames) == [4]


def test_indices_are_checked(clips, readers):
    reader = readers["auto"]
    reader.open(clips("h264"))
    for wrong in ([60], [-1], []):
        with pytest.raises(IndexError):
            reader.read(wrong)
    with VideoReader() as fresh, pytest.raises(RuntimeError, match="before open"):
        fresh.read([0])


def test_arguments_are_checked():
    for arguments in ({"decoder": "ffmpeg"}, {"timeout": 0}, {"max_memory": -1}):
        with pytest.raises(UsageError):
            VideoReader(**arguments)


def test_decord_missing(clips, monkeypatch, tmp_path):
    # The worker takes the parent's path: a finder there hides decord from it, as where it has no wheel.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = lambda name, *a, **k: None if name == 'decord' else find(name, *a, **k)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with VideoReader() as reader:
        assert reader.open(clips("h264")).decoder == "pyav"
        assert reader.read([8]).decoder == "pyav"
    with VideoReader("decord") as reader:
        reader.open(clips("h264"))
        with pytest.raises(DependencyError, match="use decoder=auto"):
            reader.read([8])


# --- seek or read on -----------------------------------------------------------------------------------------


def test_plan_runs():
    keys = [0, 50, 100, 150]
    assert plan_runs([0, 1, 2], keys) == [Run(0, (0, 1, 2))]
    assert plan_runs([120], keys) == [Run(100, (120,))]
    assert plan_runs([45, 52], keys) == [Run(0, (45, 52))]  # 4 frames to the key: cheaper than a seek
    assert plan_runs([3, 120, 121, 160], keys) == [Run(0, (3,)), Run(100, (120, 121)), Run(150, (160,))]
    assert plan_runs([55], keys, seek_cost=100) == [Run(0, (55,))]
    assert plan_runs([], keys) == []


@pytest.mark.parametrize("seed", range(20))
def test_plan_runs_costs_least(seed):
    rng = np.random.default_rng(seed)
    keys = [0, *sorted(rng.choice(np.arange(1, 200), 8, replace=False).tolist())]
    wanted = sorted(rng.choice(200, 4, replace=False).tolist())
    cost = 10

    def price(position, rest):
        """The cheapest of all ways, by trying each."""
        if not rest:
            return 0
        key = max(k for k in keys if k <= rest[0])
        after = price(rest[0] + 1, rest[1:])
        return after + min(rest[0] + 1 - position, cost + rest[0] + 1 - key)

    total, runs = 0, plan_runs(wanted, keys, cost)
    for run in runs:
        total += (cost if run.start else 0) + run.wanted[-1] + 1 - run.start
    assert [frame for run in runs for frame in run.wanted] == wanted
    assert total == price(0, wanted)
