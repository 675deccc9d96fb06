"""The inputs of `vidcls score`: sources that can be listed repeatedly, their extra columns, and shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from vidcls.errors import UsageError
from vidcls.video.sources import STDIN, Source, carried_columns, expand


@dataclass(frozen=True)
class Inputs:
    """What the user named; each iteration lists it again.

    Args:
        sources: See `vidcls.video.sources`.
        path_column: Name of a manifest's column of paths; by default one that is called so.
        root: Folder from which relative paths in lists and manifests count; by default the current one.
        recursive: Whether folders are walked down to their leaves.

    Raises:
        UsageError: While iterating: a list or manifest cannot be read.
    """

    sources: tuple[str, ...]
    path_column: str | None = None
    root: str = ""
    recursive: bool = True

    @property
    def repeatable(self) -> bool:
        """Whether they can be listed more than once, which standard input cannot."""
        return not STDIN.intersection(self.sources)

    def __iter__(self) -> Iterator[Source]:
        return expand(self.sources, self.recursive, root=self.root, path_column=self.path_column, strict=True)

    def at_least(self, most: int) -> int | None:
        """Count the clips up to ``most``; None where that would use them up."""
        return sum(1 for _ in islice(self, most)) if self.repeatable else None

    def columns(self) -> dict[str, str]:
        """Return what `vidcls.video.sources.carried_columns` finds; a manifest that cannot be read is an error."""
        return carried_columns(self.sources, self.path_column, strict=True)


def parse_shard(text: str | None) -> tuple[int, int]:
    """Return which part of how many is to be scored, from ``I/N`` with I from 1 to N."""
    if text is None:
        return 1, 1
    first, _, second = text.partition("/")
    short = len(text) < 20
    if short and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UsageError("shard", f"{text[:40]!r} is not I/N", "count from 1: 1/8 … 8/8 (Slurm: --array=1-8)")


def sources_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """Check the sources; standard input can be read only once."""
    if sum(argument in STDIN for argument in arguments) > 1:
        raise UsageError("-", "standard input is named twice", "name it once")
    return tuple(arguments)
