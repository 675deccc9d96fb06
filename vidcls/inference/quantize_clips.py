"""Clips → an int8 engine in the cache, and a report of what it changes."""

from __future__ import annotations

import csv
import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.engines import Floats
from vidcls.engines.openvino import OpenVINOEngine, split_units
from vidcls.engines.select import EngineRequest, keep, make_engine_for, with_checksum
from vidcls.errors import DeviceError, InputError, UsageError
from vidcls.inference.classifier import Classifier, Clip
from vidcls.inference.load import find_model, load
from vidcls.video.sources import Source

# Views, or a sample of their units, that the ranges are chosen from.
CALIBRATION = 64


@dataclass(frozen=True)
class _Seen:
    """One clip that was read: its views' numbers, its logits in fp32, and its true label."""

    name: str
    clip: Clip
    logits: Floats
    label: str | None


def quantize_model(
    sources: Iterable[Source],
    *,
    limit: int,
    truth: Path | None,
    say: Callable[[str], None],
    **wanted: Any,
) -> dict[str, Any]:
    """Make and keep the int8 engine of a model.

    Args:
        sources: Clips; what cannot be read is passed over and said.
        limit: Clips to use at most.
        truth: A CSV file of ``path,label``.
        say: Takes lines of talk.
        **wanted: ``model``, ``weights``, Keywords of `vidcls.inference.load.load`.

    Returns:
        The report: differences of the logits, how often the best label stays, and the accuracy before and after
        where ``truth`` is given.

    Raises:
        UsageError: No clip can be read, or ``truth`` is not such a file.
        DependencyError: OpenVINO or NNCF is not installed.
        DeviceError: The model cannot be converted, or the result cannot be kept.
    """
    from vidcls.engines.export import convert
    from vidcls.engines.quantize import quantize

    labels = {} if truth is None else read_truth(truth)
    with load(**wanted, device="cpu", precision="fp32", engine="eager") as classifier:
        spec = classifier.spec.input
        seen = list(_read(classifier, itertools.islice(sources, limit), labels, say))
        if not seen:
            raise UsageError("clips", "none could be read", "name videos like those to classify")
        held = seen[3::4] or seen
        rest = [item for item in seen if item not in held] or seen
        found = find_model(
            wanted.get("model"),
            weights=wanted.get("weights"),
            num_frames=wanted.get("num_frames"),
            registry=wanted.get("registry"),
            offline=bool(wanted.get("offline")),
        )
        facts = with_checksum(found.facts, found.path)
        found.learned(facts)
        start = time.perf_counter()
        say(f"{facts.spec.name}: quantizing with {len(rest)} clips")
        parts = convert(found.module(), spec.num_frames, spec.image_size)
        smaller = quantize(parts, _calibration(rest, facts.unit_frames))
        entry = keep(facts, spec, smaller, _noise_error(smaller, parts, held, facts.unit_frames), "int8")
        if entry is None:
            raise DeviceError(
                "engine cache", "cannot keep the int8 model", "free some disk, or set VIDCLS_CACHE"
            )
        took = time.perf_counter() - start
        engine = make_engine_for(
            found.module(), facts, spec, EngineRequest("openvino", "cpu", "int8"), found.path, found.learned
        )
        exact, classifier.engine = classifier.engine, engine
        after = [classifier.clip_logits(item.clip)[0].mean(axis=0) for item in held]
        classifier.engine = exact
        return _report(classifier, held, after, len(rest), took, str(entry.folder))


def _read(
    classifier: Classifier, sources: Iterable[Source], labels: dict[str, str], say: Callable[[str], None]
) -> Iterable[_Seen]:
    for source in sources:
        try:
            if source.error is not None:
                raise source.error
            if source.clip is None:
                raise InputError(source.name, "is an address", "download it first")
            clip = classifier.read(source.clip)
        except InputError as error:
            say(f"vidcls: {error}")
            continue
        label = labels.get(os.path.abspath(source.name))
        yield _Seen(source.name, clip, classifier.clip_logits(clip)[0].mean(axis=0), label)


def _calibration(seen: list[_Seen], unit: int) -> list[Floats]:
    """Views, or units of them, one by one and spread over the clips."""
    per_clip = max(1, CALIBRATION // len(seen))
    picked: list[Floats] = []
    for item in seen:
        views = item.clip.views
        parts = split_units(views, unit, False) if unit else views
        places = np.unique(np.linspace(0, len(parts) - 1, per_clip).astype(int))
        picked += [np.ascontiguousarray(parts[place][None]) for place in places]
    return picked[:CALIBRATION]


def _noise_error(smaller: dict[str, Any], parts: dict[str, Any], held: list[_Seen], unit: int) -> float:
    """Largest difference that the number format makes on the first clip's first view."""
    view = held[0].clip.views[:1]
    indices = held[0].clip.view_indices[:1]
    given = indices if "head" in parts and len(parts["head"].inputs) > 1 else None
    both = [
        OpenVINOEngine(some, precision, unit)(view, given)
        for some, precision in ((parts, "fp32"), (smaller, "int8"))
    ]
    return float(np.abs(both[0] - both[1]).max())


def _report(
    classifier: Classifier, held: list[_Seen], after: list[Floats], used: int, took: float, folder: str
) -> dict[str, Any]:
    before = np.stack([item.logits for item in held])
    now = np.stack(after)
    report: dict[str, Any] = {
        "model": classifier.spec.name,
        "clips_for_calibration": used,
        "clips_for_this_report": len(held),
        "logit_error_max": float(np.abs(now - before).max()),
        "logit_error_mean": float(np.abs(now - before).mean()),
        "logit_range": float(before.max() - before.min()),
        "same_top1": float(np.mean(now.argmax(axis=1) == before.argmax(axis=1))),
        "seconds": round(took, 1),
        "kept_in": folder,
    }
    rated = [i for i, item in enumerate(held) if item.label is not None]
    if rated:
        truth = [held[i].label for i in rated]
        for name, logits in (("fp32", before), ("int8", now)):
            best = [classifier.labels[k] for k in logits[rated].argmax(axis=1)]
            report[f"top1_{name}"] = float(np.mean([a == b for a, b in zip(best, truth, strict=True)]))
        report["clips_with_label"] = len(rated)
    return report


def read_truth(path: Path) -> dict[str, str]:
    """Read a CSV file of ``path,label``; paths count from the file's folder.

    Raises:
        UsageError: It cannot be read or has no such columns.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(str(path), f"cannot be read ({error})", "give a CSV file of path,label") from None
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise UsageError(str(path), "has no columns path and label", "give a CSV file of path,label")
    return {os.path.abspath(path.parent / row["path"]): row["label"] for row in rows}
