"""Each clip of a probe goes through the frozen model once: what it makes of it is kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls.errors import UsageError, printable
from vidcls.inference.embed import Embedder
from vidcls.inference.feature_store import EmbeddingCache
from vidcls.output.embedding import unpack
from vidcls.output.progress import ProgressBar
from vidcls.score.pipeline import Pipeline
from vidcls.score.setup import Setup
from vidcls.training import logs
from vidcls.training.data.listing import Sample
from vidcls.training.groups import number_groups
from vidcls.training.probe.fit import Embedded
from vidcls.training.probe.tokens import TokenCache, Tokens, TokenSet, half
from vidcls.video.sources import Source


class Embedding:
    """Embeds sets of clips, by the cache where it has them; a clip that cannot be read is left out and reported.

    Args:
        embedder: The frozen model; it gives vectors of views, or all their tokens.
        cache: A `TokenCache` for tokens.
        bad: Takes the clips that cannot be read.
        workers: Decoders; None: by the machine.
        quiet: No bar.
    """

    def __init__(
        self,
        embedder: Embedder,
        cache: EmbeddingCache,
        bad: logs.BadClips,
        workers: int | None = None,
        quiet: bool = False,
    ) -> None:
        self.embedder, self.cache, self.bad = embedder, cache, bad
        self.setup = Setup(workers=None if workers is None else max(1, workers))
        self.quiet, self.mirrors = quiet, embedder.request.mirrored
        self.made = self.found = 0
        self._counted: set[str] = set()  # a clip may be in several sets

    def vectors(self, samples: Sequence[Sample], ids: NDArray[Any], what: str) -> Embedded:
        """Vectors of all clips that can be read; errors as for `_readable`."""
        found: dict[str, NDArray[np.float32]] = {}
        kept = self._readable(samples, what, found.__setitem__)
        views = np.stack([found[samples[index].path] for index in kept])
        own = views.shape[1] // 2 if self.mirrors else views.shape[1]
        return Embedded(views[:, :own], views[:, own:], ids[kept], _groups(samples, kept))

    def tokens(self, samples: Sequence[Sample], ids: NDArray[Any], what: str) -> TokenSet:
        """Tokens of all clips that can be read, in memory as far as there is room; errors as for `_readable`.

        Raises:
            OutputError: The cache cannot be written.
        """
        assert isinstance(self.cache, TokenCache)
        store = Tokens(self.cache, self.mirrors)
        kept = self._readable(samples, what, store.add)
        paths = tuple(samples[index].path for index in kept)
        return TokenSet(store, paths, ids[kept], _groups(samples, kept))

    def _readable(
        self, samples: Sequence[Sample], what: str, take: Callable[[str, NDArray[Any]], None]
    ) -> list[int]:
        """Hand out what the model makes of each clip, and return the numbers of the clips that can be read.

        Raises:
            UsageError: None can.
        """
        readable = set()
        paths = list(dict.fromkeys(sample.path for sample in samples))
        with ProgressBar(f"embedding {what}", len(paths), unit="clips", shown=not self.quiet) as bar:
            for number, (path, found) in enumerate(self._each(paths), 1):
                if found is not None:
                    readable.add(path)
                    take(path, found)
                bar.update(number)
        kept = [index for index, sample in enumerate(samples) if sample.path in readable]
        if not kept:
            raise UsageError("data", f"none of the {len(samples)} {what} can be read", "check the files")
        return kept

    def _each(self, paths: Sequence[str]) -> Iterator[tuple[str, NDArray[Any] | None]]:
        """Yield each clip and what is made of its views, mirrored ones behind the others; None for one that failed."""
        missing = []
        for path in paths:
            stored = self.cache.get(path)
            if stored is None:
                missing.append(Source(path, path))
                continue
            self.found += path not in self._counted
            self._counted.add(path)
            yield path, stored
        if not missing:
            return
        pipeline = Pipeline(self.embedder, self.setup, {})
        for result in pipeline.run(missing):
            if result is None:
                continue
            if result.kind is not None:
                problem = str(result.row["error"]).removeprefix(f"{printable(result.item.path)}: ")
                self.bad.add(((result.item.path, f"{problem} ({result.kind})"),))
                yield result.item.path, None
                continue
            made = result.row["vector"]
            found = half(made) if isinstance(self.cache, TokenCache) else unpack(made)
            self.cache.put(result.item.path, found)
            self.made += 1
            self._counted.add(result.item.path)
            yield result.item.path, found


def _groups(samples: Sequence[Sample], kept: Sequence[int]) -> NDArray[np.int64]:
    return number_groups([samples[index].path for index in kept], [samples[index].group for index in kept])
