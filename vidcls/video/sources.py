"""What a user names on the command line → clips, one by one, the same way for every command.

=====================  =============================================================================================
``a.mp4``, an address  one clip
``folder``             its videos, and those below it unless ``recursive`` is off
``*.mp4``, ``**``      whatever matches; folders that match are listed
``@list``, ``a.txt``   what is named in a text file, one a line or between NUL bytes; blank lines and ``#`` are skipped
``clips.csv``          a manifest (CSV, TSV, Parquet): its column of paths
``-``                  standard input: one clip's bytes, or a list, whichever it turns out to be; ``@-`` is a list
=====================  =============================================================================================

Nothing here holds a whole list. Imports neither torch nor a decoder.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from vidcls.errors import InputError, UsageError, system_errors
from vidcls.video import object_store
from vidcls.video.manifests import Entry, manifest_kind, open_manifest
from vidcls.video.urls import is_url

T = TypeVar("T")
# Suffixes by which a folder's videos are told from its other files; a file named outright may be called anything.
VIDEO_SUFFIXES = frozenset(
    (
        ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2ts .m2v .m4v .mjpeg .mjpg .mkv "
        ".mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m"
    ).split()
)
LIST_SUFFIXES = (".txt", ".lst", ".list")
MAX_LINE = 1 << 20  # bytes of one path in a list, far more than any system takes
MAX_SORTED = 10_000  # names of a folder that are sorted; more come as the system gives them
MAX_STDIN_BYTES = 2 * 1024**3
BLOCK = 1 << 16
STDIN = frozenset(("-", "@-"))
ENOUGH = 64  # bytes of standard input that tell a clip from a list


@dataclass(frozen=True)
class Source:
    """One clip to be read.

    Attributes:
        path: What the clip is called in results: the path or URL as the user gave it, or ``-``.
        clip: Where its bytes are: a path, or the bytes themselves; None when ``error`` is set or not fetched yet.
        error: Why there is nothing to read.
        columns: What else its manifest says of it.
    """

    path: str
    clip: str | bytes | None = None
    error: InputError | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def is_remote(self) -> bool:
        """Whether the clip has yet to be fetched, see `vidcls.video.fetch`."""
        return self.clip is None and self.error is None and is_address(self.path)

    @property
    def location(self) -> str:
        """Where the clip is: a path of this machine, or an address."""
        return self.clip if isinstance(self.clip, str) else self.path


def is_address(text: str) -> bool:
    """Whether a clip is called so that it has to be fetched."""
    return is_url(text) or object_store.is_remote(text)


def is_local(path: str) -> bool:
    """Whether a path names a file of this machine; one on another host would be fetched by merely looking at it."""
    return path not in ("", "-") and not is_address(path) and path[:2] not in ("\\\\", "//", "\\/", "/\\")


def is_video_name(path: str | os.PathLike[str]) -> bool:
    """Tell by its suffix whether a file in a folder is taken for a video."""
    return os.path.splitext(os.fspath(path))[1].lower() in VIDEO_SUFFIXES


def expand(
    arguments: Sequence[str],
    recursive: bool = True,
    *,
    root: str = "",
    path_column: str | None = None,
    strict: bool = False,
) -> Iterator[Source]:
    """List the clips that a user named, lazily and in order; see the module's table.

    A path that exists is taken as it is, so that a clip may be called ``a[1].mp4`` or ``@b.mp4``. No clip is opened
    here: one that does not exist is yielded too, with its ``error`` set where that is known.

    Args:
        arguments: Paths, URLs, patterns, lists, manifests or ``-``.
        recursive: Walk folders down to their leaves; otherwise take a folder's own files. Links to folders are not
            followed.
        root: Folder from which relative paths in lists and manifests count; by default the current one.
        path_column: A manifest's column of paths; by default one that is called so.
        strict: Raise where a list or manifest cannot be read, instead of an error in its place.

    Raises:
        UsageError: See ``strict``.
    """
    lister = _Lister(recursive, root, path_column)
    for argument in arguments:
        try:
            yield from lister.argument(argument)
        except UsageError as error:
            if strict:
                raise
            yield _failed(argument, error.problem, error.remedy, "not_found")


@dataclass(frozen=True)
class _Lister:
    recursive: bool
    root: str
    path_column: str | None

    def argument(self, text: str) -> Iterator[Source]:
        """List what one argument names."""
        if text == "-":
            return self._stdin()
        if text == "@-":
            return self._lines(_standard_input())
        if object_store.is_remote(text):
            return self._address(text)
        if is_url(text):
            return iter([Source(text)])
        if text.startswith("@") and not os.path.lexists(text):
            return self._list(text[1:])
        if _is_table(text) and os.path.isfile(text):
            return self._table(text)
        return self._place(text, text)

    def _table(self, source: str) -> Iterator[Source]:
        return self._manifest(source) if manifest_kind(source) else self._list(source)

    def _address(self, text: str) -> Iterator[Source]:
        if _is_table(text):
            return self._table(text)
        problem = "no videos in this folder, and no such file"
        found = (Source(name) for name in object_store.find(text, is_video_name, self.recursive))
        return _or_failed(found, text, problem, "check the address", "not_found")

    def _place(self, name: str, place: str) -> Iterator[Source]:
        """List a path of this machine, called ``name`` in the results if it is one clip."""
        if os.path.isdir(place):
            below = " or below it" if self.recursive else ""
            problem = f"no videos in this folder{below}"
            remedy = "name the files themselves if they have other suffixes"
            return _or_failed(walk(place, self.recursive), place, problem, remedy, "empty_folder")
        if glob.has_magic(place) and not os.path.lexists(place):
            return _or_failed(
                self._matches(place),
                place,
                "no file matches this pattern",
                "check it, and quote it from the shell",
                "not_found",
            )
        return iter([_clip(name, place)])

    def _matches(self, pattern: str) -> Iterator[Source]:
        for path in _ordered(glob.iglob(pattern, recursive=True), str):
            if not os.path.isdir(path):
                yield Source(path, path)
            elif not pattern.endswith("**"):  # which lists what is in there by itself
                yield from walk(path, self.recursive)

    # Lists

    def _list(self, source: str) -> Iterator[Source]:
        with system_errors(UsageError, source, "the list cannot be read", "check the path"):
            stream = object_store.open_binary(source)
        with stream:
            yield from self._lines(iter(partial(stream.read, BLOCK), b""))

    def _lines(self, blocks: Iterable[bytes]) -> Iterator[Source]:
        for number, line in enumerate(_entries(blocks), 1):
            if not line.strip() or line.startswith(b"#"):
                continue
            if len(line) > MAX_LINE:
                problem = "is longer than a path can be"
                yield _failed(f"line {number}", problem, "give one path a line", "input")
                continue
            yield from self._line(os.fsdecode(line))

    def _line(self, text: str) -> Iterator[Source]:
        # A list never reads standard input or another list: its lines come from whoever wrote it.
        if is_address(text):
            return iter([Source(text)])
        return self._place(text, os.path.join(self.root, text))

    def _manifest(self, source: str) -> Iterator[Source]:
        for entry in open_manifest(source, self.path_column).entries():
            yield self._of_entry(entry)

    def _of_entry(self, entry: Entry) -> Source:
        if isinstance(entry, InputError):
            return Source(entry.subject, error=entry)
        path, columns = entry
        if is_address(path):
            return Source(path, columns=columns)
        return _clip(path, os.path.join(self.root, path), columns)

    # Standard input

    def _stdin(self) -> Iterator[Source]:
        if sys.stdin is None or sys.stdin.isatty():
            remedy = "pipe one clip's bytes or a list of paths into it"
            yield _failed("-", "standard input is a terminal", remedy, "empty")
            return
        blocks = _standard_input()
        start = b""
        while len(start) < ENOUGH and b"\n" not in start and (block := next(blocks, b"")):
            start += block
        if not start:
            yield _failed("-", "standard input is empty", "pipe a clip or a list into it", "empty")
        elif _is_text(start):
            yield from self._lines(chain([start], blocks))
        else:
            yield _stdin_clip(chain([start], blocks))


def is_manifest(source: str) -> bool:
    """Whether an argument of ``expand`` is read as a manifest."""
    return manifest_kind(source) is not None and (object_store.is_remote(source) or os.path.isfile(source))


def carried_columns(
    arguments: Iterable[str], path_column: str | None = None, *, strict: bool = False
) -> dict[str, str]:
    """Return the columns that all manifests bring along, and their types: ``int``, ``float``, ``bool``, ``str``.

    Args:
        arguments: See ``expand``.
        path_column: As there.
        strict: Raise where a manifest cannot be read; otherwise it brings none, and ``expand`` says what is wrong.

    Raises:
        UsageError: Two manifests have one column in different types; or see ``strict``.
    """
    found: dict[str, str] = {}
    for source in filter(is_manifest, arguments):
        try:
            columns = open_manifest(source, path_column).columns
        except UsageError:
            if strict:
                raise
            continue
        for name, kind in columns.items():
            if found.setdefault(name, kind) != kind:
                raise UsageError(
                    source,
                    f"its column {name!r} is of type {kind}, another manifest's of type {found[name]}",
                    "take them one after the other, into two files",
                )
    return found


def _is_table(name: str) -> bool:
    return manifest_kind(name) is not None or name.lower().endswith(LIST_SUFFIXES)


def _clip(name: str, place: str, columns: dict[str, Any] | None = None) -> Source:
    """Return the clip at a path; one that a Windows machine wrote is found by its name with slashes."""
    if "\\" in place and os.sep == "/" and not os.path.lexists(place):
        place = place.replace("\\", "/")
        if not os.path.lexists(place):
            remedy = "use its path on this machine, with /"
            error = InputError(name, "no such file; this is a Windows path", remedy, kind="not_found")
            return Source(name, None, error, columns or {})
    return Source(name, place, None, columns or {})


def _or_failed(found: Iterator[Source], name: str, problem: str, remedy: str, kind: str) -> Iterator[Source]:
    """Yield what was found, or one error where that is nothing."""
    first = next(found, None)
    if first is None:
        yield _failed(name, problem, remedy, kind)
    else:
        yield from chain([first], found)


def _ordered(items: Iterable[T], key: Callable[[T], str]) -> Iterator[T]:
    """Yield the first ``MAX_SORTED`` sorted and the others as they come: a folder of millions is never held."""
    iterator = iter(items)
    yield from sorted(islice(iterator, MAX_SORTED), key=key)
    yield from iterator


def walk(folder: str, recursive: bool = True) -> Iterator[Source]:
    """Yield a folder's videos, then those of the folders in it; what cannot be listed is an error in its place."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        folders: list[str] = []
        try:
            with os.scandir(place) as entries:
                for entry in _ordered(entries, lambda entry: entry.name):
                    if _is_folder(entry):
                        folders.append(entry.path)
                    elif is_video_name(entry.name) and not _links_to_folder(entry):
                        yield Source(entry.path, entry.path)
        except OSError as error:
            # An error of its own row: what lies in there would be missing silently.
            problem = f"cannot be listed ({error.strerror or error})"
            yield _failed(place, problem, "check its permissions", "permission")
        if recursive:
            waiting += sorted(folders, reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # the reader will say what it is
        return False


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one
        return False


def _entries(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Split blocks at their line ends, or at NUL bytes if the first has any (``find -print0``)."""
    rest, mark = b"", b"\xef\xbb\xbf"
    separator = None
    for block in blocks:
        if separator is None:
            separator = b"\0" if b"\0" in block else b"\n"
        *whole, rest = (rest + block.removeprefix(mark)).split(separator)
        mark = b""
        for entry in whole:
            yield entry.removesuffix(b"\r") if separator == b"\n" else entry
        if len(rest) > 2 * MAX_LINE:
            rest = rest[: MAX_LINE + 1]  # too long for a path already: its end may be lost, not our memory
    if rest:
        yield rest.removesuffix(b"\r")


# Standard input


def _standard_input() -> Iterator[bytes]:
    """Yield a block as soon as there is one."""
    stream: Any = sys.stdin.buffer
    return iter(partial(stream.read1, BLOCK), b"")


def _file_size() -> int:
    try:
        return os.fstat(sys.stdin.fileno()).st_size
    except (OSError, ValueError, AttributeError):  # a stream without a descriptor
        return 0


def _is_text(start: bytes) -> bool:
    """Whether bytes begin a list of paths rather than a clip, every container of which has control characters."""
    if start.startswith((b"YUV4MPEG2", b"\0")) or b"\0\0" in start:
        return False
    return not any(byte < 32 and byte not in b"\t\n\r\0" for byte in start[:BLOCK])


def _stdin_clip(blocks: Iterable[bytes]) -> Source:
    data = bytearray()
    size = _file_size()  # known in advance for a regular file
    for block in blocks:
        data += block
        if max(size, len(data)) > MAX_STDIN_BYTES:
            problem = f"more than {MAX_STDIN_BYTES / 2**30:.3g} GiB"
            return _failed("-", problem, "save it to a file and name that", "too_large")
    return Source("-", bytes(data))


def _failed(name: str, problem: str, remedy: str, kind: str) -> Source:
    return Source(name, None, InputError(name, problem, remedy, kind=kind))
