"""Clips that are elsewhere → temporary files on this machine, deleted after use. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from vidcls.errors import DependencyError, InputError
from vidcls.video import object_store
from vidcls.video.sources import Source, is_address
from vidcls.video.urls import is_url

MAX_BYTES = 8 * 1024**3  # of one clip
MAX_SECONDS = 3600.0  # of one clip, all attempts together


def fetch(source: Source, stop: threading.Event | None = None) -> Source:
    """Copy a clip from its address to a temporary file, which the caller deletes with ``discard``.

    Args:
        source: What to fetch.
        stop: Ends it when set, from any thread.

    Returns:
        The same source with ``clip`` set to the file's path, or with ``error`` set.
    """
    try:
        with temporary_file(source.path) as path:
            if is_url(source.path):
                _download(source.path, path, stop)
            else:
                object_store.copy(source.path, path, MAX_BYTES, MAX_SECONDS, stop)
            return Source(source.path, str(path), columns=source.columns)
    except (InputError, DependencyError) as error:
        # A package that one address needs is missing for that one alone.
        failure = InputError(source.path, error.problem, error.remedy, kind=error.kind)
        return Source(source.path, None, failure, source.columns)
    except OSError as error:
        problem = f"cannot be saved in {tempfile.gettempdir()} ({error.strerror or error})"
        remedy = "make room there, or let TMPDIR name another folder"
        return Source(
            source.path, None, InputError(source.path, problem, remedy, kind="fetch"), source.columns
        )


def _download(url: str, path: Path, stop: threading.Event | None) -> None:
    from vidcls.video.exchange import FetchError
    from vidcls.video.http import Bounds, download

    try:
        download(url, path, Bounds(MAX_BYTES, MAX_SECONDS, "TMPDIR"), stop=stop)
    except FetchError as error:
        raise InputError(url, error.problem, error.remedy, kind=error.kind) from None


@contextlib.contextmanager
def temporary_file(name: str) -> Iterator[Path]:
    """Make an empty file for the bytes of a clip that is elsewhere; it is deleted where filling it fails."""
    suffix = re.search(r"\.[A-Za-z0-9]{1,7}(?=$|[?#])", name)  # decoders look at it
    handle, place = tempfile.mkstemp(prefix="vidcls-", suffix=suffix[0] if suffix else "")
    os.close(handle)
    path = Path(place)
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def discard(source: Source) -> None:
    """Delete the temporary file of a fetched source; others are left alone."""
    if is_address(source.path) and isinstance(source.clip, str):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(source.clip)


@contextlib.contextmanager
def opened(source: Source, stop: threading.Event | None = None) -> Iterator[str | bytes]:
    """Give a clip's path on this machine, or its bytes; what had to be fetched for that is deleted afterwards.

    Args:
        source: The clip.
        stop: Ends the fetching when set, from any thread.

    Raises:
        InputError: There is nothing to read; or one that the block raises, by the name that the person gave the clip
            rather than that of a temporary file.
    """
    source = fetch(source, stop) if source.is_remote else source
    try:
        if source.error is not None:
            raise source.error
        yield source.path if source.clip is None else source.clip
    except InputError as error:
        raise type(error)(source.path, error.problem, error.remedy, kind=error.kind) from None
    finally:
        discard(source)
