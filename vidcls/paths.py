"""Where vidcls keeps things on this machine; files written whole or not at all; locks. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

LONGEST = 200  # characters of a name that are kept in that of its temporary file; most file systems take 255

ENGINE_CACHE_LIMIT = 8.0  # GiB, where $VIDCLS_ENGINE_CACHE says nothing else


def cache_dir() -> Path:
    """Return the folder for downloaded and derived files: ``$VIDCLS_CACHE``, else the system's place for caches.

    In it: ``weights`` (downloads, `vidcls.zoo.weights`), ``models`` (facts about checkpoints and exported models,
    `vidcls.engines.cache`), ``embeddings`` and ``tokens`` (of probes, `vidcls.training.probe`), ``frames`` (resized
    training frames, `vidcls.training.data.frame_cache`).
    """
    if chosen := os.environ.get("VIDCLS_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("vidcls", appauthor=False))


def engine_cache_limit() -> int:
    """Return the bytes that exported models may take together in the cache; 0 keeps nothing."""
    try:
        gib = float(os.environ.get("VIDCLS_ENGINE_CACHE", ""))
    except ValueError:
        gib = ENGINE_CACHE_LIMIT
    return int(max(gib, 0.0) * 2**30)


def user_config_dir() -> Path:
    """Return the folder for the user's own models.yaml, by each system's custom."""
    import platformdirs

    return Path(platformdirs.user_config_dir("vidcls", appauthor=False, roaming=True))


def hugging_face_cache() -> Path:
    """Return Hugging Face's folder for downloads, by its own rules, without importing its library."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(name):
            return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "huggingface" / "hub"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time work on a file or folder; the others wait, say so, and find it done.

    Raises:
        OSError: The lock beside it, ``PATH.lock``, cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"waiting for another process that works on {path.name}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def replacing(target: Path, *, alone: bool = False) -> Iterator[Path]:
    """Give a path to write to; what was written there takes the place of ``target`` when the block ends well.

    Nobody ever sees half a file under the name of ``target``, and after a loss of power it is the old or the new one.
    A link's target is replaced, not the link; permissions stay as they were.

    Args:
        target: The file to write; its folder exists.
        alone: The caller holds a lock: the temporary file has a fixed name, so that one which a killed process left
            behind is written over and can be found.

    Raises:
        OSError: It cannot be written; what was at ``target`` is untouched.
    """
    target = target.resolve() if target.is_symlink() else target
    temporary = temporary_path(target, alone=alone)
    try:
        yield temporary
        put_in_place(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, target: Path) -> None:
    """Give a file that is whole its name, durably; it takes over the permissions of the one that was there.

    Raises:
        OSError: It cannot be done; what was at ``target`` is untouched.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    if target.exists():
        shutil.copymode(target, temporary)
    os.replace(temporary, target)
    sync_folder(target.parent)


def temporary_path(target: Path, *, alone: bool = False) -> Path:
    """Return the name under which ``target`` is written before it is whole: hidden, and in the same folder."""
    writer = "" if alone else f".{os.getpid()}-{threading.get_ident():x}"
    return target.with_name(f".{target.name[:LONGEST]}{writer}.tmp")


def write_text(target: Path, text: str) -> None:
    """Write a small file whole or not at all, as UTF-8; what is not valid Unicode becomes an escape.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def sync_folder(folder: Path) -> None:
    """Make a new, replaced or removed name in ``folder`` durable; only POSIX systems can, and need to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
