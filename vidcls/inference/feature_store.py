"""Features of single frames, kept in a folder from one run to the next: one safetensors file for each clip.

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

KEY = "vidcls_features"
VERSION = 1
SUFFIX = ".safetensors"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of a clip's frames.

    Attributes:
        indices: (n,) int64 their numbers in the file, sorted, each once.
        values: (crops, n, d) float32.
        info: The file's metadata.
        decoder: What decoded the frames; empty where nothing was decoded yet.
        warnings: What a person should know about the decoding.
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
    status = os.stat(clip)
    return {"path": os.path.abspath(clip), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


class FeatureStore:
    """A folder of features.

    Args:
        folder: Made where it is missing.
        settings: All but the clip that the features depend on, as JSON can hold it.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self._settings = json.loads(json.dumps({"version": VERSION, **settings}))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def path(self, clip: dict[str, Any]) -> Path:
        """The file for a clip, which need not exist; its name starts with the clip's for people."""
        record = json.dumps([self._settings, clip], sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(record.encode()).hexdigest()[:32]
        stem = Path(clip.get("path", "")).stem
        readable = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem)[:40]
        return self.folder / f"{readable or 'clip'}-{digest}{SUFFIX}"

    def get(self, clip: dict[str, Any]) -> Features | None:
        """Return what is stored of a clip; None for nothing, or for a file that cannot be used."""
        from safetensors import SafetensorError, safe_open

        path = self.path(clip)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "np") as file:
                record = json.loads((file.metadata() or {}).get(KEY, "null"))
                if record["settings"] != self._settings or record["clip"] != clip:
                    return None
                indices, values = file.get_tensor("indices"), file.get_tensor("features")
                info = VideoInfo(
                    timestamps=file.get_tensor("timestamps"),
                    **{**record["info"], "warnings": tuple(record["info"]["warnings"])},
                )
                found = Features(indices, values, info, record["decoder"], tuple(record["warnings"]))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return found if _sound(found) else None

    def put(self, clip: dict[str, Any], features: Features) -> None:
        """Store a clip's features; the file appears whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        from safetensors.numpy import save_file

        info = {f.name: getattr(features.info, f.name) for f in fields(VideoInfo) if f.name != "timestamps"}
        record = {
            "settings": self._settings,
            "clip": clip,
            "info": info,
            "decoder": features.decoder,
            "warnings": features.warnings,
        }
        tensors: dict[str, NDArray[Any]] = {
            "indices": features.indices,
            "features": np.ascontiguousarray(features.values),
            "timestamps": np.ascontiguousarray(features.info.timestamps),
        }
        try:
            with replacing(self.path(clip)) as temporary:
                save_file(tensors, temporary, {KEY: json.dumps(record)})
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
