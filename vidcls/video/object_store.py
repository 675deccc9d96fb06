"""Files that are not on this machine's disks: ``s3://``, ``gs://``, ``memory://`` … through fsspec."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from vidcls.errors import DependencyError, InputError
from vidcls.paths import replacing
from vidcls.video.urls import is_url, scheme_of

COPY_BLOCK = 1 << 20  # bytes


def is_remote(path: str) -> bool:
    """Whether ``path`` is an address for fsspec; http and https are read without it."""
    return scheme_of(path).isalnum() and not is_url(path)


def filesystem(path: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path on it.

    Raises:
        DependencyError: fsspec, or its part for this kind of address, is not installed.
    """
    scheme = scheme_of(path)
    try:
        import fsspec

        system, name = fsspec.core.url_to_fs(path)
        return system, str(name)
    except ImportError as error:
        extra = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}.get(
            scheme, "fsspec"
        )
        raise DependencyError(path, f"{scheme}:// needs {extra} ({error})", f"pip install {extra}") from None
    except ValueError as error:
        raise DependencyError(
            path, f"no file system for {scheme}:// ({error})", "check the address"
        ) from None


def open_binary(path: str) -> IO[bytes]:
    """Open a file of this machine or an address to read bytes; an OSError where it cannot be read."""
    if not is_remote(path):
        return open(path, "rb")
    system, name = filesystem(path)
    return system.open(name, "rb")


def find(path: str, is_wanted: Callable[[str], bool], recursive: bool = True) -> Iterator[str]:
    """Yield the addresses of the wanted files at or below ``path``, or of all that match it as a pattern."""
    system, name = filesystem(path)
    if any(letter in name for letter in "*?["):
        for found in system.glob(name):
            yield system.unstrip_protocol(found)
        return
    if system.isfile(name):
        yield path
        return
    for _, _, files in system.walk(name, detail=True, maxdepth=None if recursive else 1):
        for entry in files.values():
            if is_wanted(entry["name"]):
                yield system.unstrip_protocol(entry["name"])


def state(location: str) -> tuple[int | None, int | None]:
    """Return size in bytes and time of change in ns of a clip, None where that cannot be told cheaply."""
    if is_url(location):
        return None, None
    if is_remote(location):
        try:
            system, name = filesystem(location)
            info = system.info(name)
        except OSError:
            return None, None
        changed = info.get("mtime") or info.get("LastModified") or info.get("updated") or info.get("created")
        stamp = getattr(changed, "timestamp", None)
        seconds = stamp() if callable(stamp) else changed if isinstance(changed, (int, float)) else None
        return info.get("size"), None if seconds is None else int(seconds * 1e9)
    try:
        found = os.stat(location)
    except (OSError, ValueError):
        return None, None
    return found.st_size, found.st_mtime_ns


def copy(address: str, path: Path, max_bytes: int, seconds: float, stop: threading.Event | None) -> None:
    """Copy a clip to a file of this machine.

    Args:
        address: Where it is.
        path: The file, which is there already.
        max_bytes: How large it may be.
        seconds: How long it may take.
        stop: Ends it when set, from any thread.

    Raises:
        InputError: It cannot be fetched.
    """
    system, name = filesystem(address)
    end = time.monotonic() + seconds
    try:
        with path.open("wb") as file, system.open(name, "rb") as stream:
            while block := stream.read(COPY_BLOCK):
                file.write(block)
                if file.tell() > max_bytes:
                    raise InputError(address, f"is larger than {max_bytes >> 30} GiB", kind="too_large")
                if time.monotonic() > end or (stop is not None and stop.is_set()):
                    raise InputError(address, "took too long to fetch, or was stopped", kind="fetch")
    except FileNotFoundError:
        raise InputError(address, "no such file", "check the address", kind="not_found") from None
    except OSError as error:
        raise InputError(address, f"cannot be fetched ({error})", "check the address", kind="fetch") from None


def upload(path: Path, address: str) -> None:
    """Copy a finished file to an address; object stores make it visible as a whole; an OSError where they refuse."""
    system, name = filesystem(address)
    parent = name.rsplit("/", 1)[0]
    if parent and parent != name:
        system.makedirs(parent, exist_ok=True)
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        with replacing(Path(name), alone=True) as place:
            shutil.copyfile(path, place)
    else:
        system.put_file(str(path), name)
