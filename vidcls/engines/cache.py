"""Converted models on the disk: found by what they were made of, written whole or not at all, bounded in size.

Each lies in a folder of its own, named by a digest of the weights' checksum, the configuration, the shape of a
view, the storage type and the versions of the programs that made it. Imports no torch and no OpenVINO.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vidcls.engines.openvino import HEAD, UNITS, WHOLE, OpenVINOEngine
from vidcls.paths import cache_dir

META = "meta.json"
DEFAULT_LIMIT = 8.0  # GiB
LIMIT_VARIABLE = "VIDCLS_ENGINE_CACHE"  # GiB; 0 keeps nothing
STALE = 24 * 3600.0  # seconds after which a folder that was never finished is swept away
_TEMPORARY = ".making-"


@dataclass(frozen=True)
class Recipe:
    """What a converted model is made of.

    Attributes:
        architecture: A key of `vidcls.models.ARCHITECTURES`.
        config: Its whole configuration, as plain data.
        weights: Checksum of the weights.
        num_frames: Frames of a view.
        image_size: Height and width of a view in pixels.
        storage: ``f32`` or ``int8``.
    """

    architecture: str
    config: dict[str, Any]
    weights: str
    num_frames: int
    image_size: tuple[int, int]
    storage: str = "f32"

    def key(self) -> str:
        """Digest that names the folder."""
        record = {**vars(self), "versions": {name: _version(name) for name in ("openvino", "torch")}}
        text = json.dumps([record, code_digest()], sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Entry:
    """One converted model on the disk.

    Attributes:
        folder: Where it is.
        meta: What is known of it: ``unit_frames``, ``error`` (of its float32 logits), and more for people.
    """

    folder: Path
    meta: dict[str, Any]

    def engine(self, precision: str) -> OpenVINOEngine:
        """Make the engine; nothing is compiled yet.

        Raises:
            DependencyError: OpenVINO is not installed.
            DeviceError: The CPU cannot do the precision.
        """
        names = [name for name in (WHOLE, UNITS, HEAD) if f"{name}.xml" in self.meta["sizes"]]
        parts = {name: self.folder / f"{name}.xml" for name in names}
        return OpenVINOEngine(parts, precision, int(self.meta["unit_frames"]))


def root() -> Path:
    """Return the folder of all converted models."""
    return cache_dir() / "engines"


def limit() -> int:
    """Return the bytes that converted models may take together."""
    try:
        gib = float(os.environ.get(LIMIT_VARIABLE, ""))
    except ValueError:
        gib = DEFAULT_LIMIT
    return int(max(gib, 0.0) * 2**30)


def code_digest() -> str:
    """Return a digest of vidcls's own files: an engine made by other code is not used.

    Names, sizes and times stand for the contents; looking at them takes about a millisecond.
    """
    package = Path(__file__).parents[1]
    folders = (package / "models", package / "checkpoints", package / "engines")
    files = [*(f for folder in folders for f in sorted(folder.glob("*.py"))), package / "loading.py"]
    listing = []
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            listing.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def find(key: str) -> Entry | None:
    """Return the converted model called ``key`` if it is there and whole, and count it as used now."""
    folder = root() / key
    meta = _read(folder)
    if meta is None:
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / META)
    return Entry(folder, meta)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        sizes = meta["sizes"].items()
        whole = isinstance(meta["unit_frames"], int) and sizes
        return meta if whole and all((folder / n).stat().st_size == size for n, size in sizes) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def store(key: str, write: Callable[[Path], None], meta: Mapping[str, Any]) -> Entry | None:
    """Keep a converted model: it appears whole or not at all, and the oldest ones make room for it.

    Args:
        key: Its name.
        write: Writes its files into a folder.
        meta: What is known of it; must have ``unit_frames``.

    Returns:
        Where it is; None where the disk does not let it be kept, or the bound is too small for it.
    """
    folder = root() / key
    made: Path | None = None
    try:
        root().mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=root()))
        write(made)
        sizes = {file.name: file.stat().st_size for file in made.iterdir()}
        if sum(sizes.values()) > limit():
            return None
        _write_json(made / META, {**meta, "sizes": sizes})
        if folder.exists() and _read(folder) is None:
            _remove(folder)
        with contextlib.suppress(OSError):  # another process may have been first: its work is as good
            os.rename(made, folder)
        _make_room(folder)
        return find(key)
    except (OSError, RuntimeError):  # RuntimeError is how OpenVINO reports a full disk
        return None
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def entries() -> list[tuple[Path, dict[str, Any], float]]:
    """All converted models that are whole: folder, what is known of it, and when it was last used."""
    found = []
    for folder in _folders():
        meta = _read(folder)
        if meta is not None and not folder.name.startswith(_TEMPORARY):
            with contextlib.suppress(OSError):
                found.append((folder, meta, (folder / META).stat().st_mtime))
    return sorted(found, key=lambda item: item[2])


def _folders() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path for path in root().iterdir() if path.is_dir())


def _make_room(keep: Path) -> None:
    """Remove what is broken, forgotten or too much, the longest unused first, but never ``keep``."""
    known = entries()
    whole = {folder for folder, _, _ in known}
    for folder in _folders():
        with contextlib.suppress(OSError):
            if folder not in whole and time.time() - folder.stat().st_mtime > STALE:
                _remove(folder)
    total = sum(sum(meta["sizes"].values()) for _, meta, _ in known)
    for folder, meta, _ in known:
        if total <= limit():
            return
        if folder != keep:
            _remove(folder)
            total -= sum(meta["sizes"].values())


def _remove(folder: Path) -> None:
    """Take a folder out of sight at once, then delete it; one that is in use on Windows stays."""
    hidden = folder.with_name(f"{_TEMPORARY}{os.getpid()}-{folder.name}")
    with contextlib.suppress(OSError):
        os.rename(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
