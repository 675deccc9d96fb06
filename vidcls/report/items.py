"""What a page shows of one clip, from a row that may come from a stranger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vidcls.output.row import COLUMNS

T = TypeVar("T")
LARGEST = 1e15  # of numbers that make sense in a row


@dataclass(frozen=True)
class Item:
    """One clip.

    Attributes:
        path: The clip, as it was named.
        model: Name of the model.
        views: Views in time.
        crops: Crops of each view.
        num_frames: Frames of a view; None: every frame of the file.
        stride: Frames from one to the next, at the model's rate.
        fps: Frame rate of the file in 1/s.
        duration: Length in seconds.
        top: The best labels and their scores, best first.
        indices: Their class ids.
        warnings: What the user should know about it.
        error: Why it could not be scored.
        error_kind: The same in a word.
        seconds: Time spent on it.
        extra: Columns that a manifest brought along.
        truth: Its labels in the evaluated set, usually one; None outside an evaluation.
    """

    path: str
    model: str = ""
    views: int = 1
    crops: int = 1
    num_frames: int | None = None
    stride: int = 1
    fps: float | None = None
    duration: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    indices: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    error_kind: str | None = None
    seconds: float | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    truth: tuple[str, ...] | None = None

    @property
    def label(self) -> str | None:
        """The best label."""
        return self.top[0][0] if self.top else None

    @property
    def wrong(self) -> bool:
        """Whether its best label is not a true one."""
        return self.truth is not None and self.label is not None and self.label not in self.truth


def item_of(row: Mapping[str, Any]) -> Item:
    """Return the item of a row as `vidcls predict` and `vidcls score` write it.

    Raises:
        ValueError: The row is not one of theirs; the message says which column.
    """
    ranked: list[Any] = get(row, "predictions", list, [])
    if get(row, "path", str, None) is None:
        raise ValueError("it has no path")
    if "vector" in row:
        raise ValueError("it has a vector and no scores; `vidcls search` shows such files")
    return Item(
        path=row["path"],
        model=get(row, "model", str, ""),
        views=get(row, "views", int, 1),
        crops=get(row, "crops", int, 1),
        num_frames=get(row, "frames", int, None),
        stride=get(row, "stride", int, 1),
        fps=number(row, "fps"),
        duration=number(row, "duration"),
        top=tuple(map(label_of, ranked)),
        indices=tuple(get(one, "index", int, -1) for one in ranked),
        warnings=tuple(str(one) for one in get(row, "warnings", list, [])),
        error=get(row, "error", str, None),
        error_kind=get(row, "error_kind", str, None),
        seconds=number(row, "seconds"),
        extra={str(name): str(row[name]) for name in row if name not in COLUMNS and row[name] is not None},
    )


def label_of(ranked: Any) -> tuple[str, float]:
    """Return the label and the score, 0 to 1, of a prediction or segment."""
    return get(ranked, "label", str, ""), min(max(number(ranked, "score") or 0.0, 0.0), 1.0)


def get(row: Any, name: str, kind: type[Any], default: T) -> Any | T:
    """Return a value of a row, or the default where it has none.

    Raises:
        ValueError: It is of another kind, or the row is not a mapping.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{repr(row)[:60]} stands where something with {name} should")
    value = row.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {repr(value)[:60]}")
    return value


def number(row: Any, name: str) -> float | None:
    """Return a number of a row; None where it has none, or one that no float can hold."""
    value = get(row, name, (int, float), None)  # type: ignore[arg-type]
    return float(value) if value is not None and abs(value) <= LARGEST and math.isfinite(value) else None
