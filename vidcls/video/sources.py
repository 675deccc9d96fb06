"""What a person names on the command line → clips, one after the other. Imports neither torch nor a decoder."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidcls.errors import InputError
from vidcls.video.urls import is_url

# Suffixes by which a folder's videos are told from its other files; a file named outright may be called anything.
VIDEO_SUFFIXES = frozenset(
    (
        ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2ts .m2v .m4v .mjpeg .mjpg .mkv "
        ".mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m"
    ).split()
)
MAX_LIST_BYTES = 256 * 1024**2
MAX_CLIP_BYTES = 8 * 1024**3
MAX_FETCH_SECONDS = 3600.0  # of one clip, all attempts together
MAX_STDIN_BYTES = 2 * 1024**3
STDIN_BLOCK = 1 << 24


@dataclass(frozen=True)
class Source:
    """One clip to be read.

    Attributes:
        name: What the clip is called in results: the path or address as the person gave it, or ``-``.
        clip: Where its bytes are: a path, or the bytes themselves; None when ``error`` is set or not fetched yet.
        error: Why there is nothing to read.
    """

    name: str
    clip: str | bytes | None
    error: InputError | None = None

    @property
    def is_url(self) -> bool:
        """Whether the clip has yet to be fetched, with ``fetch``."""
        return is_url(self.name) and self.clip is None and self.error is None


@contextlib.contextmanager
def opened(source: Source, stop: threading.Event | None = None) -> Iterator[str | bytes]:
    """Give a source's clip, fetched if need be and deleted afterwards if it was.

    Args:
        source: What is to be read.
        stop: Ends a download when it is set.

    Raises:
        InputError: It cannot be had; errors of the block too name the source and not the temporary file behind it.
    """
    try:
        if source.is_url:
            source = fetch(source, stop)
        if source.error is not None:
            raise source.error
        if source.clip is None:
            raise InputError(source.name, "there is nothing to read", "name a file")
        yield source.clip
    except InputError as error:
        raise type(error)(source.name, error.problem, error.remedy, kind=error.kind) from None
    finally:
        discard(source)


def is_video_name(path: str | os.PathLike[str]) -> bool:
    """Tell by its suffix whether a file in a folder is taken for a video."""
    return os.path.splitext(os.fspath(path))[1].lower() in VIDEO_SUFFIXES


def expand(arguments: Sequence[str], recursive: bool = False) -> Iterator[Source]:
    """Expand files, folders, globs, ``@lists``, ``-`` and addresses into single clips, lazily and in order.

    A path that exists is taken as it is, so that a clip may be called ``a[1].mp4`` or ``@b.mp4``. Nothing is opened
    here: a source that leads nowhere is yielded with its ``error`` set.

    Args:
        arguments: What the person gave.
        recursive: Walk folders down to their leaves; otherwise take a folder's own files.
    """
    for argument in arguments:
        yield from _expand_one(argument, recursive)


def _expand_one(argument: str, recursive: bool) -> Iterator[Source]:
    if argument == "-":
        yield _stdin_clip()
    elif is_url(argument):
        yield Source(argument, None)
    elif os.path.isdir(argument):
        yield from _folder(argument, recursive)
    elif os.path.lexists(argument):
        yield Source(argument, argument)
    elif argument.startswith("@"):
        yield from _list_file(argument[1:], recursive)
    elif glob.has_magic(argument):
        yield from _glob(argument, recursive)
    else:
        # The reader says what is wrong with a path that is not there, the same way for every command.
        yield Source(argument, argument)


def _folder(folder: str, recursive: bool) -> Iterator[Source]:
    found = False
    try:
        for path in walk(folder) if recursive else sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = path if isinstance(path, str) else path.path
            if is_video_name(name) and (recursive or not os.path.isdir(name)):
                found = True
                yield Source(name, name)
    except OSError as error:
        yield _failed(folder, f"cannot be listed ({error.strerror})", "check its permissions", "permission")
        return
    if not found:
        what = "no videos in this folder or below it" if recursive else "no videos in this folder"
        yield _failed(folder, what, "name the files themselves if they have other suffixes", "empty_folder")


def walk(folder: str) -> Iterator[str]:
    """Yield all files below ``folder``, sorted within each folder, holding one folder's names at a time.

    Raises:
        OSError: ``folder`` itself cannot be listed; folders below it that cannot are passed over by ``os.walk``.
    """
    os.scandir(folder).close()
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield os.path.join(root, name)


def _glob(pattern: str, recursive: bool) -> Iterator[Source]:
    found = False
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if os.path.isdir(path):
            if recursive:
                found = True
                yield from _folder(path, recursive)
            continue
        found = True
        yield Source(path, path)
    if not found:
        yield _failed(
            pattern, "no file matches this pattern", "check it, and quote it from the shell", "not_found"
        )


def _list_file(path: str, recursive: bool) -> Iterator[Source]:
    """Yield the clips named in a text file, one a line; blank lines and lines that begin with ``#`` are skipped."""
    try:
        if os.path.getsize(path) > MAX_LIST_BYTES:
            yield _failed(
                f"@{path}", f"larger than {MAX_LIST_BYTES >> 20} MiB", "use `vidcls score`", "too_large"
            )
            return
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                entry = line.rstrip("\r\n")
                if entry.strip() and not entry.startswith("#"):
                    # A list never reads standard input or another list: its lines come from whoever wrote it.
                    yield from [Source(entry, entry)] if entry[0] in "-@" else _expand_one(entry, recursive)
    except OSError as error:
        yield _failed(
            f"@{path}", f"the list cannot be read ({error.strerror})", "check the path", "not_found"
        )


def _stdin_clip() -> Source:
    if sys.stdin is None or sys.stdin.isatty():
        return _failed("-", "standard input is a terminal", "pipe one clip's bytes into it", "empty")
    data = bytearray()
    while block := sys.stdin.buffer.read(min(STDIN_BLOCK, MAX_STDIN_BYTES + 1 - len(data))):
        data += block
        if len(data) > MAX_STDIN_BYTES:
            problem = f"more than {MAX_STDIN_BYTES / 2**30:.3g} GiB"
            return _failed("-", problem, "save it to a file and name that", "too_large")
    if not data:
        return _failed("-", "standard input is empty", "pipe one clip's bytes in", "empty")
    return Source("-", bytes(data))


def fetch(source: Source, stop: threading.Event | None = None) -> Source:
    """Download a clip from its address to a temporary file, which the caller deletes.

    Args:
        source: What to fetch.
        stop: Ends it when set, from any thread.

    Returns:
        The same source with ``clip`` set to the file's path, or with ``error`` set.
    """
    from vidcls.video.exchange import FetchError
    from vidcls.video.http import Bounds, download

    bounds = Bounds(MAX_CLIP_BYTES, MAX_FETCH_SECONDS, "TMPDIR")
    try:
        with temporary_file(source.name) as path:
            download(source.name, path, bounds, stop=stop)
            return Source(source.name, str(path))
    except FetchError as error:
        return _failed(source.name, error.problem, error.remedy, error.kind)
    except OSError as error:
        problem = f"cannot be saved in {tempfile.gettempdir()} ({error.strerror or error})"
        return _failed(source.name, problem, "make room there, or let TMPDIR name another folder", "fetch")


@contextlib.contextmanager
def temporary_file(name: str) -> Iterator[Path]:
    """Make an empty file for the bytes of a clip that is elsewhere; it is deleted where filling it fails.

    Raises:
        OSError: It cannot be made.
    """
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
    if is_url(source.name) and isinstance(source.clip, str):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(source.clip)


def _failed(name: str, problem: str, remedy: str, kind: str) -> Source:
    return Source(name, None, InputError(name, problem, remedy, kind=kind))
