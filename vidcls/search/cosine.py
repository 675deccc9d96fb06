"""Exact search by the cosine of the angle between vectors, in blocks: memory does not grow with the collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidcls.search.vectors import Floats, Indices, Place, VectorFile, unit

Progress = Callable[[int, int], None]  # rows compared, rows in all
PAIR_ROWS = 1024  # rows of a block that are compared with those of another at once


@dataclass(frozen=True)
class Hit:
    """One vector that was found.

    Attributes:
        score: Cosine, -1 to 1.
        place: What it is of.
        file: Which of the files it is in.
    """

    score: float
    place: Place
    file: str


def nearest(
    query: Floats, files: Sequence[VectorFile], k: int = 10, progress: Progress | None = None
) -> list[Hit]:
    """Find the ``k`` vectors nearest to a query (d,), best first; equals stay in the files' order."""
    wanted = unit(query.reshape(1, -1).astype(np.float32, copy=False))[0]
    scores, files_of, rows_of = np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    total, done = sum(file.rows for file in files), 0
    for number, file in enumerate(files):
        for rows, vectors in file.blocks():
            found = vectors @ wanted
            scores = np.concatenate([scores, found])
            rows_of = np.concatenate([rows_of, rows])
            files_of = np.concatenate([files_of, np.full(len(rows), number)])
            best = np.argsort(-scores, kind="stable")[:k]
            scores, rows_of, files_of = scores[best], rows_of[best], files_of[best]
            done += len(rows)
            if progress is not None:
                progress(done, total)
    return _hits(scores, files_of, rows_of, files)


def _hits(scores: Floats, files_of: Indices, rows_of: Indices, files: Sequence[VectorFile]) -> list[Hit]:
    places: dict[tuple[int, int], Place] = {}
    for number, file in enumerate(files):
        wanted = np.sort(rows_of[files_of == number])
        if len(wanted):
            places.update({(number, row): place for row, place in file.places(wanted)})
    keys = zip(files_of.tolist(), rows_of.tolist(), strict=True)
    return [
        Hit(float(score), places[key], str(files[key[0]].path))
        for score, key in zip(scores, keys, strict=True)
    ]


@dataclass(frozen=True)
class Member:
    """One clip of a group of near duplicates.

    Attributes:
        path: The clip.
        score: The highest cosine of a vector of it to one of another clip.
    """

    path: str
    score: float


def duplicates(
    files: Sequence[VectorFile], threshold: float, progress: Progress | None = None
) -> list[list[Member]]:
    """Find groups of near duplicates: clips that are joined by pairs of vectors at or above ``threshold``.

    Vectors of one clip are never a pair. All pairs are compared, so that the cost grows with the square of the number
    of vectors: 2 · 10¹⁰ multiply-adds for 5,000 of length 768, 8 · 10¹⁴ for a million. Groups and their
    members are sorted by path.
    """
    paths, clips = _clips(files)
    labels = np.arange(len(paths))
    best = np.full(len(paths), -np.inf, np.float32)
    total, done = len(clips), 0
    for rows, vectors in _pieces(files):
        for others, passing in _from(files, int(rows[0])):
            mine, theirs, values = _pairs(vectors, passing, clips[rows], clips[others], threshold)
            np.maximum.at(best, mine, values)
            np.maximum.at(best, theirs, values)
            labels = _joined(labels, mine, theirs)
        done += len(rows)
        if progress is not None:
            progress(done, total)
    return _groups(labels, best, paths)


def _clips(files: Sequence[VectorFile]) -> tuple[list[str], Indices]:
    """All clips, and which of them each row is of."""
    numbers: dict[str, int] = {}
    clips = [numbers.setdefault(place.path, len(numbers)) for file in files for _, place in file.places()]
    return list(numbers), np.array(clips, np.int64)


def _pieces(files: Sequence[VectorFile]) -> Iterator[tuple[Indices, Floats]]:
    """Yield the blocks of all files, the rows counted through; those without vectors are left out."""
    start = 0
    for file in files:
        for rows, vectors in file.blocks():
            if len(rows):
                yield start + rows, vectors
        start += file.rows


def _from(files: Sequence[VectorFile], first: int) -> Iterator[tuple[Indices, Floats]]:
    """Yield the blocks from the one that begins with row ``first`` on."""
    return ((rows, vectors) for rows, vectors in _pieces(files) if rows[0] >= first)


def _pairs(
    left: Floats, right: Floats, left_clips: Indices, right_clips: Indices, threshold: float
) -> tuple[Indices, Indices, Floats]:
    """Pairs of clips (m,), (m,) with vectors at least so alike, and how much (m,); a few rows at a time."""
    found = []
    for start in range(0, len(left), PAIR_ROWS):
        part = slice(start, start + PAIR_ROWS)
        similar = left[part] @ right.T
        first, second = np.nonzero(similar >= threshold)
        mine, theirs = left_clips[part][first], right_clips[second]
        apart = mine != theirs
        found.append((mine[apart], theirs[apart], similar[first[apart], second[apart]]))
    mine, theirs, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return mine, theirs, values


def _joined(labels: Indices, first: Indices, second: Indices) -> Indices:
    """Give all that pairs (first, second) join the smallest label among them."""
    while True:
        a, b = labels[first], labels[second]
        if np.array_equal(a, b):
            return labels
        low = np.minimum(a, b)
        np.minimum.at(labels, a, low)
        np.minimum.at(labels, b, low)
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]


def _groups(labels: Indices, best: Floats, paths: Sequence[str]) -> list[list[Member]]:
    groups: dict[int, list[Member]] = {}
    for clip in np.flatnonzero(np.isfinite(best)).tolist():
        groups.setdefault(int(labels[clip]), []).append(Member(paths[clip], float(best[clip])))
    return sorted(
        (sorted(group, key=lambda member: member.path) for group in groups.values()),
        key=lambda group: group[0].path,
    )
