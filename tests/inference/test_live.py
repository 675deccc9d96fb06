"""``vidcls watch``: a line when the label changes, no lag, no leak, nothing opened that was not named."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vidcls
from vidcls.inference.live import span, watch
from vidcls.video.urls import is_live

EXAMPLE = Path(__file__).parents[2] / "examples" / "pan-left.mp4"


def moving(seconds: float, steps: tuple[tuple[int, int], ...], path: Path, format: str = "mpegts") -> Path:
    """A stream in which noise moves one way, then another."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    y = x = 0
    with av.open(str(path), "w", format=format) as file:
        stream = file.add_stream("mpeg2video", rate=25, options={"g": "5"})
        stream.width = stream.height = 128
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for dy, dx in steps:
            for _ in range(int(25 * seconds)):
                y, x = y + dy, x + dx
                frame = av.VideoFrame.from_ndarray(np.roll(picture, (y, x), (0, 1)), format="rgb24")
                file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


class Site(http.server.ThreadingHTTPServer):
    """Sends a file in small pieces, as fast as it is played, and may go on for ever."""

    daemon_threads = True

    def __init__(self, data: bytes, seconds: float, forever: bool) -> None:
        self.data, self.pause, self.forever = data, seconds / max(1, len(data) // 4096), forever
        self.address_of_redirect = ""
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        if self.server.address_of_redirect:
            self.send_response(302)
            self.send_header("Location", self.server.address_of_redirect)
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                for start in range(0, len(self.server.data), 4096):
                    self.wfile.write(self.server.data[start : start + 4096])
                    time.sleep(self.server.pause)
                if not self.server.forever:
                    return
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    sites: list[Site] = []

    def serve(data: bytes, seconds: float, forever: bool = False) -> Site:
        sites.append(Site(data, seconds, forever))
        threading.Thread(target=sites[-1].serve_forever, daemon=True).start()
        return sites[-1]

    yield serve
    for one in sites:
        one.shutdown()
        one.server_close()


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidcls", "watch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_a_stream_over_http_whose_label_changes(site: Any, tmp_path: Path) -> None:
    path = moving(4.0, ((0, 4), (4, 0)), tmp_path / "stream.ts")
    server = site(path.read_bytes(), 8.0)
    done = run(f"{server.address}/stream.ts", "--json", "--every", "0.2", "-q")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    labels = [row["label"] for row in rows]
    assert len(rows) >= 2
    assert all(one != other for one, other in itertools.pairwise(labels))  # changes only
    assert [row["before"] for row in rows] == [None, *labels[:-1]]
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert labels[0].startswith("pan")
    assert labels[-1].startswith("tilt")
    assert done.stderr == ""


def test_old_frames_are_dropped_and_the_delay_is_bounded(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = moving(4.0, ((0, 4), (4, 0)), tmp_path / "stream.ts")
    server = site(path.read_bytes(), 8.0)
    with vidcls.load("camera-motion", num_views=1) as model:
        answer = model.clip_logits
        passes: list[float] = []

        def slow(clip: Any) -> Any:
            start = time.monotonic()
            time.sleep(1.0)
            found = answer(clip)
            passes.append(time.monotonic() - start)
            return found

        monkeypatch.setattr(model, "clip_logits", slow)
        found = list(watch(model, f"{server.address}/x.ts", every=0.0, live=True, timeout=30))
    assert 2 <= len(found) <= 8  # a second each, of eight
    assert found[-1].time > 7.0  # the end is seen, not what came first
    # A pass, and a piece of film that waited for it: no queue, whatever else the machine is doing.
    assert max(moment.delay for moment in found) < 3 * max(passes) + 1
    assert "vidcls-live" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_interrupted(site: Any, tmp_path: Path) -> None:
    path = moving(3.0, ((0, 4),), tmp_path / "stream.ts")
    server = site(path.read_bytes(), 3.0, forever=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "vidcls", "watch", f"{server.address}/x.ts", "--every", "0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "pan" in process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("interrupted") == 1
    assert "Traceback" not in errors


def test_a_file_is_seen_whole_and_a_short_one_too(tmp_path: Path) -> None:
    with vidcls.load("camera-motion", num_views=1) as model:
        found = list(watch(model, str(EXAMPLE), every=0.5, live=False, timeout=60))
        assert {moment.prediction.label for moment in found} == {"pan left"}
        moments = [moment.time for moment in found]
        assert moments[0] == pytest.approx(span(model), abs=0.15)
        assert all(later - sooner >= 0.5 for sooner, later in itertools.pairwise(moments))
        assert moments[-1] > 3.8
        short = moving(0.4, ((0, 4),), tmp_path / "short.ts")
        (only,) = watch(model, str(short), every=1.0, live=False, timeout=60)
        assert only.prediction.label is not None
        assert "too short" in " ".join(only.prediction.row["warnings"])


def test_what_is_refused(site: Any, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    secret = moving(1.0, ((0, 4),), tmp_path / "secret.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()
    lists = site(playlist + b"\n" * 20_000, 0.1)
    other = site(b"", 0.1)
    other.address_of_redirect = f"file://{secret}"
    cases = {
        str(tmp_path / "none.mp4"): "no such file",
        str(tmp_path / "text.mp4"): "not a video",
        str(tmp_path): "",
        f"{lists.address}/x.m3u8": "cannot be read",
        f"{other.address}/x.ts": "is not allowed",
        "http://127.0.0.1:9/x.ts": "refused",
        "rtsp://127.0.0.1:9/x": "refused",
        "99": "no such camera" if sys.platform == "linux" else "",
    }
    with vidcls.load("camera-motion", num_views=1) as model:
        for source, message in cases.items():
            with pytest.raises(vidcls.VideoError) as caught:
                list(watch(model, source, every=1.0, live=is_live(source), timeout=30))
            assert message in str(caught.value).lower(), (source, caught.value)
    done = run("http://user:secret@127.0.0.1:9/x.ts")
    assert done.returncode == 1
    assert "secret" not in done.stderr
    assert run(str(EXAMPLE), "--decoder", "decord").returncode == 2
