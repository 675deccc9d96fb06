"""Tokens of clips on the disk and in memory, as 16-bit floats: what an attentive probe learns from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import OutputError, UsageError
from vidcls.inference.feature_store import EmbeddingCache
from vidcls.models.limits import memory
from vidcls.training.probe.fit import Labeled

Half = NDArray[np.float16]


def half(values: NDArray[Any]) -> Half:
    """Numbers as 16-bit floats; none becomes infinite."""
    largest = float(np.finfo(np.float16).max)
    return np.clip(values, -largest, largest).astype(np.float16)


class TokenCache(EmbeddingCache):
    """Tokens (v, n, d) of clips in the cache: the clips of a run fit, or nothing is begun.

    Args:
        folder: See `EmbeddingCache`.
        settings: See `EmbeddingCache`.
        max_bytes: Size of the folder.
        clips: How many clips the run has.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], max_bytes: int, clips: int) -> None:
        super().__init__(folder, settings, max_bytes, np.float16)
        self.folder, self.clips = folder, clips

    def put(self, clip: str | os.PathLike[str], vectors: NDArray[Any]) -> bool:
        """Store the tokens of a clip.

        Raises:
            UsageError: Those of all clips would not fit.
            OutputError: They cannot be written.
        """
        total, allowed = self.clips * vectors.nbytes, self._max_bytes
        if total > allowed:
            problem = f"the tokens of {self.clips} clips take {total / 1e9:.3g} GB, not {allowed / 1e9:.3g}"
            raise UsageError("cache_tokens", problem, "raise it, use fewer views, or probe_kind=linear")
        if not super().put(clip, vectors):
            problem = f"cannot hold {total / 1e9:.3g} GB of tokens"
            raise OutputError(str(self.folder), problem, "make room, or set VIDCLS_CACHE to another folder")
        return True


class Tokens:
    """Tokens of clips by their path: as many in memory as there is room for, the others on the disk.

    Args:
        cache: Has all of them.
        mirrors: The second half of a clip's views are mirrored ones.
    """

    def __init__(self, cache: TokenCache, mirrors: bool) -> None:
        self._cache, self._mirrors = cache, mirrors
        self._room = min(4 << 30, memory() // 8)
        self._held: dict[str, Half] = {}

    def add(self, path: str, tokens: Half) -> None:
        """Hold the tokens (v, n, d) of a clip where there is room."""
        if tokens.nbytes <= self._room:
            self._room -= tokens.nbytes
            self._held[path] = tokens

    def of(self, path: str, own: bool) -> Half:
        """The tokens (v, n, d) of a clip's views.

        Args:
            path: The clip.
            own: Leave mirrored views out.

        Raises:
            OutputError: They are gone from the cache.
        """
        tokens = self._held.get(path)
        if tokens is None:
            tokens = self._cache.get(path)
        if tokens is None:
            problem = f"the tokens of {path} are gone, or the clip was changed"
            raise OutputError(str(self._cache.folder), problem, "run the same command again")
        return tokens[: len(tokens) // 2] if own and self._mirrors else tokens


@dataclass(frozen=True)
class TokenSet(Labeled):
    """Clips whose tokens are known.

    Attributes:
        tokens: Has them.
        paths: The clips.
        ids: See `Labeled`.
        groups: See `Labeled`.
    """

    tokens: Tokens
    paths: tuple[str, ...]
    ids: NDArray[Any]
    groups: NDArray[np.int64]

    def take(self, chosen: NDArray[Any]) -> TokenSet:
        """Some of the clips."""
        paths = tuple(self.paths[index] for index in chosen)
        return TokenSet(self.tokens, paths, self.ids[chosen], self.groups[chosen])

    def drawn(self, chosen: NDArray[Any], rng: np.random.Generator) -> Half:
        """Tokens (b, n, d) of a view of each chosen clip, drawn from all its views."""
        found = [self.tokens.of(self.paths[index], own=False) for index in chosen]
        return np.stack([views[rng.integers(len(views))] for views in found])

    def views(self, index: int) -> Half:
        """Tokens (v, n, d) of the views that a prediction of a clip averages."""
        return self.tokens.of(self.paths[index], own=True)
