"""One HTTP request in a thread of its own, which can be left behind at any moment; see `vidcls.video.http`."""

from __future__ import annotations

import base64
import contextlib
import http.client
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vidcls.errors import VidclsError
from vidcls.video.urls import is_url, scheme_of, shown_url

TIMEOUT = 30.0  # seconds without a byte before a server counts as dead
HEAD_TIMEOUT = 120.0  # seconds until the whole head of an answer is here, after all redirects
BLOCK = 1 << 20  # bytes
_TICK = 0.1  # seconds
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class FetchError(VidclsError):
    """A file cannot be fetched; the caller turns it into an error of its own."""

    def __init__(self, subject: str, problem: str, remedy: str, kind: str = "fetch") -> None:
        super().__init__(subject, problem, remedy)
        self.kind = kind


class RetryError(Exception):
    """Something that may go better the next time."""


class ChangedError(RetryError):
    """The file is another one by now."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        url: The address as it is sent.
        shown: The address as it may be shown.
        credentials: ``name:password``; sent to the first host only.
        headers: All other headers.
    """

    url: str
    shown: str
    credentials: str | None
    headers: dict[str, str]


class Patience:
    """When to give up: at the deadline, or when told to stop."""

    def __init__(self, shown: str, seconds: float, stop: threading.Event | None) -> None:
        self._shown = shown
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stop = stop if stop is not None else threading.Event()

    def check(self) -> None:
        """Raise FetchError when it is time to give up."""
        if self._stop.is_set():
            raise FetchError(self._shown, "the download was stopped", "run the same command again")
        if time.monotonic() > self._end:
            problem = f"the download took longer than {self._seconds:g} s"
            raise FetchError(self._shown, problem, "fetch it with another program and give its path")

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the time to give up."""
        self._stop.wait(min(seconds, max(0.0, self._end - time.monotonic())))
        self.check()


class Exchange(threading.Thread):
    """Sends a request and passes on the response's head, then its body in blocks, the last one empty.

    Closing it shuts the socket, so that the thread ends too; nobody waits for that.
    """

    def __init__(self, request: Request, patience: Patience) -> None:
        super().__init__(name="vidcls-http", daemon=True)
        self._request = request
        self._patience = patience
        self._found: queue.Queue[Any] = queue.Queue(maxsize=4)
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self.start()

    def head(self) -> http.client.HTTPResponse:
        """Return the answer's status and headers; its body comes by ``block``.

        Raises:
            FetchError: The server refuses, or the time is over.
            RetryError: There is no answer.
        """
        end = time.monotonic() + HEAD_TIMEOUT
        answer: http.client.HTTPResponse | Exception = self._next(end)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def block(self, have: int) -> bytes:
        """Return the next bytes of the body, none at its end; ``have`` is what came before, for the message.

        Raises:
            FetchError: The time is over.
            RetryError: The connection broke.
        """
        block: bytes | Exception = self._next()
        if isinstance(block, Exception):
            raise RetryError(f"the connection broke after {have} bytes: {block}") from None
        return block

    def _next(self, end: float | None = None) -> Any:
        while end is None or time.monotonic() < end:
            self._patience.check()
            with contextlib.suppress(queue.Empty):
                return self._found.get(timeout=_TICK)
        raise RetryError("the server does not answer")

    def close(self) -> None:
        """End it, wherever it is."""
        self._closed.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # The plain method: that of TLS would take the connection from under the thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def run(self) -> None:
        """Do the blocking calls; their errors are handed over too."""
        try:
            with _open(self._request, self._connected) as response:
                self._put(response)
                while not self._closed.is_set() and (block := response.read1(BLOCK)):
                    self._put(block)
            self._put(b"")
        except Exception as error:
            self._put(error)

    def _connected(self, connection: socket.socket) -> None:
        self._socket = connection
        if self._closed.is_set():
            raise OSError("closed")

    def _put(self, found: Any) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._found.put(found, timeout=_TICK)
                return


def _open(request: Request, connected: Callable[[socket.socket], None]) -> http.client.HTTPResponse:
    """Send the request; every way in which that fails becomes FetchError or RetryError."""
    sent = urllib.request.Request(request.url, headers=request.headers)
    if request.credentials is not None:
        code = base64.b64encode(request.credentials.encode("utf-8", "surrogateescape")).decode()
        sent.add_unredirected_header("Authorization", f"Basic {code}")
    try:
        return _opener(connected).open(sent, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(request.shown, error.code, error.reason) from None
    except urllib.error.URLError as error:
        raise RetryError(str(error.reason)) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise FetchError(request.shown, f"is not a valid address ({error})", "correct it") from None
    except (OSError, http.client.HTTPException) as error:
        raise RetryError(str(error) or type(error).__name__) from None


def _refusal(shown: str, code: int, reason: str) -> FetchError | RetryError:
    if code == 416:  # the partial file is longer than the file: another version
        return ChangedError("the file changed on the server")
    problem = f"the server answered {code} {reason}"
    if code in _AGAIN:
        return RetryError(problem)
    return FetchError(shown, problem, "it needs a login" if code in (401, 403) else "check the address")


def _opener(connected: Callable[[socket.socket], None]) -> urllib.request.OpenerDirector:
    """Return what opens http(s) addresses only: the default opener would also read ftp:, file: and data:."""

    def tracked(kind: type[http.client.HTTPConnection]) -> Any:
        class Connection(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                connected(self.sock)

        return Connection

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(tracked(http.client.HTTPConnection), req)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(tracked(http.client.HTTPSConnection), req)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        HttpHandler(),
        HttpsHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request of the next hop."""
        if not is_url(newurl) or (scheme_of(req.full_url) == "https" and scheme_of(newurl) == "http"):
            raise FetchError(
                shown_url(req.full_url),
                f"redirects to {shown_url(newurl)}",
                "only http(s) is followed, and never from https to http",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follow one redirect; the answer that cannot be followed is closed."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, FetchError):
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
