"""Resized frames on the disk, so that epochs after the first do not decode; bounded, and each frame has a checksum.

A clip is two files, found again by what made them: the video (path, size, time of change) and the way frames become
pictures. ``NAME.npy`` holds the pictures as an array, of which an epoch reads only those that it wants, and
``NAME.json``, written last, its own CRC-32, what is known of the video and the CRC-32 of each picture. Imports no
torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import VideoError
from vidcls.inference.feature_store import clip_identity
from vidcls.paths import locked, put_in_place, temporary_path, write_text
from vidcls.video.reader import Frames, VideoInfo

VERSION = 1
LARGEST = 4  # a clip may take this part of the cache
HEADER = 128  # bytes of a .npy file before its pictures
SIZE = "size"


@dataclass(frozen=True)
class CachedClip:
    """The stored pictures of one clip.

    Attributes:
        info: What is known of the video.
        indices: (n,) numbers of the frames that are stored, sorted.
        checksums: (n,) CRC-32 of each picture.
        pictures: (n, h, w, 3), on the disk.
    """

    info: VideoInfo
    indices: NDArray[np.int64]
    checksums: NDArray[np.int64]
    pictures: NDArray[Any]

    def read(self, wanted: NDArray[np.int64]) -> Frames | None:
        """The frames of these numbers, each once and sorted; None where one is missing or damaged."""
        unique = np.unique(wanted)
        places = np.searchsorted(self.indices, unique)
        if places[-1] >= len(self.indices) or not np.array_equal(self.indices[places], unique):
            return None
        found = np.ascontiguousarray(self.pictures[places])
        if any(_checksum(found[i]) != self.checksums[place] for i, place in enumerate(places)):
            return None
        return Frames(found, unique, "cache")


class FrameCache:
    """A folder of pictures, of bounded size; clips that no longer fit are decoded in each epoch.

    What other runs left goes, the least lately used first, where a clip needs the room.

    Args:
        folder: Made where it is missing.
        max_bytes: Of all that is in it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.began = time.time()
        self._old: list[Path] | None = None

    def prepare(self) -> None:
        """Make the folder, drop what a killed run left half written, and count what is there.

        Raises:
            OSError: It cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / SIZE):
            for path in self.folder.glob("*.npy"):
                if not path.with_suffix(".json").exists() and path.stat().st_mtime < self.began - 3600:
                    path.unlink(missing_ok=True)
            write_text(
                self.folder / SIZE, str(sum(path.stat().st_size for path in self.folder.glob("*.npy")))
            )

    def get(self, clip: str, transform: Any) -> CachedClip | None:
        """The stored pictures of a clip; None where there are none that can be used."""
        try:
            name = self._name(clip, transform)
            checksum, _, text = (self.folder / f"{name}.json").read_text(encoding="utf-8").partition("\n")
            if checksum != str(zlib.crc32(text.encode())):
                return None
            record = json.loads(text)
            pictures = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            os.utime(self.folder / f"{name}.json")  # clips that are used stay
            known = {**record["info"], "warnings": tuple(record["info"]["warnings"]), "path": clip}
            info = VideoInfo(**{**known, "timestamps": np.array(record["timestamps"], np.float64)})
            found = CachedClip(info, np.array(record["indices"]), np.array(record["checksums"]), pictures)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        sound = pictures.ndim == 4 and len(pictures) == len(found.indices) == len(found.checksums) > 0
        return found if sound and len(info.timestamps) == info.num_frames else None

    def put(
        self, clip: str, transform: Any, info: VideoInfo, indices: NDArray[np.int64], pieces: Iterable[Frames]
    ) -> CachedClip | None:
        """Store the pictures of a clip.

        Args:
            clip: The video.
            transform: What made pictures of its frames; a dataclass of plain values.
            info: What is known of the video.
            indices: Numbers of the frames, sorted.
            pieces: The frames in order, some at a time.

        Returns:
            What was stored; None where it does not fit, cannot be written, or not all frames can be decoded.
        """
        try:
            name = self._name(clip, transform)
            with contextlib.suppress(VideoError):
                if self._put(name, info, indices, pieces):
                    return self.get(clip, transform)
        except OSError:
            pass
        return None

    def _put(self, name: str, info: VideoInfo, indices: NDArray[np.int64], pieces: Iterable[Frames]) -> bool:
        temporary = temporary_path(self.folder / f"{name}.npy")
        pieces = iter(pieces)
        first = next(pieces)
        try:
            size = first.frames[0].nbytes * len(indices) + HEADER
            if not self._take_room(size):
                return False
            kept = False
            try:
                checksums = _write_pictures(temporary, indices, itertools.chain([first], pieces))
                if checksums is not None:
                    target = self.folder / f"{name}.npy"
                    self._give_back(target.stat().st_size if target.exists() else 0)
                    put_in_place(temporary, target)
                    self._write_record(name, info, indices, checksums)
                    kept = True
            finally:
                if not kept:
                    self._give_back(size)
            return kept
        finally:
            temporary.unlink(missing_ok=True)

    def _write_record(
        self, name: str, info: VideoInfo, indices: NDArray[np.int64], checksums: list[int]
    ) -> None:
        known = {key: value for key, value in asdict(info).items() if key not in ("timestamps", "path")}
        record = {
            "info": known,
            "timestamps": info.timestamps.tolist(),
            "indices": indices.tolist(),
            "checksums": checksums,
        }
        text = json.dumps(record)
        write_text(self.folder / f"{name}.json", f"{zlib.crc32(text.encode())}\n{text}")

    def _take_room(self, size: int) -> bool:
        """Take room for a clip, by deleting what other runs used last if need be."""
        if size > self.max_bytes / LARGEST:
            return False
        with locked(self.folder / SIZE):
            total = self._total()
            while total + size > self.max_bytes:
                freed = self._drop_oldest()
                if not freed:
                    return False
                total -= freed
                write_text(self.folder / SIZE, str(total))
            write_text(self.folder / SIZE, str(total + size))
        return True

    def _give_back(self, size: int) -> None:
        if size:
            with locked(self.folder / SIZE):
                write_text(self.folder / SIZE, str(max(0, self._total() - size)))

    def _total(self) -> int:
        try:
            return int((self.folder / SIZE).read_text())
        except (OSError, ValueError):
            return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def _drop_oldest(self) -> int:
        """Delete the clip that was used least lately and not since this run began; return its bytes, or 0."""
        if self._old is None:
            times = {path: path.stat().st_mtime for path in self.folder.glob("*.json")}
            self._old = sorted((path for path in times if times[path] < self.began), key=lambda p: -times[p])
        while self._old:
            path = self._old.pop()
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < self.began:
                    pictures = path.with_suffix(".npy")
                    size = pictures.stat().st_size
                    path.unlink()
                    pictures.unlink()
                    return size
        return 0

    def _name(self, clip: str, transform: Any) -> str:
        record = [VERSION, clip_identity(clip), type(transform).__name__, asdict(transform)]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def _write_pictures(path: Path, indices: NDArray[np.int64], pieces: Iterable[Frames]) -> list[int] | None:
    """Write the pictures of the frames ``indices`` and return their checksums; None where one is missing."""
    checksums: list[int] = []
    array: NDArray[Any] | None = None
    for piece in pieces:
        pictures = np.ascontiguousarray(piece.frames)
        if array is None:
            shape = (len(indices), *pictures.shape[1:])
            array = np.lib.format.open_memmap(path, "w+", pictures.dtype, shape)
        first = len(checksums)
        if not np.array_equal(piece.indices, indices[first : first + len(pictures)]):
            return None
        array[first : first + len(pictures)] = pictures
        checksums += [_checksum(picture) for picture in pictures]
    return checksums if len(checksums) == len(indices) else None


def _checksum(picture: NDArray[Any]) -> int:
    return zlib.crc32(picture.tobytes())


def read_through(
    cache: FrameCache | None,
    clip: str,
    transform: Any,
    reader: Any,
    choose: Callable[[VideoInfo], NDArray[np.int64]],
    whole: bool,
) -> tuple[Frames, NDArray[np.int64]]:
    """Read frames of a clip, from the cache where it has them.

    Args:
        cache: Where to look and to store; None for nowhere.
        clip: The video.
        transform: What makes pictures of its frames.
        reader: A `VideoReader`.
        choose: Which frames are wanted, by what is known of the video.
        whole: Store all frames, since others are wanted the next time.

    Returns:
        The frames, and the numbers that were chosen.

    Raises:
        VideoError: It cannot be read.
    """
    stored, wanted = None if cache is None else cache.get(clip, transform), None
    if stored is not None:
        wanted = choose(stored.info)
        found = stored.read(wanted)
        if found is not None:
            return found, wanted
    info = reader.open(clip)
    wanted = choose(info) if wanted is None else wanted  # a choice is drawn once
    if cache is not None:
        kept = np.arange(info.num_frames) if whole else np.unique(wanted)
        with contextlib.closing(reader.stream(kept, transform)) as pieces:
            stored = cache.put(clip, transform, info, kept, pieces)
        found = None if stored is None else stored.read(wanted)
        if found is not None:
            return found, wanted
    return reader.read(wanted, transform), wanted
