"""The HTTP client: bounds of size, time and rate, interruption, addresses; against a server that misbehaves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcls.errors import InputError
from vidcls.video import exchange, http
from vidcls.video.exchange import FetchError
from vidcls.video.fetch import fetch
from vidcls.video.http import Bounds, download
from vidcls.video.sources import Source, expand
from vidcls.video.urls import ascii_url, is_url, shown_url

Talk = Callable[[socket.socket, bytes], None]
ROOMY = Bounds(1 << 30, 60.0, "TMPDIR")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Talk], str]]:
    """Start a server that says what a function of the socket and the request's head says."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(http, "WAITS", (0.0, 0.0))
    over = threading.Event()
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(talk: Talk) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.05)
        listeners.append(listener)

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                head = b""
                while b"\r\n\r\n" not in head and (block := connection.recv(4096)):
                    head += block
                talk(connection, head)

        def accept() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=answer, args=(connection,), daemon=True))
                    threads[-1].start()

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    over.set()
    for thread in threads:
        thread.join(5)
    for listener in listeners:
        listener.close()


def head(length: int | None = None, **more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", *(f"{key.replace('_', '-')}: {value}" for key, value in more.items())]
    return "\r\n".join([*lines, *([] if length is None else [f"Content-Length: {length}"]), "", ""]).encode()


def drip(pause: float = 0.02, count: int = 2000) -> Talk:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head(1 << 20))
        for _ in range(count):
            connection.sendall(b"x")
            time.sleep(pause)

    return talk


def test_c18_a_slow_server_meets_the_deadline(serve: Callable[[Talk], str], tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(FetchError, match=r"took longer than 0\.5 s"):
        download(f"{serve(drip())}/a.mp4", tmp_path / "part", Bounds(1 << 30, 0.5, "TMPDIR"))
    assert time.monotonic() - begin < 3


def test_c18_a_trickle_is_too_slow(
    serve: Callable[[Talk], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RATE_WINDOW", 0.2)
    with pytest.raises(FetchError, match="slower than 1024 bytes/s"):
        download(f"{serve(drip())}/a.mp4", tmp_path / "part", ROOMY)


def test_c18_a_head_that_never_ends(
    serve: Callable[[Talk], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(500):
            connection.sendall(b"x")
            time.sleep(0.02)

    monkeypatch.setattr(exchange, "HEAD_TIMEOUT", 0.2)
    with pytest.raises(FetchError, match="the server does not answer"):
        download(f"{serve(talk)}/a.mp4", tmp_path / "part", ROOMY)


@pytest.mark.parametrize("said", [True, False])
def test_c18_an_endless_body_stops_at_the_bound(
    serve: Callable[[Talk], str], tmp_path: Path, said: bool
) -> None:
    sent = []

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head(1 << 40 if said else None))
        while True:
            connection.sendall(bytes(1 << 16))
            sent.append(1 << 16)

    with pytest.raises(FetchError, match="is larger than") as caught:
        download(f"{serve(talk)}/a.mp4", tmp_path / "part", Bounds(1 << 20, 60.0, "TMPDIR"))
    assert caught.value.kind == "too_large"
    assert not (tmp_path / "part").exists() or (tmp_path / "part").stat().st_size <= 1 << 20
    assert (tmp_path / "part").exists() is not said  # what says its size is refused before its first byte


@pytest.mark.parametrize(
    "target",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "data:text/plain,x",
        "gopher://h/x",
        "//[bad",
        "http://[bad/x",
    ],
)
def test_c18_redirects_lead_to_http_only(serve: Callable[[Talk], str], tmp_path: Path, target: str) -> None:
    def talk(connection: socket.socket, request: bytes) -> None:
        place = target if b"GET /second" in request else "/second"
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())

    with pytest.raises(FetchError, match=r"only http|not allowed|not a valid address"):
        download(f"{serve(talk)}/first", tmp_path / "part", ROOMY)
    assert not (tmp_path / "part").exists()


def test_c18_stop_ends_it_at_once_and_leaves_nothing(
    serve: Callable[[Talk], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begin = time.monotonic()
    found = fetch(Source(f"{serve(drip())}/a.mp4", None), stop)
    assert time.monotonic() - begin < 3
    assert found.error is not None
    assert "stopped" in found.error.problem
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["predict", "score"])
def test_c18_signals_end_a_download_and_leave_nothing(
    serve: Callable[[Talk], str], tmp_path: Path, number: signal.Signals, command: str
) -> None:
    asked = threading.Event()

    def talk(connection: socket.socket, _: bytes) -> None:
        asked.set()
        drip(0.05)(connection, b"")

    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = [sys.executable, "-m", "vidcls", command, f"{serve(talk)}/a.mp4"]
    if command == "score":
        words += ["-o", str(tmp_path / "out.jsonl")]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)})
    assert asked.wait(60)
    time.sleep(0.5)
    begin = time.monotonic()
    run.send_signal(number)
    _, said = run.communicate(timeout=30)
    assert time.monotonic() - begin < 10, said
    assert run.returncode == 130, said
    assert b"Traceback" not in said
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


def test_b11_addresses_with_umlauts_are_sent_encoded(serve: Callable[[Talk], str], tmp_path: Path) -> None:
    asked = []

    def talk(connection: socket.socket, request: bytes) -> None:
        asked.append(request.split(b" ")[1])
        connection.sendall(head(1) + b"x")

    url = serve(talk)
    for name in ("h\u00f6ren.mp4", "h%C3%B6ren.mp4", "a b.mp4?q=\u00f6&r=a%20b", "\udcf6.mp4"):
        download(f"{url}/{name}", tmp_path / "part", ROOMY)
    assert asked == [b"/h%C3%B6ren.mp4", b"/h%C3%B6ren.mp4", b"/a%20b.mp4?q=%C3%B6&r=a%20b", b"/%F6.mp4"]
    assert ascii_url("https://m\u00fcnchen.example/\u00f6") == "https://xn--mnchen-3ya.example/%C3%B6"
    assert ascii_url("http://[::1]:80/x") == "http://[::1]:80/x"


@pytest.mark.parametrize(
    "url",
    ["http://[bad/x.mp4", "http://", "http://a:b/x.mp4", "http://h\n/x", "https://a..b/", "http://h:99999/x"],
)
def test_b11_addresses_that_are_none_are_that_clips_error(url: str) -> None:
    assert is_url(url)
    (source,) = expand([url])
    assert source.is_remote
    found = fetch(source)
    assert isinstance(found.error, InputError)
    assert found.error.kind == "fetch"


def test_a_password_is_sent_but_not_shown(serve: Callable[[Talk], str], tmp_path: Path) -> None:
    requests = []

    def talk(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    url = serve(talk).replace("http://", "http://me:sec%3Aret@") + "/x"
    with pytest.raises(FetchError) as caught:
        download(url, tmp_path / "part", ROOMY)
    assert "sec" not in str(caught.value)
    assert b"Authorization: Basic bWU6c2VjOnJldA==" in requests[0]
    assert shown_url("http://me:[secret@h/x") == "http://h/x"


def test_a_clip_is_asked_for_again_and_gone_on_with(serve: Callable[[Talk], str]) -> None:
    requests = []

    def talk(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        if len(requests) == 1:
            connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        elif len(requests) == 2:
            connection.sendall(head(10, ETag='"1"') + b"01234")
        else:
            part = head(5, ETag='"1"', Content_Range="bytes 5-9/10").replace(b"200 OK", b"206 Partial")
            connection.sendall(part + b"56789")

    found = fetch(Source(f"{serve(talk)}/a.mp4", None))
    assert isinstance(found.clip, str), found.error
    assert Path(found.clip).read_bytes() == b"0123456789"
    assert b"Range: bytes=5-" in requests[2]
    Path(found.clip).unlink()


def test_a_full_disk_is_said(
    serve: Callable[[Talk], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(http._Download, "_receive", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = fetch(Source(f"{serve(lambda c, _: c.sendall(head(1) + b'x'))}/a.mp4", None))
    assert found.error is not None
    assert "No space left on device" in str(found.error)
    assert "TMPDIR" in str(found.error)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60), scheme=st.sampled_from(["http://", "https://", "HTTP://", "", "s3://"]))
def test_fuzz_addresses(text: str, scheme: str) -> None:
    """Any text: an address of printable ASCII, or ValueError; what is shown holds no password."""
    url = scheme + text
    assert "@" not in shown_url(f"http://me:secret@{text}").partition("/")[0]
    is_url(url)
    try:
        sent = ascii_url(url)
    except ValueError:
        return
    assert sent.isascii()
    assert not any(c.isspace() or ord(c) < 33 for c in sent)
    assert ascii_url(sent) == sent
