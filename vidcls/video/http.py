"""One large file from an http(s) address to a place on the disk, whole or not at all. Imports no torch.

What arrives is kept in ``NAME.part`` beside the place, so that a download that broke off goes on from there; it
goes on only when the server vouches that the file is still the same (``If-Range``), or a checksum will tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from vidcls import __version__
from vidcls.errors import WeightsError
from vidcls.output.progress import BYTES, ProgressBar

MAX_BYTES = 32 * 1024**3
TIMEOUT = 30.0  # seconds without a byte before a server counts as dead
WAITS = (0.5, 2.0, 8.0)  # seconds before each new attempt; one that brought bytes starts the row again
MAX_ATTEMPTS = 100
_BLOCK = 1 << 20
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Progress(Protocol):
    """Told how far a download is."""

    def __call__(self, done: int, total: int | None) -> None:
        """Take the number of bytes that are here, and that there will be."""


def direct_url(url: str) -> str:
    """Return the address of the file itself where the given one shows a web page about it (Dropbox)."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host == "dropbox.com" or host.endswith(".dropbox.com"):
        query = [(key, value) for key, value in parse_qsl(parts.query) if key != "dl"]
        return urlunsplit(parts._replace(query=urlencode([*query, ("dl", "1")])))
    return url


def shown_url(url: str) -> str:
    """Return an address without the name and password that it may hold, for messages and records."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, target: Path, sha256: str | None, progress: Progress) -> tuple[str, dict[str, str]]:
    """Fetch a file, going on from ``target.part`` if there is one, and move it to its place.

    Args:
        url: An http or https address.
        target: Where the file goes; its folder exists, and nobody else writes there.
        sha256: What its checksum must be, where that is known.
        progress: Called now and then.

    Returns:
        The file's checksum, and what the server said of its version (``etag``, ``last-modified``).

    Raises:
        WeightsError: It cannot be fetched, is too large, is a web page, or has another checksum.
    """
    part = target.with_name(target.name + ".part")
    shown = shown_url(url)
    attempt = attempts = 0
    while True:
        before = _size(part)
        try:
            version = _fetch(direct_url(url), part, sha256 is not None, progress)
            break
        except _RetryError as error:
            attempts += 1
            attempt = 0 if _size(part) > before else attempt
            if attempt == len(WAITS) or attempts == MAX_ATTEMPTS:
                kept = ", what has arrived is kept" if _size(part) else ""
                remedy = f"check the network and run the same command again{kept}"
                raise WeightsError(shown, f"download failed ({error})", remedy) from None
            time.sleep(WAITS[attempt])
            attempt += 1
        except OSError as error:
            raise _disk_error(part, error) from None
    found = sha256_of(part)
    if sha256 is not None and found != sha256:
        _forget(part)
        raise WeightsError(
            shown,
            f"has the checksum {found}, not {sha256}",
            "it was damaged on its way or replaced by its owner; try again, or correct sha256 in models.yaml",
        )
    try:
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise _disk_error(target, error) from None
    _forget(part)
    return found, version


class _RetryError(Exception):
    """Something that may go better the next time."""


def _fetch(url: str, part: Path, checked: bool, progress: Progress) -> dict[str, str]:
    """One attempt: append what is missing to ``part``, or write it anew → what names the file's version."""
    have = _size(part)
    version = _read_version(part, url)
    validator = version.get("etag") or version.get("last-modified")
    if have and not (validator or checked):
        have = 0
    headers = {"User-Agent": f"vidcls/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with _opened(urllib.request.Request(url, headers=headers), part) as response:
        now = _version_of(response)
        total = _total(response, have)
        if response.status != 206:
            have = 0
        elif validator and (now.get("etag") or now.get("last-modified") or validator) != validator:
            _forget(part)
            raise _RetryError("the file changed on the server")
        _check_answer(response, url, part, total, have)
        _version_file(part).write_text(json.dumps({"url": shown_url(url), **now}), encoding="utf-8")
        with part.open("ab" if have else "wb") as file:
            _receive(response, file, have, total, url, progress)
    return now


def _receive(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    have: int,
    total: int | None,
    url: str,
    progress: Progress,
) -> None:
    progress(have, total)
    while True:
        try:
            block = response.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _RetryError(f"the connection broke after {have} bytes: {error}") from None
        if not block:
            break
        have += len(block)
        if have > MAX_BYTES:
            raise WeightsError(
                shown_url(url), f"larger than {MAX_BYTES >> 30} GiB", "is it the right address?"
            )
        file.write(block)
        progress(have, total)
    if total is not None and have < total:
        file.flush()
        raise _RetryError(f"the connection broke after {have} of {total} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise WeightsError(
                shown_url(req.full_url),
                f"sends us on to {shown_url(newurl)}",
                "only http(s), and no way back to http",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _opened(request: urllib.request.Request, part: Path) -> Iterator[http.client.HTTPResponse]:
    """Open the connection; every way in which that fails becomes one of two errors."""
    url = shown_url(request.full_url)
    # Only these handlers: the default opener would also read ftp:, file: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    try:
        response = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part is longer than the file: it is of another version
            _forget(part)
            raise _RetryError("the file changed on the server") from None
        if error.code in _AGAIN:
            raise _RetryError(f"the server answered {error.code} {error.reason}") from None
        remedy = "it needs a login" if error.code in (401, 403) else "check the address"
        raise WeightsError(url, f"the server answered {error.code} {error.reason}", remedy) from None
    except urllib.error.URLError as error:
        raise _RetryError(str(error.reason)) from None
    except http.client.InvalidURL as error:
        raise WeightsError(url, f"is no address ({error})", "correct it") from None
    except (OSError, http.client.HTTPException) as error:
        raise _RetryError(str(error) or type(error).__name__) from None
    except ValueError as error:
        raise WeightsError(url, f"is no address ({error})", "correct it") from None
    if response is None:
        raise WeightsError(url, "is no http(s) address", "correct it")
    with response:
        yield response


def _check_answer(
    response: http.client.HTTPResponse, url: str, part: Path, total: int | None, have: int
) -> None:
    """Refuse what is certainly not a checkpoint, or has no room here."""
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise WeightsError(shown_url(url), "is a web page, not a file", "give the address of the file itself")
    if total is None:
        return
    if total > MAX_BYTES:
        raise WeightsError(shown_url(url), f"larger than {MAX_BYTES >> 30} GiB", "is it the right address?")
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise WeightsError(
            str(part.parent),
            f"has {free >> 20} MiB of free space, {(total - have) >> 20} MiB are needed",
            "free some, or let VIDCLS_CACHE name another folder",
        )


def _total(response: http.client.HTTPResponse, have: int) -> int | None:
    """Size of the whole file, as far as the server says it; a partial answer must begin where we stopped."""
    if response.status == 206:
        unit, _, value = response.headers.get("Content-Range", "").partition(" ")
        span, _, size = value.partition("/")
        if unit != "bytes" or span.partition("-")[0] != str(have):
            raise _RetryError("the server sent another part than was asked for")
        return int(size) if size.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _version_of(response: http.client.HTTPResponse) -> dict[str, str]:
    """Headers that name the version of the file; a weak ETag does not promise equal bytes."""
    found = {}
    for key in ("etag", "last-modified"):
        value = response.headers.get(key)
        if value and len(value) < 500 and not value.startswith("W/"):
            found[key] = value
    return found


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_version(part: Path, url: str) -> dict[str, str]:
    """What the server said of the part that is here; nothing if that is in doubt."""
    try:
        data = json.loads(_version_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict) or data.pop("url", None) != shown_url(url):
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)}


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _disk_error(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        str(path.parent),
        f"cannot be written ({error.strerror or error})",
        "make room there, or let VIDCLS_CACHE name another folder",
    )


@contextlib.contextmanager
def progress_bar(name: str, show: bool | None) -> Iterator[Progress]:
    """Show a bar on stderr where that is a terminal, else one line; nothing when ``show`` is False."""
    if show is False:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        print(f"downloading {name}", file=sys.stderr, flush=True)
        yield lambda done, total: None
        return
    with ProgressBar(name, unit=BYTES) as bar:
        yield bar.update
