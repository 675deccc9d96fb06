"""Files of strangers open no other files: evidence from the kernel; and files that are lists of others are refused."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from tests.clips import make_clip
from vidcls.errors import VideoError
from vidcls.video.container import safe_for_decord
from vidcls.video.decord_decoder import DecordDecoder
from vidcls.video.reader import VideoReader

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
needs_decord = pytest.mark.skipif(
    not DecordDecoder.available(), reason="decord has no wheel for this machine"
)
IN_OPEN = 0x20


class Watch:
    """Tells whether any process has opened a file since the watch began."""

    def __init__(self, path):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._descriptor >= 0
        assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_OPEN) >= 0

    def opened(self):
        try:
            return bool(os.read(self._descriptor, 4096))
        except BlockingIOError:
            return False

    def close(self):
        os.close(self._descriptor)


@pytest.fixture
def canary(tmp_path):
    """A video that no other file may open, watched."""
    path = make_clip(tmp_path / "canary.ts", 30)
    watch = Watch(path)
    yield path, watch
    watch.close()


def hls(name):
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + name + b"\n#EXT-X-ENDLIST\n"


def polyglots(folder):
    """(name, bytes): lists of files with a video behind them, in each way that a demuxer may be fooled."""
    ts = make_clip(folder / "own.ts", 30).read_bytes()
    mp4 = make_clip(folder / "own.mp4", 30).read_bytes()
    mkv = make_clip(folder / "own.mkv", 30).read_bytes()
    playlist = hls(b"canary.ts")
    concat = b"ffconcat version 1.0\nfile 'canary.ts'\n"
    dash = (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-'
        b'demand:2011"><Period><AdaptationSet><Representation><BaseURL>canary.ts</BaseURL></Representation>'
        b"</AdaptationSet></Period></MPD>"
    )
    sdp = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    for name, text in (("hls", playlist), ("concat", concat), ("dash", dash), ("sdp", sdp)):
        yield f"{name}-alone.mp4", text
        yield f"{name}-ts.mp4", text + b"\n" * (-len(text) % 188) + ts
        yield f"{name}-mp4.mp4", text + mp4
        yield f"{name}-mkv.mkv", text + mkv
        yield f"{name}-bom.mp4", b"\xef\xbb\xbf \n" + text + ts
        free = b"#" + text.replace(b"\n", b"\n#")
        yield (
            f"{name}-after.mp4",
            mp4[: mp4.index(b"mdat") - 4] + box(b"free", free) + mp4[mp4.index(b"mdat") - 4 :],
        )
    yield "hls.ts", playlist + b"\n" * (-len(playlist) % 188) + ts
    yield "name%d.mp4", mp4


def box(kind, data):
    return (len(data) + 8).to_bytes(4, "big") + kind + data


@linux_only
def test_c17_no_decoder_opens_another_file(tmp_path, canary):
    path, watch = canary
    path.open("rb").close()
    assert watch.opened(), "the watch must see an open"
    refused = []
    (tmp_path / "name0.mp4").write_bytes(path.read_bytes())  # what the pattern would match
    watch.opened()  # the copy's own
    readers = [VideoReader(decoder, timeout=30) for decoder in ("auto", "pyav", "decord")]
    for name, data in polyglots(tmp_path):
        trap = tmp_path / name
        trap.write_bytes(data)
        other = Watch(tmp_path / "name0.mp4")
        for reader in readers:
            try:
                reader.read(range(min(5, reader.open(trap).num_frames)))
            except VideoError as error:
                refused.append(error.kind)
        assert not watch.opened(), name
        assert not other.opened(), name
        other.close()
    for reader in readers:
        reader.close()
    assert len(refused) > 30
    assert set(refused) <= {"not_a_video", "unreadable"}


@linux_only
@needs_decord
def test_c17_left_alone_decord_does_open_it(tmp_path, canary):
    """The trap is one: without the check of the first bytes, the canary is read."""
    path, watch = canary
    trap = tmp_path / "trap.mp4"
    trap.write_bytes(hls(path.name.encode()) + make_clip(tmp_path / "own.mp4", 30).read_bytes())
    code = f"import decord; decord.VideoReader({str(trap)!r}).next()"
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert watch.opened()


@pytest.mark.parametrize(
    "start", ["#EXTM3U\n", "ffconcat version 1.0\n", "[playlist]\n", "\ufeff  #EXTM3U\n"]
)
@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord"])
def test_c17_playlists_are_refused_by_name(tmp_path, start, decoder):
    path = tmp_path / "list.mp4"
    path.write_bytes(start.encode() + make_clip(tmp_path / "own.ts", 10).read_bytes())
    with VideoReader(decoder) as reader, pytest.raises(VideoError, match="but a playlist") as caught:
        reader.open(path)
    assert caught.value.kind == "not_a_video"


def test_c17_what_decord_may_open(tmp_path):
    for suffix, may in ((".mp4", True), (".mkv", True), (".avi", True), (".flv", True), (".ts", False)):
        codec = "mpeg4" if suffix == ".avi" else "libx264"
        path = make_clip(tmp_path / f"clip{suffix}", 5, codec=codec)
        head = path.read_bytes()
        assert safe_for_decord(str(path), head) == may
        assert not safe_for_decord("im%03d.png", head)
        assert not safe_for_decord(str(path), b" " + head)
        assert not safe_for_decord(str(path), head[:100] + b"<MPD" + head[100:])
