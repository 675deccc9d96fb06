"""Timestamps that repeat, jump or are missing: frames stay what they are, times are made sense of, and it is said."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clips import make_clip, read_numbers
from vidcls.video import index as decode_index
from vidcls.video.packets import MISSING
from vidcls.video.reader import VideoReader
from vidcls.video.timing import FPS_RANGE, frame_times

B_FRAMES = {"bframes": 2, "gop": 25, "options": {"preset": "veryfast"}}


@pytest.fixture(scope="module")
def reader():
    with VideoReader() as opened:
        yield opened


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Transport streams of 50 frames each: plain, ten hours later, two seconds later, larger."""
    folder = tmp_path_factory.mktemp("parts")

    def part(name, start, **changes):
        times = [start + n / 25 for n in range(50)]
        return make_clip(folder / f"{name}.ts", 50, times=times, **{**B_FRAMES, **changes}).read_bytes()

    return {
        "plain": part("plain", 0),
        "hours": part("hours", 36_000),
        "gap": part("gap", 8),
        "overlap": part("overlap", 1),
        "large": part("large", 0, size=(192, 288)),
        "mpeg2": make_clip(folder / "mpeg2.ts", 50, codec="mpeg2video").read_bytes(),
    }


@pytest.mark.parametrize("by_parts", [False, True], ids=["decoded once", "too large for that"])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("plain", "plain"), "go back once"),
        (("plain", "plain", "plain"), "go back 2 times"),
        (("plain", "hours"), "jump once"),
        (("hours", "plain"), ""),
        (("plain", "gap"), "jump once by 6 s"),
        (("gap", "plain"), "go back once"),
        (("plain", "overlap"), "go back once"),
        (("plain", "large"), "go back once"),
        (("mpeg2", "mpeg2"), "go back once"),
    ],
)
def test_a1_joined_transport_streams(tmp_path, monkeypatch, parts, names, said, by_parts):
    """Every frame once, in the order of the file, 25 a second, and a warning."""
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts[name] for name in names))
    if by_parts:
        monkeypatch.setattr(decode_index, "DECODE_BUDGET", 0)
        index = decode_index.build_index(str(path))
        assert index.num_frames == 50 * len(names)
        np.testing.assert_allclose(index.timestamps, np.arange(index.num_frames) / 25, atol=1e-3)
        return
    with VideoReader() as reader:
        info = reader.open(path)
        count = 50 * len(names)
        assert info.num_frames == count
        assert info.fps == pytest.approx(25, rel=1e-3)
        assert info.duration == pytest.approx(count / 25, abs=0.01)
        np.testing.assert_allclose(info.timestamps, np.arange(count) / 25, atol=1e-3)
        assert not info.variable_frame_rate
        assert len(info.warnings) == 1
        assert said in info.warnings[0]
        expected = [*range(50)] * len(names)
        got = reader.read(range(count))
        assert read_numbers(got.frames) == expected
        for number in (0, 49, 50, 74, count - 1, 3):
            assert read_numbers(reader.read([number]).frames) == [expected[number]]
        changed = any("size of its frames changes" in text for text in got.warnings)
        assert changed == ("large" in names)


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_a1_joined_program_streams(tmp_path, reader, codec):
    part = make_clip(tmp_path / "part.mpg", 50, codec=codec, options={"bf": "2"})
    assert reader.open(part).warnings == ()
    path = tmp_path / "joined.mpg"
    path.write_bytes(2 * part.read_bytes())
    info = reader.open(path)
    np.testing.assert_allclose(info.timestamps, np.arange(100) / 25, atol=1e-3)
    assert info.warnings == ("its times go back once: frames are counted at 25 frames a second",)
    assert read_numbers(reader.read([0, 49, 50, 99]).frames) == [0, 49, 0, 49]


def test_a1_a_gap_that_is_short_beside_the_clip_stays(tmp_path, reader):
    times = [n / 25 + (2 if n >= 200 else 0) for n in range(400)]
    info = reader.open(make_clip(tmp_path / "paused.mkv", 400, times=times, size=(32, 48)))
    np.testing.assert_allclose(info.timestamps, times, atol=2e-3)
    assert info.warnings == ()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
def test_a1_a_gap_longer_than_the_clip_is_closed(tmp_path, reader, suffix):
    times = [n / 25 + (400 if n >= 20 else 0) for n in range(60)]
    info = reader.open(make_clip(tmp_path / f"gap{suffix}", 60, times=times))
    np.testing.assert_allclose(info.timestamps, np.arange(60) / 25, atol=2e-3)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert len(info.warnings) == 1
    assert "jump once by 400 s" in info.warnings[0]
    assert read_numbers(reader.read([19, 20, 59]).frames) == [19, 20, 59]


def stts_clip(path, count=100):
    """An MP4 whose table of durations has an entry of a single frame, and where that entry is."""
    times = [n / 25 + (0.001 if n == 50 else 0) for n in range(count)]
    data = bytearray(make_clip(path, count, times=times).read_bytes())
    at = data.index(b"stts")
    entries = struct.unpack(">I", data[at + 8 : at + 12])[0]
    places = [at + 12 + 8 * n for n in range(entries)]
    return data, next(place for place in places if data[place : place + 4] == b"\0\0\0\1"), places


@pytest.mark.parametrize("every", [False, True], ids=["one entry", "half of all"])
def test_a1_zero_entries_in_stts(tmp_path, reader, every):
    path = tmp_path / "zero.mp4"
    data, single, places = stts_clip(path)
    place = places[0] if every else single
    data[place + 4 : place + 8] = bytes(4)
    path.write_bytes(data)
    info = reader.open(path)
    assert info.num_frames == 100
    assert info.fps == pytest.approx(25, rel=1e-3)
    np.testing.assert_allclose(info.timestamps, np.arange(100) / 25, atol=2e-3)
    assert len(info.warnings) == 1
    assert "counted at 25 frames a second" in info.warnings[0]
    assert read_numbers(reader.read([0, 49, 50, 51, 99]).frames) == [0, 49, 50, 51, 99]


def test_a1_all_times_within_a_blink(tmp_path, reader):
    path = tmp_path / "ticks.mp4"
    data, _, places = stts_clip(path)
    for place in places:
        data[place + 4 : place + 8] = struct.pack(">I", 1)
    path.write_bytes(data)
    info = reader.open(path)
    assert (info.num_frames, info.fps, info.duration) == (100, 25, 4)
    assert info.warnings


def test_a1_one_repeat_among_many(tmp_path, reader):
    """In FLV, whose tags carry milliseconds."""
    path = make_clip(tmp_path / "repeat.flv", 60)
    data = bytearray(path.read_bytes())
    at, tags = 13, []
    while at + 11 < len(data):
        if data[at] == 9:
            tags.append(at)
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    coded = [tag for tag in tags if data[tag + 12] == 1]  # without the header of the stream and its end
    data[coded[30] + 4 : coded[30] + 7] = data[coded[29] + 4 : coded[29] + 7]
    path.write_bytes(data)
    info = reader.open(path)
    np.testing.assert_allclose(info.timestamps, np.arange(60) / 25, atol=2e-3)
    assert info.warnings == (
        "1 frame has the time of the one before: frames are counted at 25 frames a second",
    )
    assert read_numbers(reader.read(range(60)).frames) == [*range(60)]


def timing(seconds, rates=(25.0,), container="mov", tick=Fraction(1, 90_000), **kwargs):
    stamps = np.array([MISSING if s is None else round(s / tick) for s in seconds], np.int64)
    return frame_times(stamps, tick, rates, container, **kwargs)


def test_a1_repeats_at_an_uneven_rate_are_spread():
    found = timing([0, 0.1, 0.1, 0.3, 0.35, 0.7, 0.8, 1.2, 1.21, 1.5, 1.9, 2.0])
    np.testing.assert_allclose(found.seconds[:4], [0, 0.1, 0.2, 0.3], atol=1e-4)
    np.testing.assert_allclose(found.seconds[3:], [0.3, 0.35, 0.7, 0.8, 1.2, 1.21, 1.5, 1.9, 2.0], atol=1e-4)
    assert "spread between their neighbors" in found.warnings[0]


def test_a1_missing_times():
    found = timing([0, 0.04, None, 0.12], rates=(0, 50.0))
    np.testing.assert_allclose(found.seconds, np.arange(4) / 50)
    assert found.warnings == ["1 frame has no time: frames are counted at 50 frames a second"]
    assert timing([None] * 3, guessed=True).warnings == []
    nothing = timing([None] * 3, rates=(0, 90_000.0), guessed=True)
    assert (nothing.fps, nothing.warnings) == (
        25,
        ["no frame times and no frame rate: 25 frames a second assumed"],
    )


def test_a1_slow_and_fast_clips():
    slides = timing([0, 20, 40, 60, 80], rates=(0.05,))
    np.testing.assert_allclose(slides.seconds, [0, 20, 40, 60, 80])
    assert slides.warnings == ["its times give 0.05 frames a second: they may be wrong"]
    lifetimes = timing(np.arange(12) * 1e8, rates=(0,), container="avi", tick=Fraction(1))
    assert lifetimes.duration == pytest.approx(12 / 25)
    assert "counted at 25" in lifetimes.warnings[0]
    fast = timing(np.arange(100) / 500, rates=(500.0,))
    assert (fast.fps, fast.warnings) == (pytest.approx(500), [])
    faster = timing(np.arange(100) / 2000, rates=(2000.0,))
    assert faster.fps == 25
    assert "counted at 25" in faster.warnings[0]


def test_a1_a_clock_that_is_no_rate():
    """ASF declares its 1,000 ticks a second as a rate; two frames of a stream may lie a day apart."""
    assert timing([3.0], rates=(1000.0, 1000.0)).fps == 25
    assert timing([None] * 9, rates=(1000.0,), guessed=True).duration == pytest.approx(9 / 25)
    apart = timing([0, 71_582.3], container="mpegts")
    assert apart.duration == pytest.approx(2 / 25)
    assert "jump once" in apart.warnings[0]


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.integers(-(1 << 62), 1 << 62) | st.integers(0, 1 << 20), min_size=1, max_size=40),
    st.sampled_from([Fraction(1, 90_000), Fraction(1, 1000), Fraction(1), Fraction(1, 1 << 30)]),
    st.lists(st.sampled_from([0.0, 1e-9, 24.0, 25.0, 90_000.0, 1e300]), max_size=3),
    st.sampled_from(["mov", "mpegts", "avi"]),
)
def test_a1_no_absurd_rate_without_a_warning(stamps, base, rates, container):
    found = frame_times(np.array(stamps, np.int64), base, rates, container)
    assert found.seconds[0] == 0
    assert len(found.seconds) == len(stamps)
    assert (np.diff(found.seconds) >= 0).all()
    assert np.isfinite(found.seconds).all()
    assert np.isfinite(found.duration)
    assert found.duration > 0
    assert found.warnings or FPS_RANGE[0] <= found.fps <= FPS_RANGE[1]
    if (np.diff(found.seconds) == 0).any():
        assert found.warnings
