"""The one HTTP client: a file from an http(s) address to a path, within bounds of size and time. Imports no torch.

Built on the standard library's `urllib` on purpose. No other client is sure to come with our dependencies
(huggingface_hub has had requests, httpx and httpx2 in turn), and none of them has what makes up this file: bounds on
the total time and on the rate, resuming with validators, and no way from https to http. Import this module only to
fetch: it brings `ssl`.

The blocking calls run in a thread of their own (`vidcls.video.exchange`): Ctrl-C, ``stop`` and the deadline are heeded
within a fraction of a second, whatever the server does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from vidcls import __version__
from vidcls.video.exchange import ChangedError, Exchange, FetchError, Patience, Request, RetryError
from vidcls.video.urls import ascii_url, credentials, direct_url, is_url, shown_url

MIN_RATE = 1024  # bytes/s on average over RATE_WINDOW
RATE_WINDOW = 60.0  # seconds
WAITS = (0.5, 2.0, 8.0)  # seconds before each new attempt; one that brought MUCH starts the row again
MUCH = 64 << 10  # bytes; no less than the slowest server brings in one window
MAX_ATTEMPTS = 100


class Progress(Protocol):
    """Told how far a download is."""

    def __call__(self, done: int, total: int | None) -> None:
        """Take the number of bytes that are here, and that there will be."""


@dataclass(frozen=True)
class Bounds:
    """How much is fetched, and for how long.

    Attributes:
        max_bytes: Size of the file.
        seconds: Time for all attempts together.
        setting: Environment variable that moves the folder which the file goes to.
    """

    max_bytes: int
    seconds: float
    setting: str


def download(
    url: str,
    part: Path,
    bounds: Bounds,
    *,
    pinned: bool = False,
    keep: bool = False,
    progress: Progress = lambda done, total: None,
    stop: threading.Event | None = None,
) -> dict[str, str]:
    """Fetch a file, resuming from ``part`` where that is certain to be the start of the same file.

    Args:
        url: An http or https address.
        part: Where the bytes go; its folder exists, and nobody else writes there.
        bounds: Of size and time.
        pinned: The caller knows the checksum, so that a partial file is always resumed.
        keep: Write ``PART.json`` beside it, from which another run can resume.
        progress: Called now and then.
        stop: Ends it when set, from any thread.

    Returns:
        What the server said of the file's version (``etag``, ``last-modified``).

    Raises:
        FetchError: It cannot be fetched, is too large or too slow, is a web page, or was stopped.
        OSError: ``part`` cannot be written.
    """
    shown = shown_url(url)
    try:
        sent, login = direct_url(ascii_url(url)), credentials(url)
    except ValueError as error:
        raise FetchError(shown, f"is not a valid address ({error})", "correct it") from None
    if not is_url(sent):
        raise FetchError(shown, "is not an http(s) address", "correct it")
    request = Request(sent, shown, login, {})
    patience = Patience(shown, bounds.seconds, stop)
    return _Download(request, _Part(part, shown, pinned, keep), bounds, patience, progress).run()


def forget(part: Path) -> None:
    """Delete what ``download(…, keep=True)`` has written."""
    _Part(part, "", False, True).forget()


class _Part:
    """What has arrived so far, and what the server said of the file's version."""

    def __init__(self, path: Path, shown: str, pinned: bool, keep: bool) -> None:
        self.path = path
        self._shown = shown
        self._pinned = pinned
        self.keep = keep
        self._record = path.with_name(path.name + ".json") if keep else None
        self._version = {} if self._record is None else self._read(self._record)

    def _read(self, record: Path) -> dict[str, str]:
        """Version of what an earlier run left; empty if that is in doubt."""
        try:
            data = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(data, dict) or data.pop("url", None) != self._shown:
            return {}
        return {key: value for key, value in data.items() if isinstance(value, str)}

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def validator(self) -> str | None:
        return self._version.get("etag") or self._version.get("last-modified")

    @property
    def usable(self) -> int:
        """Bytes that the next attempt may resume from."""
        return self.size if self.validator or self._pinned else 0

    def open(self, version: dict[str, str], have: int) -> IO[bytes]:
        """Open it for what comes after the first ``have`` bytes."""
        self._version = version
        if self._record is not None:
            self._record.write_text(json.dumps({"url": self._shown, **version}), encoding="utf-8")
        return self.path.open("ab" if have else "wb")

    def forget(self) -> None:
        self._version = {}
        self.path.unlink(missing_ok=True)
        if self._record is not None:
            self._record.unlink(missing_ok=True)


@dataclass
class _Download:
    """One file on its way: as many attempts as it takes."""

    request: Request
    part: _Part
    bounds: Bounds
    patience: Patience
    progress: Progress

    def run(self) -> dict[str, str]:
        waits, reason = list(WAITS), ""
        for _ in range(MAX_ATTEMPTS):
            before = self.part.size
            try:
                return self._attempt()
            except RetryError as error:
                reason = str(error)
                if isinstance(error, ChangedError):
                    self.part.forget()
            if self.part.size - before >= MUCH:
                waits = list(WAITS)
            if not waits:
                break
            self.patience.wait(waits.pop(0))
        kept = ", what has arrived is kept" if self.part.keep and self.part.size else ""
        remedy = f"check the network and run the same command again{kept}"
        raise FetchError(self.request.shown, f"cannot be fetched ({reason})", remedy)

    def _attempt(self) -> dict[str, str]:
        """Append what is missing, or start over → the headers that identify the file's version."""
        have, validator = self.part.usable, self.part.validator
        with contextlib.closing(Exchange(self._request(have, validator), self.patience)) as exchange:
            answer = exchange.head()
            version = _version_of(answer)
            total = _total(answer, have)
            if answer.status != 206:
                have = 0
            elif (
                validator and (version.get("etag") or version.get("last-modified") or validator) != validator
            ):
                raise ChangedError("the file changed on the server")
            self._check(answer, total, have)
            with self.part.open(version, have) as file:
                self._receive(exchange, file, have, total)
        return version

    def _request(self, have: int, validator: str | None) -> Request:
        headers = {"User-Agent": f"vidcls/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator
        return Request(self.request.url, self.request.shown, self.request.credentials, headers)

    def _check(self, answer: http.client.HTTPResponse, total: int | None, have: int) -> None:
        """Refuse what is certainly not the file, or has no room here."""
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            problem = "is a web page, not a file"
            raise FetchError(self.request.shown, problem, "give the address of the file itself")
        if total is None:
            return
        self._check_size(total)
        folder = self.part.path.parent
        free = shutil.disk_usage(folder).free
        if total - have > free:
            raise FetchError(
                str(folder),
                f"has {free >> 20} MiB of free space, {(total - have) >> 20} MiB are needed",
                f"free some, or let {self.bounds.setting} name another folder",
            )

    def _check_size(self, size: int) -> None:
        if size > self.bounds.max_bytes:
            problem = f"is larger than {self.bounds.max_bytes / 2**30:.3g} GiB"
            raise FetchError(self.request.shown, problem, "is it the right address?", "too_large")

    def _receive(self, exchange: Exchange, file: IO[bytes], have: int, total: int | None) -> None:
        self.progress(have, total)
        since, count = time.monotonic(), 0
        while block := exchange.block(have):
            have += len(block)
            self._check_size(have)
            file.write(block)
            self.progress(have, total)
            count += len(block)
            if (took := time.monotonic() - since) > RATE_WINDOW:
                if count < MIN_RATE * took:
                    raise RetryError(f"slower than {MIN_RATE} bytes/s")
                since, count = time.monotonic(), 0
        if total is not None and have < total:
            raise RetryError(f"the connection broke after {have} of {total} bytes")


def _total(answer: http.client.HTTPResponse, have: int) -> int | None:
    """Size of the whole file, as far as the server says it; a partial answer must begin where we stopped."""
    text = answer.headers.get("Content-Length", "")
    if answer.status == 206:
        unit, _, value = answer.headers.get("Content-Range", "").partition(" ")
        span, _, text = value.partition("/")
        if unit != "bytes" or span.partition("-")[0] != str(have):
            raise RetryError("the server sent another part than was asked for")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _version_of(answer: http.client.HTTPResponse) -> dict[str, str]:
    """Headers that name the version of the file; a weak ETag does not promise equal bytes."""
    found = {key: answer.headers.get(key) for key in ("etag", "last-modified")}
    return {key: value for key, value in found.items() if value and len(value) < 500 and value[:2] != "W/"}
