"""Frames read one by one, in any order, are those of one pass: over all containers and codecs that PyAV writes here."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace

import av
import numpy as np
import pytest

from tests.clips import make_clip, number_frame, read_numbers
from vidcls.video import index as decode_index
from vidcls.video.decoders import DecodeError, choose, decoder_class
from vidcls.video.index import build_index
from vidcls.video.packets import _recovers_at_once
from vidcls.video.pyav_decoder import PyAVDecoder
from vidcls.video.reader import VideoReader

FRAMES = 26
CONTAINERS = (
    ".mp4 .mov .mkv .webm .avi .ts .mpg .vob .flv .wmv .ogg .3gp .mxf .nut .gif .apng .h264 .hevc .m4v .ivf"
).split()
FAST = {"preset": "veryfast"}

# name → make_clip's arguments
CODECS = {
    "h264": {},
    "h264-b-frames": {"bframes": 3, "options": FAST},
    "h264-open-gop": {"bframes": 3, "options": {**FAST, "x264-params": "open-gop=1:scenecut=0"}},
    "h264-intra-refresh": {"options": {"intra-refresh": "1"}},
    "h264-intra-refresh-b-frames": {"bframes": 2, "options": {**FAST, "intra-refresh": "1"}},
    "h264-interlaced": {"options": {"x264-params": "interlaced=1"}},
    "hevc": {"codec": "libx265"},
    "hevc-intra-refresh": {"codec": "libx265", "options": {"x265-params": "log-level=none:intra-refresh=1"}},
    "mpeg1video": {"codec": "mpeg1video"},
    "mpeg1video-b-frames": {"codec": "mpeg1video", "options": {"bf": "2"}},
    "mpeg2video": {"codec": "mpeg2video"},
    "mpeg2video-b-frames": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mpeg4": {"codec": "mpeg4"},
    "mpeg4-b-frames": {"codec": "mpeg4", "bframes": 2},
    "msmpeg4v2": {"codec": "msmpeg4v2"},
    "msmpeg4v3": {"codec": "msmpeg4"},
    "wmv1": {"codec": "wmv1"},
    "wmv2": {"codec": "wmv2"},
    "flv1": {"codec": "flv"},
    "h263": {"codec": "h263", "size": (144, 176)},
    "h263p": {"codec": "h263p"},
    "rv20": {"codec": "rv20"},
    "vp8": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "8"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"lag-in-frames": "8"}},
    "av1": {"codec": "libsvtav1"},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ffv1": {"codec": "ffv1"},
    "huffyuv": {"codec": "huffyuv", "pix_fmt": "yuv422p"},
    "ffvhuff": {"codec": "ffvhuff"},
    "utvideo": {"codec": "utvideo"},
    "png": {"codec": "png", "pix_fmt": "rgb24"},
    "apng": {"codec": "apng", "pix_fmt": "rgb24"},
    "gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "qtrle": {"codec": "qtrle", "pix_fmt": "rgb24"},
    "qtrle-gray": {"codec": "qtrle", "pix_fmt": "gray"},
    "cinepak": {"codec": "cinepak", "pix_fmt": "rgb24"},
    "msvideo1": {"codec": "msvideo1", "pix_fmt": "rgb555le"},
    "zmbv": {"codec": "zmbv", "pix_fmt": "bgr0"},
    "flashsv": {"codec": "flashsv", "pix_fmt": "bgr24"},
    "svq1": {"codec": "svq1", "pix_fmt": "yuv410p"},
    "theora": {"codec": "libtheora"},
    "prores": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "jpeg2000": {"codec": "jpeg2000"},
    "snow": {"codec": "snow", "options": {"strict": "-2"}},
    "rawvideo": {"codec": "rawvideo"},
    "rawvideo-pal8": {"codec": "rawvideo", "pix_fmt": "pal8"},
    "rawvideo-gray": {"codec": "rawvideo", "pix_fmt": "gray"},
}


OLD_PYAV = tuple(map(int, av.__version__.split(".")[:2])) < (18, 1)
MPEG = ("mpeg", "libx264", "libx265")


def written(folder, name):
    """Clips of one codec in all the containers that take it and that FFmpeg can read back."""
    if OLD_PYAV and CODECS[name].get("pix_fmt") == "pal8":
        return  # ends the process, as below
    for suffix in CONTAINERS:
        path = folder / f"{name}{suffix}"
        if (
            suffix in (".mpg", ".vob")
            and OLD_PYAV
            and not CODECS[name].get("codec", MPEG[1]).startswith(MPEG)
        ):
            continue  # it ends the process that decodes such a program stream, here that of the tests
        try:
            make_clip(path, FRAMES, **{"size": (64, 96), "gop": 6, **CODECS[name]})
            with av.open(str(path)) as container:
                count = sum(1 for _ in container.decode(video=0))
        except (ValueError, LookupError, OSError, av.FFmpegError):
            continue  # this container does not take the codec, or this build lacks the encoder
        if count:
            yield path, count


@pytest.mark.parametrize("name", CODECS)
def test_a3_one_by_one_as_in_one_pass(tmp_path, name):
    rng = random.Random(name)
    made = 0
    for path, count in written(tmp_path, name):
        made += 1
        index = build_index(str(path))
        assert index.num_frames == count, path.name
        for known in {*choose(index, "auto")[:1], "pyav"}:
            try:
                one_pass = dict(decoder_class(known)(index).read(range(count)))
            except DecodeError:
                continue  # the next decoder's turn
            assert len(one_pass) == count
            for number in rng.sample(range(count), 8):
                ((found, picture),) = decoder_class(known)(index).read([number])
                assert found == number
                np.testing.assert_array_equal(
                    picture, one_pass[number], f"{path.name}: {known}, frame {number}"
                )
    if not made:
        pytest.skip("this build of PyAV lacks the encoder")


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_a3_a_single_frame_of_a_stream_that_changes_its_size(tmp_path, suffix):
    """Scaled to the first size, and said so."""
    small, large = (make_clip(tmp_path / f"{h}.ts", 20, size=(h, 3 * h // 2), gop=5) for h in (96, 192))
    path = tmp_path / f"both{suffix}"
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    if suffix == ".ts":
        path = joined
    else:
        remux(joined, path)
    with VideoReader() as reader:
        info = reader.open(path)
        assert (info.num_frames, info.height, info.width) == (40, 96, 144)
        for number in (39, 20, 3, 30):
            got = reader.read([number])
            assert read_numbers(got.frames) == [number % 20]
            assert got.frames.shape == (1, 96, 144, 3)
            changed = any("size of its frames changes" in text for text in got.warnings)
            assert changed == (number >= 20)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_b16_webm_that_changes_its_size(tmp_path, codec):
    """Key frames of VP8 and VP9 say their size: whoever decodes, it is said."""
    parts = [make_clip(tmp_path / f"{h}.webm", 20, size=(h, 3 * h // 2), codec=codec) for h in (96, 192)]
    path = tmp_path / "both.webm"
    with av.open(str(parts[0])) as first, av.open(str(parts[1])) as second, av.open(str(path), "w") as write:
        copy = write.add_stream_from_template(first.streams.video[0])
        packets = [packet for read in (first, second) for packet in read.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = number * 40
            packet.stream = copy
            write.mux(packet)
    assert build_index(str(path)).resized
    assert not build_index(str(parts[1])).resized
    with VideoReader() as reader:
        assert reader.open(path).num_frames == 40
        got = reader.read([0, 39])
    assert read_numbers(got.frames) == [0, 19]
    assert got.warnings == ("the size of its frames changes: all were scaled to that of the first",)


def remux(source, target):
    """The packets of a file in another container, one every 40 ms."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in read.demux(stream) if p.size):
            packet.pts = packet.dts = round(number / 25 / stream.time_base)
            packet.stream = copy
            write.mux(packet)


def test_a3_seeks_are_made_where_key_frames_stand_alone(tmp_path, monkeypatch):
    """A frame at the end of a long clip does not cost decoding all of it."""
    decoded = []
    monkeypatch.setattr(
        "vidcls.video.pyav_decoder.decode",
        lambda stream, packets, damage: decoded_from(stream, packets, damage, decoded),
    )
    for name, options in (("key", {}), ("refresh", {"intra-refresh": "1"})):
        for suffix in (".mp4", ".mkv", ".ts", ".flv"):
            path = make_clip(tmp_path / f"{name}{suffix}", 120, gop=20, options=options)
            decoded.clear()
            ((_, picture),) = PyAVDecoder(build_index(str(path))).read([115])
            assert read_numbers([picture]) == [115]
            assert (len(decoded) < 40) == (name == "key"), path.name


def decoded_from(stream, packets, damage, decoded):
    from vidcls.video.packets import decode

    for frame in decode(stream, packets, damage):
        decoded.append(frame)
        yield frame


def test_a3_a_seek_that_leads_elsewhere_is_noticed(tmp_path):
    """Whatever the index promises: packets that are others than the indexed ones are not trusted."""
    index = build_index(str(make_clip(tmp_path / "clip.mp4", 60, gop=10)))
    wrong = [
        replace(index, starts={n: (crc ^ 1, at) for n, (crc, at) in index.starts.items()}),
        replace(index, starts={n: (crc, at + 1) for n, (crc, at) in index.starts.items()}),
        replace(index, sizes=index.sizes + 1),
        replace(index, seek_times=index.seek_times + 10**9),
        replace(
            index,
            key_packets=[0, *(n + 1 for n in index.key_packets[1:])],
            starts=dict.fromkeys(range(60), (0, -1)),
        ),
    ]
    for changed in wrong:
        numbers = read_numbers(picture for _, picture in PyAVDecoder(changed).read([5, 45, 58]))
        assert numbers == [5, 45, 58]


def test_a3_recovery_points():
    """SEI messages of H.264: only a recovery point that needs no further frames is one to start from."""
    assert _recovers_at_once(bytes([6, 6, 1, 0xC4, 0x80]))
    assert not _recovers_at_once(bytes([6, 6, 1, 0x2C, 0x80]))
    assert _recovers_at_once(bytes([6, 5, 2, 6, 1, 6, 1, 0x84, 0x80]))  # behind another message
    assert not _recovers_at_once(bytes([6, 5, 255]))
    assert not _recovers_at_once(b"\x06")


def test_a3_palettes(tmp_path):
    """A palette may come once, at the start of the file."""
    for name, codec in (("palette.avi", "rawvideo"), ("palette.mov", "qtrle")):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "pal8" if codec == "rawvideo" else "gray"
            for number in range(40):
                picture = number_frame(number, 64, 96)[..., 0]
                if codec == "rawvideo":
                    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, 1)
                    frame = av.VideoFrame.from_ndarray((picture, palette), format="pal8")
                else:
                    frame = av.VideoFrame.from_ndarray(picture, format="gray")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        index = build_index(str(path))
        assert index.keyframes.tolist() == [0]
        assert read_numbers(picture for _, picture in PyAVDecoder(index).read([38])) == [38]


@pytest.mark.parametrize(
    "name", ["mpeg4-b-frames.mp4", "mpeg4-b-frames.mkv", "wmv2.wmv", "mpeg2video-b-frames.mpg"]
)
def test_a3_the_order_is_seen_by_decoding_where_timestamps_do_not_tell_it(tmp_path, monkeypatch, name):
    """Once, and not for files too large for that."""
    codec, suffix = name.split(".")
    path = str(make_clip(tmp_path / f"clip.{suffix}", FRAMES, **{"gop": 6, **CODECS[codec]}))
    seen = []
    by_decoding = decode_index._by_decoding
    monkeypatch.setattr(decode_index, "_by_decoding", lambda *a: seen.append(a) or by_decoding(*a))
    index = build_index(path)
    assert len(seen) == (codec != "wmv2")
    assert index.num_frames == FRAMES
    assert read_numbers(picture for _, picture in PyAVDecoder(index).read([3, 4, 20])) == [3, 4, 20]
    monkeypatch.setattr(decode_index, "DECODE_BUDGET", 0)
    assert build_index(path).num_frames == FRAMES
    assert len(seen) == (codec != "wmv2")


@pytest.mark.parametrize(("bframes", "suffix"), [(2, ".mp4"), (2, ".mkv"), (0, ".mp4")])
def test_a3_packets_counted_as_they_come(tmp_path, bframes, suffix):
    """A raw stream put into a container: the times are in order, the frames are not."""
    source = make_clip(tmp_path / f"a{suffix}", FRAMES, bframes=bframes, gop=8, options=FAST)
    path = tmp_path / f"counted{suffix}"
    with av.open(str(source)) as container, av.open(str(path), "w") as target:
        stream = container.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream = copy
            packet.pts = packet.dts = round(number / 25 / stream.time_base)
            target.mux(packet)
    index = build_index(str(path))
    assert index.sorted == (not bframes)
    assert read_numbers(picture for _, picture in PyAVDecoder(index).read(range(FRAMES))) == [*range(FRAMES)]
    for number in (1, 3, 9, 20, FRAMES - 1):
        assert read_numbers(picture for _, picture in PyAVDecoder(index).read([number])) == [number]


@pytest.mark.parametrize("suffix", [".flv", ".mkv", ".ts"])
@pytest.mark.parametrize("share", [0.6, 0.83])
def test_a3_files_cut_in_a_packet_hold_what_decodes(tmp_path, suffix, share):
    """As many frames as FFmpeg decodes, each to be had alone."""
    path = make_clip(tmp_path / f"cut{suffix}", 40, bframes=2, options=FAST)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    expected = by_ffmpeg(path)
    index = build_index(str(path))
    got = dict(PyAVDecoder(index).read(range(index.num_frames)))
    assert read_numbers(got.values()) == read_numbers(expected)
    for number in (0, 7, index.num_frames - 1):
        ((_, picture),) = PyAVDecoder(index).read([number])
        np.testing.assert_array_equal(picture, got[number])


def by_ffmpeg(path):
    """All frames that FFmpeg decodes, damaged packets or not."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                frames += packet.decode()
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def test_a3_streams_that_begin_in_a_group(tmp_path):
    """A recording that starts anywhere: what cannot be decoded is left out, and said so."""
    path = make_clip(tmp_path / "head.ts", 40, bframes=2, gop=12, options=FAST)
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 188 // 6 * 188 :])
    with av.open(str(path)) as container:
        expected = read_numbers(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    index = build_index(str(path))
    assert expected[-1] == 39
    assert index.num_frames == len(expected)
    assert read_numbers(dict(PyAVDecoder(index).read(range(index.num_frames))).values()) == expected
    assert any("at the start cannot be decoded" in text for text in index.warnings)
