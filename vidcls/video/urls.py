"""Addresses as text: what kind they are, and how they are shown and sent. Imports nothing that fetches."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_RESERVED = "%/:=&?~#+!$,;'@()*[]"


def scheme_of(text: str) -> str:
    """Return the scheme of an address in lower case; empty for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_url(text: str) -> bool:
    """Whether ``text`` is meant as an http or https address, a valid one or not."""
    return scheme_of(text) in ("http", "https")


def is_rtsp(text: str) -> bool:
    """Whether ``text`` is meant as the address of a stream by RTSP."""
    return scheme_of(text) in ("rtsp", "rtsps")


def is_camera(text: str) -> bool:
    """Whether ``text`` is the number of a camera."""
    return re.fullmatch(r"[0-9]{1,2}", text) is not None


def is_live(text: str) -> bool:
    """Whether a source goes on whether it is read or not, so that frames are dropped and not waited for."""
    return is_camera(text) or is_rtsp(text) or is_url(text)


def shown_url(url: str) -> str:
    """Return an address without the name and password that it may hold, for messages and records."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url, count=1)


def credentials(url: str) -> str | None:
    """Return the ``name:password`` that an address holds, decoded."""
    name, at, _ = urlsplit(url).netloc.rpartition("@")
    return unquote(name) if at else None


def ascii_url(url: str) -> str:
    """Return an address as it is sent: percent-encoded, the host's name in IDNA, without name and password.

    Raises:
        ValueError: It is not a valid address.
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        raise ValueError("it holds a control character")
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = host if host.isascii() else host.encode("idna").decode()
    if not _HOST.fullmatch(host):
        raise ValueError("it names no host")
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port is not None else ""
    path, query = (quote(p, safe=_RESERVED, errors="surrogateescape") for p in (parts.path, parts.query))
    return urlunsplit((parts.scheme, host + port, path, query, ""))


def direct_url(url: str) -> str:
    """Return the address of the file itself where the given one shows a web page about it (Dropbox)."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host == "dropbox.com" or host.endswith(".dropbox.com"):
        query = [(key, value) for key, value in parse_qsl(parts.query) if key != "dl"]
        return urlunsplit(parts._replace(query=urlencode([*query, ("dl", "1")])))
    return url
