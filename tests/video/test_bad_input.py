"""What a person is told of files that are no videos, or damaged ones; and that strangers' files open no others."""

from __future__ import annotations

import os
import socket
import sys

import numpy as np
import pytest

from tests.clips import make_audio, make_clip, number_frame, read_numbers
from vidcls.errors import VideoError
from vidcls.video.reader import VideoReader, check_file


@pytest.fixture(scope="module")
def reader():
    """One reader, and so one worker, for all tests of the module."""
    with VideoReader(timeout=60) as opened:
        yield opened


M3U8 = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nh264.ts\n#EXT-X-ENDLIST\n"
BAD_CONTENT = {
    "text.mp4": b"not a video, but some text\n" * 50,
    "page.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros.mp4": bytes(10_000),
    "noise.mp4": np.random.default_rng(0).bytes(10_000),
    "list.m3u8": M3U8,
    "list.mp4": M3U8,
    "concat.mp4": b"ffconcat version 1.0\nfile 'h264.ts'\n",
    "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "manifest.mpd": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_not_a_video(tmp_path, reader, name):
    make_clip(tmp_path / "h264.ts", 10)  # what the playlists name: it must not be opened
    path = tmp_path / name
    path.write_bytes(BAD_CONTENT[name])
    with pytest.raises(VideoError, match="is not a video in a known format") as caught:
        reader.open(path)
    playlist = any(word in BAD_CONTENT[name] for word in (b"#EXTM3U", b"ffconcat", b"IN IP4", b"<MPD"))
    assert ("convert it" in str(caught.value)) != playlist
    assert ("but a playlist" in str(caught.value)) == playlist
    assert caught.value.kind == "not_a_video"
    assert str(caught.value).startswith(str(path))


def test_a_name_is_no_protocol_and_no_pattern(tmp_path, reader, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip("real.mp4", 5)
    for name in (
        "concat:real.mp4",
        "http://127.0.0.1:9/x.mp4",
        "file:real.mp4",
        "subfile,,start,0,end,0,,:real.mp4",
    ):
        with pytest.raises(VideoError, match="no such file") as caught:
            reader.open(name)
        assert caught.value.kind == "not_found"
    from PIL import Image

    for number in range(3):
        Image.fromarray(number_frame(number, 96, 144)).save(f"im{number}.png")
    Image.fromarray(number_frame(2048, 96, 144)).save("im%d.png")
    info = reader.open("im%d.png")  # the picture of that name, not a sequence
    assert info.num_frames == 1
    assert read_numbers(reader.read([0]).frames) == [2048]
    if os.name == "posix":
        os.rename("real.mp4", "concat:a|b.mp4")
        assert reader.open("concat:a|b.mp4").num_frames == 5
        assert reader.read([4]).frames.shape == (1, 96, 144, 3)


def test_bad_paths(tmp_path):
    def kind_of(path):
        with pytest.raises(VideoError) as caught:
            check_file(path)
        return caught.value.kind, str(caught.value)

    (tmp_path / "empty.mp4").touch()
    assert kind_of(tmp_path / "none.mp4")[0] == "not_found"
    assert kind_of("")[0] == "not_found"
    assert kind_of("a\0b")[0] == "not_found"
    assert kind_of(tmp_path / "empty.mp4" / "x")[0] == "not_found"
    assert kind_of(tmp_path)[0] == "not_a_file"
    assert "is a directory" in kind_of(tmp_path)[1]
    assert kind_of(tmp_path / "empty.mp4") == (
        "empty",
        f"{tmp_path / 'empty.mp4'}: is empty (0 bytes); copy or download it again",
    )


@pytest.mark.skipif(os.name != "posix", reason="these kinds of files are POSIX's")
def test_pipes_sockets_devices(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)
        server.bind("s.mp4")
        os.chdir(here)
        for path, word in (
            (tmp_path / "fifo.mp4", "FIFO"),
            (tmp_path / "s.mp4", "socket"),
            ("/dev/zero", "device"),
        ):
            with pytest.raises(VideoError, match=word) as caught:
                check_file(path)
            assert caught.value.kind == "not_a_file"


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits are POSIX's")
def test_permission(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "secret.mp4", 2)
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything: let the system say no in its stead

        def refuse(name, *arguments):
            raise PermissionError(13, "Permission denied", str(name))

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(VideoError, match="permission denied; make the file readable") as caught:
        check_file(path)
    assert caught.value.kind == "permission"


def test_sound_only(tmp_path, reader):
    with pytest.raises(VideoError, match="no video stream; is it an audio file") as caught:
        reader.open(make_audio(tmp_path / "sound.m4a"))
    assert caught.value.kind == "no_video_stream"


def test_no_frames(tmp_path, reader):
    path = make_clip(tmp_path / "none.mkv", 1)
    data = path.read_bytes()
    path.write_bytes(
        data[: data.index(b"\x1f\x43\xb6\x75")]
    )  # Matroska's first cluster: the frames begin here
    with pytest.raises(VideoError) as caught:
        reader.open(path)
    assert caught.value.kind in ("no_frames", "unreadable")


def test_cut_files(tmp_path, reader):
    late = make_clip(tmp_path / "late.mp4", 40)
    late.write_bytes(late.read_bytes()[:-2000])  # its index was at the end
    with pytest.raises(VideoError, match=r"damaged or cut off.*copy or download it again") as caught:
        reader.open(late)
    assert caught.value.kind == "unreadable"
    early = make_clip(tmp_path / "early.mp4", 40, faststart=True)
    early.write_bytes(early.read_bytes()[: early.stat().st_size * 2 // 3])
    info = reader.open(early)
    assert 10 < info.num_frames < 40
    assert any("ends early" in text for text in info.warnings)
    got = reader.read(range(info.num_frames - 1))
    assert read_numbers(got.frames) == list(range(info.num_frames - 1))


def test_damage_in_the_middle(tmp_path, reader):
    """Frames that are lost are made up for by their neighbors, said so; the rest are exact."""
    path = make_clip(tmp_path / "hole.mp4", 60, gop=6, faststart=True)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + (len(data) - start) // 12] = bytes((len(data) - start) // 12)
    path.write_bytes(data)
    info = reader.open(path)
    assert info.num_frames == 60
    got = reader.read(range(60))
    numbers = read_numbers(got.frames)
    assert got.decoder == "pyav"
    assert any("damaged packet" in text for text in got.warnings)
    right = sum(number == index for index, number in enumerate(numbers))
    assert 40 < right < 60
    assert numbers[:20] == list(range(20))
    assert numbers[-6:] == list(range(54, 60))


def test_too_large(tmp_path, reader):
    path = make_clip(tmp_path / "wide.avi", 1, size=(16, 16400), codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(VideoError, match="too large") as caught:
        reader.open(path)
    assert caught.value.kind == "too_large"


def outcome(reader, data):
    try:
        info = reader.open(data)
        got = reader.read(np.linspace(0, info.num_frames - 1, 8).astype(int))
    except VideoError as error:
        return error.kind
    return "frames" if len(got.frames) == len(got.indices) else "too few"


def test_random_damage_never_breaks_the_reader(tmp_path, reader):
    """Whatever is in the file: frames, or a VideoError with a kind; and the next file is read as ever."""
    kinds = {"unreadable", "no_video_stream", "no_frames", "not_a_video", "too_large", "memory"}
    rng = np.random.default_rng(5)
    for name, codec in (("a.mkv", "libx264"), ("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")):
        clean = np.frombuffer(make_clip(tmp_path / name, 60, codec=codec).read_bytes(), np.uint8)
        for count in (1, 10, 100):
            data = clean.copy()
            at = rng.integers(0, len(data), count)
            data[at] ^= rng.integers(1, 255, count).astype(np.uint8)
            assert outcome(reader, data.tobytes()) in {"frames", *kinds}
    reader.open(tmp_path / "a.mp4")
    assert read_numbers(reader.read([12]).frames) == [12]
