"""A checkpoint → a file or folder in another format that says itself what it is: ``vidcls export``."""

from __future__ import annotations

import copy
import csv
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidcls.config import InputSpec
from vidcls.engines import Floats, cache, make_engine
from vidcls.engines.artifact import PIXELS, Artifact, check_format, check_free, model_card, save
from vidcls.engines.openvino import OpenVINOEngine, split_units
from vidcls.errors import InputError, OutputError, UsageError, system_errors
from vidcls.inference.classifier import Classifier
from vidcls.inference.clip import Clip
from vidcls.inference.load import model_labels, view_of
from vidcls.paths import write_text
from vidcls.video.fetch import opened
from vidcls.video.sources import Source

if TYPE_CHECKING:
    from vidcls.zoo.find import Found

# Views, or a sample of their units, that the ranges of int8 are chosen from.
CALIBRATION = 64

Notify = Callable[[str], None]


@dataclass(frozen=True)
class ExportRequest:
    """What to export to.

    Attributes:
        format: A key of `vidcls.engines.artifact.FORMATS`.
        precision: Number format of the model.
        output: The file (safetensors) or folder to write; None: the cache, for OpenVINO.
        overwrite: Replace what is there.
        labels: A list of labels to store in place of the model's own.
        view: Changes of how the model sees a video, as `vidcls.load` takes them.
        pixels: Let the graph take pixels and normalize them itself.
    """

    format: str
    precision: str = "fp32"
    output: Path | None = None
    overwrite: bool = False
    labels: str | None = None
    view: dict[str, Any] = field(default_factory=dict)
    pixels: bool = False

    def check(self) -> None:
        """Refuse what cannot be done, before anything is read.

        Raises:
            UsageError: The formats do not exist, or there is no place to write to.
        """
        check_format(self.format, self.precision)
        if self.pixels and self.format not in PIXELS:
            raise UsageError(
                "pixels", f"does not exist in {self.format}", f"use format={' or '.join(PIXELS)}"
            )
        if self.output is None:
            if self.format != "openvino" or self.precision == "fp16":
                raise UsageError(
                    "output", f"{self.format} {self.precision} needs a place", "name where to write it"
                )
            return
        if self.format == "safetensors":
            if self.output.is_dir():
                raise UsageError(
                    str(self.output), "is a folder", "name the file to write, such as model.safetensors"
                )
            check_free(card_beside(self.output), self.overwrite)
        check_free(self.output, self.overwrite)


@dataclass(frozen=True)
class Calibration:
    """Clips that int8 is calibrated and judged on.

    Attributes:
        clips: The clips; what cannot be read is passed over and reported.
        limit: How many to use at most.
        truth: A CSV file of ``path,label``.
    """

    clips: Iterable[Source]
    limit: int = 32
    truth: Path | None = None


def export_model(
    found: Found, request: ExportRequest, calibration: Calibration | None = None, notify: Notify = print
) -> dict[str, Any]:
    """Export a model.

    Args:
        found: The model.
        request: What to export it to.
        calibration: Clips for int8, which needs them.
        notify: Takes lines for people.

    Returns:
        The report: where the model is, its size and its measured error; for int8 also what it changes on clips that
        were held out of the calibration.

    Raises:
        UsageError: The request cannot be met, or no clip can be read.
        DependencyError: What the format needs is not installed.
        DeviceError: The model cannot be converted.
        OutputError: The result cannot be written.
    """
    request.check()
    if (request.precision == "int8") != (calibration is not None):
        raise UsageError("calibrate", "goes with int8, and int8 with it", "name clips like those to classify")
    view = view_of(found.facts, **request.view)
    labels, notes = model_labels(found.facts, request.labels)
    job = _Job(found, request, view, labels)
    start = time.perf_counter()
    for note in (*found.facts.notes, *notes):
        notify(f"{found.source}: {note}")
    if request.format == "safetensors":
        report = job.safetensors()
    elif calibration is not None:
        report = job.int8(calibration, notify)
    else:
        report = job.converted()
    return {**report, "seconds": round(time.perf_counter() - start, 1)}


@dataclass(frozen=True)
class _Job:
    """One export: a method for each way.

    Attributes:
        found: The model.
        request: What to export it to.
        view: How the model sees a video.
        labels: One per class, None where there are none.
    """

    found: Found
    request: ExportRequest
    view: InputSpec
    labels: tuple[str, ...] | None

    def safetensors(self) -> dict[str, Any]:
        """Write a checkpoint of our own, and a card beside it."""
        import torch

        from vidcls.checkpoints import save_checkpoint
        from vidcls.engines.export import measure_error, portable_source, record_of

        path, precision = self.request.output, self.request.precision
        assert path is not None
        module = self.found.module()
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        rounded = make_engine(copy.deepcopy(module).to(dtype).float(), "cpu", "fp32", "eager")
        error = measure_error(module, rounded, self.view, exact=precision == "fp32")
        checkpoint_format, extra = self.found.origin
        extra = {
            **extra,
            "source": portable_source(self.found.source),
            "source_format": checkpoint_format,
            "export": {"precision": precision, "error": error},
        }
        view = self.view.model_dump(mode="json")
        save_checkpoint(module, path, labels=self.labels, input=view, extra=extra, dtype=dtype)
        with system_errors(OutputError, card_beside(path), "cannot be written", "free some disk"):
            record = record_of(self.found, self.view, "safetensors", precision, self.labels, error)
            write_text(card_beside(path), model_card(record, path.name))
        return self._report(path, path.stat().st_size, error)

    def converted(self) -> dict[str, Any]:
        """Convert to the format of another runtime."""
        from vidcls.engines import export

        module, view, precision = self.found.module(), self.view, self.request.precision
        if self.request.format == "openvino":
            parts = export.openvino_parts(module, view.num_frames, view.image_size)
            return self._kept(export.openvino_writer(parts, precision), self._measure)
        program = export.whole_program(module, view, precision, self._pixels())
        if self.request.format == "onnx":
            return self._kept(export.onnx_writer(program, self._pixels()), self._measure)
        return self._kept(export.pt2_writer(program), self._measure)

    def _pixels(self) -> str:
        """Type of the graph's pixels; where frames are resized in floats, they have no whole values."""
        if not self.request.pixels:
            return ""
        return "float32" if self.view.resize_rule == "float" else "uint8"

    def int8(self, calibration: Calibration, notify: Notify) -> dict[str, Any]:
        """Quantize, and say what that changes on clips that were held out."""
        from vidcls.engines.export import openvino_parts, openvino_writer
        from vidcls.engines.quantize import quantize

        facts, module = self.found.facts, self.found.module()
        truth = {} if calibration.truth is None else read_truth(calibration.truth)
        with Classifier(
            make_engine(module, "cpu", "fp32", "eager"),
            facts.spec.model_copy(update={"input": self.view}),
            self.labels or tuple(f"class {index}" for index in range(facts.num_classes)),
            weights=self.found.source,
            uses_frame_indices=facts.uses_frame_indices,
        ) as classifier:
            clips = itertools.islice(calibration.clips, calibration.limit)
            seen = list(_read(classifier, clips, truth, notify))
            if not seen:
                raise UsageError("calibrate", "no clip could be read", "name videos like those to classify")
            held = seen[3::4] or seen
            rest = [item for item in seen if item not in held] or seen
            notify(f"{facts.spec.name}: quantizing with {len(rest)} clips")
            parts = openvino_parts(module, self.view.num_frames, self.view.image_size)
            smaller = quantize(
                parts, calibration_inputs([item.clip.views for item in rest], facts.unit_frames)
            )
            classifier.engine = OpenVINOEngine(smaller, "int8", facts.unit_frames)
            after = [classifier.clip_logits(item.clip)[0].mean(axis=0) for item in held]
            changes = _changes(classifier.labels, held, after)
        kept = self._kept(openvino_writer(smaller), lambda _: float(changes["logit_error_max"]))
        return {**kept, "clips_for_calibration": len(rest), **changes}

    def _measure(self, artifact: Artifact) -> float:
        from vidcls.engines.export import measure_error

        exact = self.request.precision == "fp32"
        return measure_error(self.found.module(), artifact.engine(), self.view, exact=exact)

    def _kept(self, write: Callable[[Path], None], measure: Callable[[Artifact], float]) -> dict[str, Any]:
        """Write the model to where it was asked for, or into the cache."""
        from vidcls.engines.export import record_of

        request = self.request
        record = record_of(
            self.found, self.view, request.format, request.precision, self.labels, pixels=self._pixels()
        )
        if request.output is not None:
            artifact = save(request.output, write, record, measure, overwrite=request.overwrite)
        else:
            key = self.found.export_key(request.precision)
            stored = None if key is None else cache.store(key, write, record, measure)
            if stored is None:
                raise OutputError(
                    "cache", "cannot keep the model", "free some disk, or name where to write it"
                )
            artifact = stored
        return self._report(artifact.folder, artifact.size, artifact.record.error)

    def _report(self, path: Path, size: int, error: float) -> dict[str, Any]:
        facts = self.found.facts
        return {
            "model": facts.spec.name,
            "architecture": facts.spec.architecture,
            "source": self.found.source,
            "source_format": self.found.origin[0],
            "format": self.request.format,
            "precision": self.request.precision,
            "parameters": sum(parameter.numel() for parameter in self.found.module().parameters()),
            "classes": facts.num_classes,
            "labels": self.labels is not None,
            "path": str(path),
            "bytes": size,
            "error": error,
        }


def card_beside(path: Path) -> Path:
    """Where the model card of a safetensors file is."""
    return path.with_name(f"{path.stem}.card.md")


@dataclass(frozen=True)
class _Seen:
    """One clip that was read: its views' numbers, its logits in fp32, and its true label."""

    name: str
    clip: Clip
    logits: Floats
    label: str | None


def _read(
    classifier: Classifier, sources: Iterable[Source], labels: dict[str, str], notify: Notify
) -> Iterator[_Seen]:
    for source in sources:
        try:
            with opened(source) as found:
                clip = classifier.read(found)
        except InputError as error:
            notify(f"vidcls: {error}")
            continue
        label = labels.get(os.path.abspath(source.path))
        yield _Seen(source.path, clip, classifier.clip_logits(clip)[0].mean(axis=0), label)


def calibration_inputs(seen: Sequence[Floats], unit: int) -> list[Floats]:
    """Views, or units of them, one by one and spread over the clips.

    Args:
        seen: The views (v, c, t, h, w) of each clip.
        unit: Frames that the model's spatial encoder sees together, 0 for all.
    """
    per_clip = max(1, CALIBRATION // len(seen))
    picked: list[Floats] = []
    for views in seen:
        parts = split_units(views, unit, False) if unit else views
        places = np.unique(np.linspace(0, len(parts) - 1, per_clip).astype(int))
        picked += [np.ascontiguousarray(parts[place][None]) for place in places]
    return picked[:CALIBRATION]


def _changes(labels: tuple[str, ...], held: list[_Seen], after: list[Floats]) -> dict[str, Any]:
    """What int8 changes on clips: how far the logits move, how often the best label stays, the accuracy."""
    before, now = np.stack([item.logits for item in held]), np.stack(after)
    report: dict[str, Any] = {
        "clips_for_this_report": len(held),
        "logit_error_max": float(np.abs(now - before).max()),
        "logit_error_mean": float(np.abs(now - before).mean()),
        "logit_range": float(before.max() - before.min()),
        "same_top1": float(np.mean(now.argmax(axis=1) == before.argmax(axis=1))),
    }
    rated = [i for i, item in enumerate(held) if item.label is not None]
    if rated:
        truth = [held[i].label for i in rated]
        for name, logits in (("fp32", before), ("int8", now)):
            best = [labels[k] for k in logits[rated].argmax(axis=1)]
            report[f"top1_{name}"] = float(np.mean([a == b for a, b in zip(best, truth, strict=True)]))
        report["clips_with_label"] = len(rated)
    return report


def read_truth(path: Path) -> dict[str, str]:
    """Read a CSV file of ``path,label``; paths are relative to the file's folder.

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
