"""Healthy files that look odd, and damaged ones that do not: metadata, pictures, edit lists, HDR, files cut short."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
from PIL import Image

from tests.clips import make_clip, number_frame, read_numbers
from vidcls.errors import VideoError
from vidcls.video import container as decode_container
from vidcls.video.reader import VideoReader

CODECS = {".avi": "mpeg4", ".wmv": "wmv2", ".ogg": "libvpx", ".webm": "libvpx-vp9"}


@pytest.fixture(scope="module")
def reader():
    with VideoReader(timeout=60) as opened:
        yield opened


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".flv", ".nut", ".3gp", ".ogg"])
def test_b9_metadata_that_are_not_utf8(tmp_path, reader, suffix):
    """Latin-1, as cameras and HMDB-51's tools wrote it."""
    path = tmp_path / f"title{suffix}"
    make_clip(path, 12, codec=CODECS.get(suffix, "libx264"))
    with av.open(str(path)) as source, av.open(str(path.with_stem("named")), "w") as target:
        target.metadata.update(dict.fromkeys(("title", "comment", "artist"), "CAFETERIA"))
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    path = path.with_stem("named")
    data = path.read_bytes()
    if b"CAFETERIA" not in data:
        pytest.skip("this container keeps no title")
    path.write_bytes(data.replace(b"CAFETERIA", b"CAF\xe9TERI\xc0"))
    info = reader.open(path)
    assert info.num_frames == 12
    assert read_numbers(reader.read([0, 11]).frames) == [0, 11]
    assert info.warnings == ()


@pytest.mark.parametrize(
    "name", ["p.jpg", "p.png", "p.webp", "p.bmp", "p.tiff", "jpg.mp4", "png.mp4", "webp.avi"]
)
def test_b15_a_picture_is_a_clip_of_one_frame(tmp_path, reader, name):
    path = tmp_path / name
    kind = path.stem if path.stem != "p" else path.suffix[1:]
    Image.fromarray(number_frame(5, 96, 144)).save(path, format={"jpg": "jpeg"}.get(kind, kind))
    info = reader.open(path)
    assert (info.num_frames, info.height, info.width, info.fps) == (1, 96, 144, 25)
    assert info.warnings == ("it is a picture, not a video: read as a clip of one frame",)
    assert read_numbers(reader.read([0]).frames) == [5]


def test_b15_animations_and_streams_of_pictures_are_videos(tmp_path, reader):
    for name, codec, fmt in (
        ("a.apng", "apng", "rgb24"),
        ("a.gif", "gif", "rgb8"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
    ):
        info = reader.open(make_clip(tmp_path / name, 12, codec=codec, pix_fmt=fmt))
        assert info.num_frames == 12
        assert info.warnings == ()


def test_b15_damaged_pictures_are_called_damaged(tmp_path, reader):
    path = tmp_path / "half.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 144, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(VideoError, match=r"damaged|decoded"):
        reader.open(path)


def set_edit(path, seconds, start=0):
    """Rewrites the only edit of an MP4: show so many seconds from ``start`` on."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst")
    assert struct.unpack(">I", data[at + 8 : at + 12])[0] == 1
    movie = struct.unpack(">I", data[data.index(b"mvhd") + 16 :][:4])[0]
    media = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    data[at + 12 : at + 20] = struct.pack(">Ii", round(seconds * movie), round(start * media))
    path.write_bytes(data)


@pytest.mark.parametrize(("start", "seconds", "shown"), [(0, 1.0, 25), (0.4, 1.2, 30), (1.2, 1.2, 30)])
def test_b15_edit_lists_do_not_end_early(tmp_path, reader, start, seconds, shown):
    path = make_clip(tmp_path / "edited.mp4", 60, gop=60)
    set_edit(path, seconds, start)
    info = reader.open(path)
    got = reader.read(range(info.num_frames))
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert abs(info.num_frames - shown) <= 1
    assert read_numbers(got.frames) == read_numbers(expected)
    assert (info.warnings, got.warnings) == ((), ())


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".wmv", ".mp4", ".mov"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_b15_truncated_files_warn(tmp_path, reader, suffix, share):
    path = tmp_path / f"cut{suffix}"
    make_clip(path, 60, codec=CODECS.get(suffix, "libx264"), faststart=suffix in (".mp4", ".mov"))
    whole = reader.open(path)
    assert whole.warnings == ()
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    info = reader.open(path)
    assert info.num_frames <= whole.num_frames
    assert any("the file ends early" in text for text in info.warnings), info.warnings


def test_b15_a_stream_that_was_not_finished_is_not_cut(tmp_path):
    """A live Matroska and an AVI written to a pipe leave their sizes open."""
    matroska = bytearray(make_clip(tmp_path / "live.mkv", 12).read_bytes())
    at = matroska.index(b"\x18\x53\x80\x67") + 4
    assert matroska[at] == 1
    matroska[at : at + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "live.mkv").write_bytes(matroska)
    avi = bytearray(make_clip(tmp_path / "pipe.avi", 12, codec="mpeg4").read_bytes())
    avi[4:8] = bytes(4)
    (tmp_path / "pipe.avi").write_bytes(avi)
    for name in ("live.mkv", "pipe.avi"):
        assert not decode_container.is_cut_short(str(tmp_path / name))


@pytest.mark.parametrize(("suffix", "codec"), [("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")])
def test_b15_a_header_written_to_a_pipe_is_healthy(tmp_path, reader, suffix, codec):
    """Nothing says how long it is; decord, which needs that, is not tried and does not complain."""
    path = tmp_path / f"live.{suffix}"

    class Pipe:
        def __init__(self, file):
            self.write = file.write

    with path.open("wb") as file, av.open(Pipe(file), "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 144, 96, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(number_frame(number, 96, 144), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = reader.open(path)
    got = reader.read([0, 7, 11])
    assert (info.num_frames, info.warnings, got.warnings) == (12, (), ())
    assert read_numbers(got.frames) == [0, 7, 11]


def test_b15_damage_is_not_called_a_lack_of_permission(tmp_path, reader, monkeypatch):
    rng = np.random.default_rng(3)
    clean = np.frombuffer(make_clip(tmp_path / "a.wmv", 20, codec="wmv2").read_bytes(), np.uint8)
    path = tmp_path / "damaged.wmv"
    said = []
    for _ in range(60):
        data = clean.copy()
        at = rng.integers(16, 700, 4)
        data[at] = rng.integers(0, 255, 4)
        path.write_bytes(data.tobytes())
        try:
            reader.open(path)
        except VideoError as error:
            said.append(str(error))
    assert said
    assert not any("permission" in text for text in said)

    def refuse(*arguments, **options):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(decode_container.av, "open", refuse)
    with pytest.raises(VideoError, match=r"damaged or cut off: .*\(invalid data\); copy") as caught:
        decode_container.open_container(str(path))
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("transfer", "said"), [("smpte2084", "HDR (PQ)"), ("arib-std-b67", "HDR (HLG)"), ("bt709", "")]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_b16_hdr_is_said(tmp_path, reader, transfer, said, suffix):
    options = {"x264-params": f"transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"}
    info = reader.open(make_clip(tmp_path / f"hdr{suffix}", 6, pix_fmt="yuv420p10le", options=options))
    assert len(info.warnings) == bool(said)
    assert said in "".join(info.warnings)


def test_b16_a_change_of_size_is_said(tmp_path, reader):
    parts = [make_clip(tmp_path / f"{h}.ts", 10, size=(h, 144)).read_bytes() for h in (96, 144)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    info = reader.open(path)
    got = reader.read(range(20))
    assert (info.height, info.width) == (96, 144)
    assert read_numbers(got.frames) == [*range(10), *range(10)]
    assert got.warnings == ("the size of its frames changes: all were scaled to that of the first",)


@pytest.mark.parametrize(
    ("suffix", "pix_fmt", "options"),
    [
        (".mp4", "yuv420p10le", {"x264-params": "chromaloc=2"}),
        (".mkv", "yuv422p10le", {}),
        (".ts", "yuv420p", {"x264-params": "interlaced=1"}),
    ],
)
def test_b16_tags_of_fields_and_of_chroma_do_not_change_the_pictures(
    tmp_path, reader, suffix, pix_fmt, options
):
    """As with ffmpeg and decord: colors are those of the bare planes."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 24, 36, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    path = make_clip(tmp_path / f"sharp{suffix}", pictures, pix_fmt=pix_fmt, options=options)
    reader.open(path)
    got = reader.read(range(4)).frames
    with av.open(str(path)) as container:
        for picture, frame in zip(got, container.decode(video=0), strict=True):
            try:
                planes = frame.to_ndarray()
            except ValueError:
                pytest.skip(f"PyAV {av.__version__} hands out no planes of {pix_fmt}")
            bare = av.VideoFrame.from_ndarray(planes, format=pix_fmt)
            expected = bare.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
            np.testing.assert_array_equal(picture, expected)
