"""Features of frames and vectors of clips, kept from one run to the next: one safetensors file for each clip.

A file is found again by what made it: the clip (path, size and time of change), the weights' checksum, the way frames
become pixels, and what ran the model. It may hold some of a clip's frames only, as after a run that was broken off.
Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import OutputError
from vidcls.paths import replacing
from vidcls.video.reader import VideoInfo
from vidcls.video.span import split_span

KEY = "vidcls_features"
VERSION = 1
SUFFIX = ".safetensors"
CACHE_BYTES = 1 << 30  # of embeddings that are kept: 300,000 clips of four views with ViT-B
PRUNE_EVERY = 256  # clips stored, from one look at the cache's size to the next

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of a clip's frames.

    Attributes:
        indices: (n,) int64 their numbers in the file, sorted, each once.
        values: (crops, n, d) float32.
        info: The file's metadata.
        decoder: What decoded the frames; empty where nothing was decoded yet.
        warnings: What the user should know about the decoding.
    """

    indices: NDArray[np.int64]
    values: Floats
    info: VideoInfo
    decoder: str
    warnings: tuple[str, ...]

    def joined(self, other: Features) -> Features:
        """Return the features of both, which have no frame in common."""
        if not len(self.indices) or not len(other.indices):
            return self if len(self.indices) else other
        indices = np.concatenate([self.indices, other.indices])
        values = np.concatenate([self.values, other.values], axis=1)
        if self.indices[-1] > other.indices[0]:
            order = np.argsort(indices)
            indices, values = indices[order], values[:, order]
        warnings = tuple(dict.fromkeys((*self.warnings, *other.warnings)))
        return Features(indices, values, other.info, other.decoder, warnings)


def clip_identity(clip: str | os.PathLike[str] | bytes, temporary: bool = False) -> dict[str, Any]:
    """Return what identifies a clip: path, size in bytes and time of change in ns; or the checksum of what has no path.

    Args:
        clip: A file, or a clip's bytes.
        temporary: The file is a download that has another name each time.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(clip, bytes):
        return {"sha256": hashlib.sha256(clip).hexdigest()}
    if temporary:
        digest = hashlib.sha256()
        with open(clip, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return {"sha256": digest.hexdigest()}
    status = os.stat(split_span(os.fspath(clip))[0])
    return {"path": os.path.abspath(clip), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


class ClipStore:
    """A folder of tensors, one safetensors file for each clip.

    Args:
        folder: Made when something is stored.
        settings: All but the clip that the tensors depend on, as JSON can hold it.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self._settings = json.loads(json.dumps({"version": VERSION, **settings}))

    def path(self, clip: dict[str, Any]) -> Path:
        """The file for a clip, which need not exist; its name starts with the clip's for people."""
        record = json.dumps([self._settings, clip], sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(record.encode()).hexdigest()[:32]
        stem = Path(clip.get("path", "")).stem
        readable = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem)[:40]
        return self.folder / f"{readable or 'clip'}-{digest}{SUFFIX}"

    def read(self, clip: dict[str, Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Return the tensors of a clip and what was noted of them; None for nothing, or a file that cannot be used."""
        from safetensors import SafetensorError, safe_open

        path = self.path(clip)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "np") as file:
                record = json.loads((file.metadata() or {}).get(KEY, "null"))
                if record["settings"] != self._settings or record["clip"] != clip:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, clip: dict[str, Any], tensors: dict[str, NDArray[Any]], **notes: Any) -> None:
        """Store a clip's tensors; the file appears whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        from safetensors.numpy import save_file

        record = {"settings": self._settings, "clip": clip, **notes}
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.path(clip)) as temporary:
            arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
            save_file(arrays, temporary, {KEY: json.dumps(record)})


class EmbeddingCache:
    """Vectors of clips in the cache, found again by all that made them; the oldest go when there are too many.

    Args:
        folder: Holds them, whatever their settings.
        settings: All but the clip that a vector depends on.
        max_bytes: Size of the folder; it may be larger until so many vectors more have been stored as `PRUNE_EVERY`
            says, or a hundredth of this size.
        dtype: Of the vectors on the disk.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], max_bytes: int = CACHE_BYTES, dtype: Any = np.float32
    ) -> None:
        self._store = ClipStore(folder, settings)
        self._max_bytes, self._dtype = max_bytes, np.dtype(dtype)
        self._puts, self._bytes = 0, 0

    def path(self, clip: str | os.PathLike[str]) -> Path:
        """The file for a clip, which need not exist.

        Raises:
            OSError: The clip's file cannot be looked at.
        """
        return self._store.path(clip_identity(clip))

    def get(self, clip: str | os.PathLike[str]) -> NDArray[Any] | None:
        """The vectors, (n, d) or (v, n, d), of a clip; None where there are none, or the file is damaged."""
        try:
            found = self._store.read(clip_identity(clip))
            if found is None:
                return None
            os.utime(self.path(clip))  # those that are used stay
        except OSError:
            return None
        vectors = found[0].get("vectors")
        if vectors is None or vectors.ndim not in (2, 3) or vectors.dtype != self._dtype:
            return None
        return vectors if np.isfinite(vectors).all() else None

    def put(self, clip: str | os.PathLike[str], vectors: NDArray[Any]) -> bool:
        """Store the vectors of a clip; a folder that cannot be written costs only the time saved.

        Returns:
            Whether they were stored.
        """
        try:
            self._store.write(clip_identity(clip), {"vectors": vectors})
            self._puts, self._bytes = self._puts + 1, self._bytes + vectors.nbytes
            if self._puts % PRUNE_EVERY == 1 or self._bytes > self._max_bytes / 100:
                self._bytes = 0
                self.prune()
        except OSError:
            return False
        return True

    def prune(self) -> None:
        """Delete the files that were used least lately, until the others fit."""
        found = [(path.stat(), path) for path in self._store.folder.glob(f"*{SUFFIX}")]
        room = self._max_bytes
        for status, path in sorted(found, key=lambda pair: -pair[0].st_mtime_ns):
            room -= status.st_size
            if room < 0:
                path.unlink(missing_ok=True)


class FeatureStore:
    """A folder of features.

    Args:
        folder: Made where it is missing.
        settings: All but the clip that the features depend on, as JSON can hold it.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self._store = ClipStore(folder, settings)
        self.folder, self.path = self._store.folder, self._store.path
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def get(self, clip: dict[str, Any]) -> Features | None:
        """Return what is stored of a clip; None for nothing, or for a file that cannot be used."""
        stored = self._store.read(clip)
        if stored is None:
            return None
        tensors, record = stored
        try:
            info = VideoInfo(
                timestamps=tensors["timestamps"],
                **{**record["info"], "warnings": tuple(record["info"]["warnings"])},
            )
            warnings = tuple(record["warnings"])
            found = Features(tensors["indices"], tensors["features"], info, record["decoder"], warnings)
            return found if _sound(found) else None
        except (ValueError, TypeError, KeyError):
            return None

    def put(self, clip: dict[str, Any], features: Features) -> None:
        """Store a clip's features; the file appears whole or not at all."""
        info = {f.name: getattr(features.info, f.name) for f in fields(VideoInfo) if f.name != "timestamps"}
        tensors: dict[str, NDArray[Any]] = {
            "indices": features.indices,
            "features": features.values,
            "timestamps": features.info.timestamps,
        }
        try:
            self._store.write(clip, tensors, info=info, decoder=features.decoder, warnings=features.warnings)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(str(self.folder), f"cannot hold features ({reason})", "name another folder")


def _sound(features: Features) -> bool:
    """Whether arrays from a file fit each other."""
    indices, values, times = features.indices, features.values, features.info.timestamps
    return (
        (indices.ndim, values.ndim, times.ndim) == (1, 3, 1)
        and indices.dtype == np.int64
        and values.dtype == np.float32
        and times.dtype == np.float64
        and values.shape[1] == len(indices) > 0
        and len(times) == features.info.num_frames
        and bool((np.diff(indices) > 0).all())
        and indices[0] >= 0
        and indices[-1] < len(times)
    )
