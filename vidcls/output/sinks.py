"""Where the bytes of an output go: stdout, or a file that no reader ever sees half of."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vidcls.errors import OutputError, UsageError, printable
from vidcls.paths import put_in_place, temporary_path


class Sink:
    """Takes bytes; this one throws them away."""

    def write(self, data: bytes) -> None:
        """Write all of it, or raise.

        Raises:
            OutputError: It cannot be written.
            BrokenPipeError: The reader has gone.
        """

    def close(self, keep: bool) -> None:
        """Finish; without ``keep`` what was there before stays."""


class Stdout(Sink):
    """Standard output, flushed after every row so that a pipe's reader sees it at once."""

    def write(self, data: bytes) -> None:
        if sys.stdout.isatty():
            data = b"".join(map(_shown, data.splitlines(keepends=True)))
        try:
            sys.stdout.flush()
            raw = getattr(sys.stdout, "buffer", None)
            if raw is None:
                sys.stdout.write(data.decode())
            else:
                # Programs read UTF-8, whatever this terminal's encoding and line ends are.
                raw.write(data)
                raw.flush()
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error("stdout", error) from None


def _shown(line: bytes) -> bytes:
    """A line of CSV or text as a person may see it: what would steer the terminal is an escape."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(c if c in "\t\n\r" else printable(c) for c in text).encode()


class File(Sink):
    """A file: written under another name and put in place at the end, unless ``at_once``.

    Raises:
        OutputError: It cannot be opened.
    """

    def __init__(self, path: Path, *, at_once: bool) -> None:
        self._name = printable(str(path))
        try:
            # A link's target is replaced, not the link; devices and pipes are written into.
            self._target = path.resolve() if path.is_symlink() else path
            special = self._target.exists() and not self._target.is_file()
            self._place = self._target if at_once or special else temporary_path(self._target)
            # What was in a file that is written into goes only when there is something to write.
            self._stale = self._place == self._target and not special
            self._file = self._place.open("ab" if self._stale else "wb", buffering=0)
        except (OSError, ValueError) as error:
            raise open_error(path, error) from None

    def write(self, data: bytes) -> None:
        if self._file.closed:
            raise OutputError(self._name, "is closed already", "open it again")
        try:
            self._clear()
            write_all(self._file.fileno(), data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._stopped(error) from None

    def close(self, keep: bool) -> None:
        if self._file.closed:
            return
        try:
            if self._place == self._target:
                if keep:
                    self._clear()
                self._file.close()
            elif keep:
                self._file.close()
                put_in_place(self._place, self._target)
            else:
                self._file.close()
                self._place.unlink()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._stopped(error) from None

    def _clear(self) -> None:
        if self._stale:
            self._file.truncate(0)
            self._stale = False

    def _stopped(self, error: OSError) -> OutputError:
        """Close without losing what is on the disk, and say where it is."""
        with contextlib.suppress(OSError):
            self._file.close()
        failure = write_error(self._name, error)
        if self._place == self._target or not self._place.exists():
            return failure
        if self._place.stat().st_size == 0:
            self._place.unlink()
            return failure
        kept = f"; what was written so far is in {printable(str(self._place))}"
        return OutputError(failure.subject, failure.problem, failure.remedy + kept)


def check_absent(path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
    """Refuse a file that exists, unless it is to be replaced; devices and pipes may be written into."""
    if path is not None and not overwrite and os.path.isfile(path):
        name = printable(os.fspath(path))
        raise UsageError(name, "already exists", "choose another output, or pass overwrite=True")


def check_not_input(path: str | os.PathLike[str], inputs: Iterable[str]) -> None:
    """Refuse an output that is one of the inputs, whatever may be replaced: it would be lost."""
    for one in inputs if os.path.exists(path) else ():
        if os.path.exists(one) and os.path.samefile(path, one):
            raise UsageError(printable(os.fspath(path)), "is the input itself", "choose another output")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes, or none of them where that can be undone: a file is cut to what it was.

    Raises:
        OSError: They cannot be written.
    """
    view = memoryview(data)
    done = 0
    try:
        while done < len(view):
            done += os.write(descriptor, view[done:])
    except BaseException:
        if done:
            with contextlib.suppress(OSError):  # a pipe or a device
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - done)
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors within the context into one about a file or folder that is written there.

    Raises:
        OutputError: With what is wrong and what to do.
    """
    try:
        yield
    except OSError as error:
        raise open_error(path, error) from error


def open_error(path: Path, error: OSError | ValueError) -> OutputError:
    """Say what is wrong with a place to write to, and what to do."""
    name = printable(str(path))
    if isinstance(error, FileNotFoundError):
        folder = printable(str(path.parent))
        return OutputError(name, f"the folder {folder} does not exist", "create it first")
    if isinstance(error, IsADirectoryError):
        return OutputError(name, "is a folder", "name a file")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return write_error(name, error)
    reason = error.strerror if isinstance(error, OSError) else None
    return OutputError(name, f"cannot be written ({reason or error})", "choose another place")


def write_error(name: str, error: OSError, again: str = "") -> OutputError:
    """Say in one line why writing failed: what is full, or not allowed.

    Args:
        name: What was written.
        error: What the system said.
        again: What to do once the trouble is over.
    """
    reason = error.strerror or str(error)
    if error.errno == errno.EROFS:
        return OutputError(name, f"is on a read-only file system ({reason})", "choose another place")
    if isinstance(error, PermissionError):
        return OutputError(name, f"permission denied ({reason})", "choose another place, or make it writable")
    remedy = f"free some space{again or ' or choose another place'}"
    return OutputError(name, f"writing failed ({reason})", remedy)
