"""What is wrong with a file on this machine, as far as that can be told without decoding it."""

from __future__ import annotations

import os
import stat

from vidcls.errors import VideoError


def check_file(path: str | os.PathLike[str]) -> None:
    """Finds the faults that can be told without decoding.

    Raises:
        VideoError: Of kind ``not_found``, ``not_a_file``, ``permission``, ``empty`` or ``unreadable``.
    """
    name = os.fspath(path)
    try:
        # Looked at before it is opened: to open a FIFO waits for a writer, and a device may do anything.
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            raise _not_a_file(name, mode)
        with open(name, "rb") as file:
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        hint = "fetch it first, or give the address to the command" if "://" in name else "check the path"
        raise VideoError(name, "no such file", hint, kind="not_found") from None
    except PermissionError:
        raise VideoError(name, "permission denied", "make the file readable", kind="permission") from None
    except ValueError:
        raise VideoError(repr(name), "is not a valid path", "check the path", kind="not_found") from None
    except OSError as error:
        raise VideoError(name, f"cannot be read ({error.strerror})", "check the disk or the path") from None
    if empty:
        raise VideoError(name, "is empty (0 bytes)", "copy or download it again", kind="empty")


def _not_a_file(name: str, mode: int) -> VideoError:
    if stat.S_ISDIR(mode):
        return VideoError(name, "is a directory", "give the files in it", kind="not_a_file")
    if stat.S_ISFIFO(mode):
        return VideoError(name, "is a named pipe (FIFO)", "pass its bytes on stdin with -", kind="not_a_file")
    what = "a socket" if stat.S_ISSOCK(mode) else "a device"
    return VideoError(name, f"is {what}, not a file", "give a video file", kind="not_a_file")
