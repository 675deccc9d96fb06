"""Names of classes as config.json files hold them: Hugging Face's ``id2label``, timm's ``label_names``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidcls.checkpoints.base import Raw

MAX_LABELS = 100_000
MAX_SHOWN = 5


def class_names(raw: Raw, num_classes: int) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Read the names of a model's classes from the configuration beside its weights.

    A class without a name goes by its number, ``class N``, and a note says so.

    Args:
        raw: Weights with ``config.json``.
        num_classes: Of the model's head.

    Returns:
        One name per class, or None where there are none or only placeholders; and notes.
    """
    entries = _entries(raw)
    if not entries or not 0 < num_classes <= MAX_LABELS:
        return None, ()
    found = [_name(entries.get(index)) for index in range(num_classes)]
    if all(name in ("", f"LABEL_{index}") for index, name in enumerate(found)):
        return None, ()
    notes = []
    unnamed = [index for index, name in enumerate(found) if not name]
    if unnamed:
        shown = ", ".join(map(str, unnamed[:MAX_SHOWN])) + (", …" if len(unnamed) > MAX_SHOWN else "")
        notes.append(
            f"config.json names {num_classes - len(unnamed)} of {num_classes} classes; the others go by number: {shown}"
        )
    beyond = sum(index not in range(num_classes) for index in entries)
    if beyond:
        notes.append(f"config.json names {beyond} more classes than the model has")
    return tuple(name or f"class {index}" for index, name in enumerate(found)), tuple(notes)


def _entries(raw: Raw) -> dict[int, Any]:
    """Number of a class → what the configuration holds for it."""
    config = raw.meta["config"]
    if raw.kind == "timm":
        return _timm_entries(config)
    names = config.get("id2label")
    if not names and isinstance(config.get("label2id"), Mapping):
        names = {number: name for name, number in config["label2id"].items()}
    return _numbered(names)


def _timm_entries(config: Mapping[str, Any]) -> dict[int, Any]:
    inner = config.get("pretrained_cfg")
    places = [place for place in (config, inner) if isinstance(place, Mapping)]
    names = next(
        (place[key] for place in places for key in ("label_names", "labels") if place.get(key)), None
    )
    texts = next((place["label_descriptions"] for place in places if place.get("label_descriptions")), None)
    entries = _numbered(names)
    if isinstance(texts, Mapping):  # of WordNet's numbers, or the like
        entries = {n: texts.get(name, name) if isinstance(name, str) else name for n, name in entries.items()}
    return entries


def _numbered(names: Any) -> dict[int, Any]:
    if isinstance(names, list):
        return dict(enumerate(names[:MAX_LABELS]))
    if not isinstance(names, Mapping) or len(names) > MAX_LABELS:
        return {}
    return {int(key): name for key, name in names.items() if str(key).isdecimal() and len(str(key)) < 10}


def _name(entry: Any) -> str:
    """One entry as a name: several synonyms in a list become one; empty where there is none."""
    if isinstance(entry, (list, tuple)):
        return ", ".join(filter(None, map(_name, entry[:10])))
    return "" if entry is None or isinstance(entry, Mapping) else str(entry).strip()
