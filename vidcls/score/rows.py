"""Results of scoring, as they are handed on and as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidcls.errors import InputError
from vidcls.output.text import json_text
from vidcls.output.writers import ROW_KEYS, csv_text
from vidcls.score.listing import Item


@dataclass(frozen=True)
class Result:
    """One clip done.

    Attributes:
        item: The clip.
        row: What is written of it: `vidcls predict`'s row, ``error_kind``, ``seconds``, ``scores`` if asked for, and
            the columns carried through from a manifest.
        kind: Why it failed, in a word; None when it was scored.
        video_seconds: How much of video it was.
    """

    item: Item
    row: dict[str, Any]
    kind: str | None = None
    video_seconds: float = 0.0


def finish(
    item: Item,
    row: Mapping[str, Any],
    *,
    seconds: float,
    error: InputError | None = None,
    scores: list[float] | None = None,
) -> Result:
    """Complete a row of `vidcls predict` by what scoring adds to it."""
    full = {**row, "error_kind": None if error is None else error.kind, "seconds": round(seconds, 6)}
    if scores is not None:
        full["scores"] = scores
    full.update(item.columns)
    return Result(item, full, full["error_kind"], row.get("duration") or 0.0)


class JsonLines:
    """One object a line."""

    header = ""

    def text(self, row: Mapping[str, Any]) -> str:
        """Return the row's line."""
        return json_text(row) + "\n"


class CsvLines:
    """One line a clip: the top predictions side by side, the whole vector of scores as JSON.

    Args:
        top_k: How many predictions a row has.
        all_scores: Whether rows have all scores.
        columns: Names of the carried columns.
    """

    def __init__(self, top_k: int, all_scores: bool, columns: tuple[str, ...]) -> None:
        self._top_k = top_k
        self._all_scores = all_scores
        self._columns = columns
        self.header = csv_text([self.names()])

    def names(self) -> list[str]:
        """Return the names of all columns."""
        ranked = [
            f"{key}_{rank}" for rank in range(1, self._top_k + 1) for key in ("index", "label", "score")
        ]
        tail = ["warnings", "error", "error_kind", "seconds", *(["scores"] if self._all_scores else [])]
        return [*ROW_KEYS, *ranked, *tail, *self._columns]

    def text(self, row: Mapping[str, Any]) -> str:
        """Return the row's line."""
        cells = [row.get(key) for key in ROW_KEYS]
        predictions = list(row["predictions"][: self._top_k])
        for prediction in predictions + [{}] * (self._top_k - len(predictions)):
            cells += [prediction.get(key) for key in ("index", "label", "score")]
        cells += ["; ".join(row["warnings"]), row["error"], row["error_kind"], row["seconds"]]
        if self._all_scores:
            scores = row.get("scores")
            cells.append(None if scores is None else json_text({"scores": scores})[len('{"scores": ') : -1])
        cells += [row.get(name) for name in self._columns]
        return csv_text([cells])
