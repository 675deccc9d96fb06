"""What is known of each checkpoint, and its OpenVINO models: one folder, one key. Imports no torch and no OpenVINO.

In ``models`` in the cache folder, ``KEY.json`` says what a checkpoint turned out to be and ``KEY-openvino-PRECISION``
is an exported model of it (`vidcls.engines.artifact`). The key is a digest of the weights' checksum, of what was said
about them, and of vidcls's own code. Entries appear whole or not at all, and the longest unused make room.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidcls.engines.artifact import (
    RECORD,
    Artifact,
    ArtifactRecord,
    Measure,
    read_artifact,
    unfinished,
    write_files,
)
from vidcls.errors import CheckpointError, WeightsError
from vidcls.paths import cache_dir, engine_cache_limit, write_text
from vidcls.zoo.facts import CheckpointFacts
from vidcls.zoo.weights import checksum

STALE = 24 * 3600.0  # seconds after which a folder that was never finished is removed
MAX_FACTS = 256
MAX_BYTES = 8 << 20  # of one file of facts
MAX_FILES = 512  # of one checkpoint
INDEX = "index.json"  # checksums of weights by their files
_TEMPORARY = ".making-"


def root() -> Path:
    """Return the cache's folder."""
    return cache_dir() / "models"


def model_key(path: Path, said: Mapping[str, Any]) -> str | None:
    """Digest of a checkpoint's content, of what was said about it, and of the code that reads and runs it.

    Returns:
        The key; None where the files cannot be read.
    """
    weights = _known_checksum(path)
    if weights is None:
        return None
    record = {"code": code_digest(), "weights": weights, **said}
    return _digest(record)[:40]


def code_digest() -> str:
    """Return a digest of the code that decides what a checkpoint is and computes: other code, other entries."""
    package = Path(__file__).parents[1]
    folders = (package / "models", package / "checkpoints", package / "engines")
    files = [*(f for folder in folders for f in sorted(folder.glob("*.py"))), package / "zoo" / "find.py"]
    digest = hashlib.sha256()
    for file in files:
        with contextlib.suppress(OSError):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=dict).encode()).hexdigest()


def _known_checksum(path: Path) -> str | None:
    """Checksum of weights; computed once, then found by their files' names, sizes and times."""
    try:
        files = sorted(path.iterdir())[: MAX_FILES + 1] if path.is_dir() else [path]
        if len(files) > MAX_FILES:
            return None
        listing = [(f.name, (status := f.stat()).st_size, status.st_mtime_ns) for f in files]
        seen = _digest([str(path.resolve()), listing])[:40]
        index = _read_json(root() / INDEX)
        found = index.get(seen) if isinstance(index, dict) else None
        if isinstance(found, str):
            return found
        computed = checksum(path)
    except (OSError, WeightsError):
        return None
    kept = list(index.items())[1 - MAX_FACTS :] if isinstance(index, dict) else []
    _write_json(root() / INDEX, dict([*kept, (seen, computed)]))
    return computed


def load_facts(key: str | None) -> CheckpointFacts | None:
    """Return what is known under ``key``, if anything."""
    if key is None:
        return None
    path = root() / f"{key}.json"
    try:
        facts = CheckpointFacts.model_validate(_read_json(path))
        os.utime(path)
        return facts
    except (OSError, ValidationError):
        return None


def save_facts(key: str | None, facts: CheckpointFacts) -> None:
    """Keep what is known; where the disk does not allow it, the next run reads the checkpoint again."""
    if key is None:
        return
    _write_json(root() / f"{key}.json", facts.model_dump(mode="json"))
    with contextlib.suppress(OSError):
        files = sorted(root().glob("[0-9a-f]*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MAX_FACTS]:
            file.unlink(missing_ok=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _write_json(path: Path, value: Any) -> None:
    with contextlib.suppress(OSError, TypeError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value))


def find(name: str) -> Artifact | None:
    """Return the exported model called ``name`` if it is there and whole, and count it as used now.

    Its record is written last and dated at each use: a file that is newer was changed by something else.
    """
    try:
        artifact = read_artifact(root() / name)
        used = (artifact.folder / RECORD).stat().st_mtime_ns
        if any((artifact.folder / file).stat().st_mtime_ns > used for file in artifact.record.files):
            return None
    except (CheckpointError, OSError):
        return None
    with contextlib.suppress(OSError):
        os.utime(artifact.folder / RECORD)
    return artifact


def store(
    name: str, write: Callable[[Path], None], record: ArtifactRecord, measure: Measure | None = None
) -> Artifact | None:
    """Keep an exported model: it appears whole or not at all, and the longest unused make room for it.

    Args:
        name: Its name.
        write: Writes the model's files into a folder.
        record: What it is.
        measure: As in `vidcls.engines.artifact.write_files`.

    Returns:
        Where it is; None where the disk does not allow it, or the limit is too small for it.
    """
    folder = root() / name
    try:
        root().mkdir(parents=True, exist_ok=True)
        with unfinished(root(), _TEMPORARY) as made:
            if write_files(made, write, record, measure) > engine_cache_limit():
                return None
            if folder.exists() and find(name) is None:
                _remove(folder)
            with contextlib.suppress(OSError):  # another process may have been first: its work is as good
                os.rename(made, folder)
        _make_room(folder)
        return find(name)
    except (OSError, RuntimeError):  # RuntimeError is how OpenVINO reports a full disk
        return None


def entries() -> list[tuple[Artifact, float]]:
    """Return all exported models that are whole, and when each was last used, the longest unused first."""
    found = []
    for folder in _folders():
        with contextlib.suppress(OSError, CheckpointError):
            if not folder.name.startswith(_TEMPORARY):
                found.append((read_artifact(folder), (folder / RECORD).stat().st_mtime))
    return sorted(found, key=lambda item: item[1])


def _folders() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path for path in root().iterdir() if path.is_dir())


def _make_room(keep: Path) -> None:
    """Remove what is damaged, unfinished or too much, the longest unused first, but never ``keep``."""
    known = [artifact for artifact, _ in entries()]
    whole = {artifact.folder for artifact in known}
    for folder in _folders():
        with contextlib.suppress(OSError):
            if folder not in whole and time.time() - folder.stat().st_mtime > STALE:
                _remove(folder)
    total = sum(artifact.size for artifact in known)
    for artifact in known:
        if total <= engine_cache_limit():
            return
        if artifact.folder != keep:
            _remove(artifact.folder)
            total -= artifact.size


def _remove(folder: Path) -> None:
    """Take a folder out of sight at once, then delete it; one that is in use on Windows stays."""
    hidden = folder.with_name(f"{_TEMPORARY}{os.getpid()}-{folder.name}")
    with contextlib.suppress(OSError):
        os.rename(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)
