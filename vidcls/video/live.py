"""Live sources: a camera, rtsp://, an http(s) stream, or a file played from start to end. Runs in a worker process.

PyAV opens a device or an rtsp address only where that is the source itself, as a person named it on the command line:
lists and manifests never lead here. An http(s) stream is fetched by vidcls's own rules (`vidcls.video.exchange`): no
redirect from https to http or to another scheme, and FFmpeg is given its bytes and no protocol at all, so that a
playlist among them cannot make it open anything. An rtsp server may name rtp over udp or tcp, and nothing else.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from vidcls.errors import VideoError
from vidcls.video import worker
from vidcls.video.container import DEMUXERS, open_container, reason
from vidcls.video.exchange import Exchange, FetchError, Patience, Request, RetryError
from vidcls.video.orientation import orientation_of
from vidcls.video.urls import ascii_url, credentials, is_camera, is_rtsp, is_url, shown_url

FOREVER = 10.0 * 365 * 86400  # seconds
# A stream that goes on for ever is looked at for two seconds or a megabyte before the first picture.
_PROBE = {"analyzeduration": "2000000", "probesize": "1000000"}


def main(alive: int | None, max_memory: int) -> None:
    """Serve the frames of one source until it ends; see `vidcls.video.worker.main`."""
    worker.main(alive, max_memory, LiveServer)


class LiveServer(worker.Server):
    """Answers with every frame of a source, each by itself, at once, and with its time."""

    def _answer_read(self, request: dict[str, Any]) -> None:
        transform = request["transform"]
        for moment, picture in frames(request["path"], request["timeout"]):
            frame = np.ascontiguousarray(transform(picture))
            header = {"type": "frame", "time": moment, "shape": frame.shape, "dtype": frame.dtype.str}
            worker.hold_alarm()
            worker.send(self._out, header, frame.reshape(-1).view(np.uint8).data)
            worker.set_alarm(request)
        worker.send(self._out, {"type": "done"})


def frames(source: str, timeout: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the seconds since the first frame and the picture (h, w, 3) uint8 RGB of each frame.

    Raises:
        VideoError: The source cannot be opened, or breaks off.
    """
    name = shown_url(source)
    try:
        with _open(source, timeout) as container:
            if not container.streams.video:
                raise VideoError(name, "has no video", "name a source with video", kind="no_video")
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # threads by frame would hold some back
            first: float | None = None
            for frame in container.decode(stream):
                moment = time.monotonic() if frame.time is None else float(frame.time)
                first = moment if first is None else first
                yield moment - first, orientation_of(frame)(frame.to_ndarray(format="rgb24"))
    except (FetchError, RetryError) as error:
        problem = error.problem if isinstance(error, FetchError) else str(error)
        raise VideoError(name, problem, "check the address and the server", kind="fetch") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(name, f"cannot be read ({reason(error)})", "check the source") from None


def _open(source: str, timeout: float) -> Any:
    if is_camera(source):
        return _open_camera(source)
    if is_rtsp(source):
        options = {"protocol_whitelist": "rtsp,rtsps,rtp,srtp,udp,tcp,tls", "rtsp_transport": "tcp", **_PROBE}
        return av.open(source, format="rtsp", container_options=options, timeout=timeout)
    if is_url(source):
        # No protocol, and no demuxer that reads anything but the bytes it is given.
        options = {"protocol_whitelist": "none", "format_whitelist": f"{DEMUXERS},mpjpeg", **_PROBE}
        return av.open(HttpStream(source), container_options=options, buffer_size=1 << 14)
    return open_container(source)


def _open_camera(number: str) -> Any:
    if sys.platform == "win32":
        raise VideoError(
            number, "cameras have no numbers on Windows", "serve it over http or rtsp", kind="not_found"
        )
    if sys.platform == "darwin":
        return av.open(number, format="avfoundation")
    device = f"/dev/video{number}"
    if not os.path.exists(device):
        raise VideoError(device, "no such camera", "check that it is plugged in", kind="not_found")
    return av.open(device, format="v4l2")


class HttpStream:
    """An http(s) response's body as it comes, for PyAV."""

    def __init__(self, url: str) -> None:
        shown = shown_url(url)
        request = Request(ascii_url(url), shown, credentials(url), {"User-Agent": "vidcls"})
        self._exchange = Exchange(request, Patience(shown, FOREVER, threading.Event()))
        self._rest, self._have, self._ended = b"", 0, False
        self._exchange.head()

    def read(self, size: int = -1) -> bytes:
        """Return some of the next bytes, none at the end."""
        if not self._rest and not self._ended:
            self._rest = self._exchange.block(self._have)
            self._have += len(self._rest)
            self._ended = not self._rest  # nothing comes after it, however often one asks
        given, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return given

    def close(self) -> None:
        """End the connection."""
        self._exchange.close()
