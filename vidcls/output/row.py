"""One clip's result: every format's columns, and the names that a manifest must not use, follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, ClassVar


def column(about: str, *, scored: bool = False, asked: bool = False, **default: Any) -> Any:
    """Declare a column: what it holds, for people, whether only `vidcls score` writes it, and only where asked to."""
    return field(metadata={"about": about, "scored": scored, "asked": asked}, **default)


@dataclass(frozen=True, kw_only=True)
class RankedLabel:
    """One of the best labels of a clip."""

    rank: int
    index: int
    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is written of one clip; ``docs/predict.md`` has the same as a table.

    Attributes: see each field's ``about``.
    """

    path: str = column("the clip, as it was named")
    model: str = column("name of the model")
    weights: str = column("where its weights come from")
    views: int = column("views in time that the scores are averaged over")
    crops: int = column("crops of each view")
    frames: int | None = column("frames of a view")
    stride: int = column("frames from one to the next, at the model's rate")
    fps: float | None = column("frame rate of the file, frames a second", default=None)
    duration: float | None = column("length of the file, seconds", default=None)
    decoder: str | None = column("what decoded it: `decord` or `pyav`", default=None)
    predictions: list[RankedLabel] = column(
        "the best labels: `rank`, `index` of the class, `label`, `score`", default_factory=list
    )
    warnings: list[str] = column("what the user should know about the clip", default_factory=list)
    error: str | None = column("why it could not be scored; then it has no predictions", default=None)
    error_kind: str | None = column("the error in one word, to count by", default=None, scored=True)
    seconds: float | None = column("time spent on the clip", default=None, scored=True)
    scores: list[float] | None = column(
        "of all classes, with `--all-scores`", default=None, scored=True, asked=True
    )
    views_used: int | None = column(
        "views, in time × crops, that were scored, with `--views auto`", default=None, asked=True
    )

    def to_dict(self) -> dict[str, Any]:
        """The row as `vidcls predict` writes it, in plain values."""
        return {name: value for name, value in asdict(self).items() if name in PREDICT_NAMES}


COLUMNS: dict[str, Field[Any]] = {column.name: column for column in fields(Row)}
RANKED: tuple[str, ...] = tuple(column.name for column in fields(RankedLabel))
PREDICT_NAMES = tuple(
    name for name, c in COLUMNS.items() if not (c.metadata["scored"] or c.metadata["asked"])
)
SCORES, VIEWS_USED = (name for name, column in COLUMNS.items() if column.metadata["asked"])
_SIDE_BY_SIDE = re.compile(rf"({'|'.join(RANKED[1:])})_[0-9]+")


def is_reserved(name: str) -> bool:
    """Whether results have a column of this name in several formats: ``seconds``, ``label_1``."""
    return name in COLUMNS or _SIDE_BY_SIDE.fullmatch(name) is not None


@dataclass(frozen=True)
class Layout:
    """Which columns an output has; by default those of `vidcls predict`.

    Attributes:
        scored: Whether it has the columns that only `vidcls score` writes.
        wide: Predictions of a row at most, where a flat format shall put them side by side; None: one line for each.
        all_scores: Whether rows have the scores of all classes.
        auto_views: Whether rows say how many views were scored.
        carried: Columns that a manifest brought along, and their types: ``int``, ``float``, ``bool`` or ``str``.
        settings: What the rows depend on, for formats that can keep it.
    """

    columns: ClassVar[Mapping[str, Field[Any]]]

    scored: bool = False
    wide: int | None = None
    all_scores: bool = False
    auto_views: bool = False
    carried: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], wide: bool = False) -> Layout:
        """Return the layout of rows that were scored under such settings."""
        top_k = int(settings["top_k"])
        wanted = {"all_scores": settings["all_scores"], "auto_views": "auto_views" in settings}
        return cls(True, top_k if wide else None, carried=settings["columns"], settings=settings, **wanted)

    def names(self) -> list[str]:
        """Return the names of a row's own columns, in their order."""
        asked = {SCORES: self.all_scores, VIEWS_USED: self.auto_views}
        names = [n for n, c in COLUMNS.items() if self.scored or not c.metadata.get("scored")]
        return [name for name in names if asked.get(name, True)]

    def misfits(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return which of a row's values no output could hold, and what they are."""
        kinds = {name: str(self.columns[name].type).removesuffix(" | None") for name in self.names()}
        found = {
            n: row.get(n) for n, kind in kinds.items() if kind in _PLAIN and not _fits(row.get(n), kind, 32)
        }
        found |= {n: row.get(n) for n, kind in self.carried.items() if not _fits(row.get(n), kind, 64)}
        return {name: repr(value)[:60] for name, value in found.items()}


Layout.columns = COLUMNS

_PLAIN: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}


def _fits(value: Any, kind: str, bits: int) -> bool:
    if value is None:
        return True
    if not isinstance(value, _PLAIN[kind]):
        return False
    return not isinstance(value, int) or -(1 << bits - 1) <= value < 1 << bits - 1
