"""Models × engines × precisions × batches → rows, each checked against eager fp32."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.bench import worker
from vidcls.bench.reference import COMPARABLE
from vidcls.config import ModelSpec, Registry
from vidcls.engines.artifact import FORMATS, Artifact, is_artifact, read_artifact
from vidcls.errors import UsageError

Row = dict[str, Any]
Notify = Callable[..., None]  # told what is measured next, or with False behind it something else
WITH_CLIPS = 10.0  # seconds for one figure; a clip of several views takes as many times as long as a view
BASE = ("eager", "fp32", 0.0)  # first, since the others' logits are compared with its


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        models: Names in the registry.
        engines: Names of engines.
        precisions: Names of precisions.
        batches: Views that go through together.
        device: As in `vidcls.inference.load.load`.
        weights: A checkpoint for the one model, or an exported model; None takes the registry's where it is on this
            machine, else random.
        num_views: Temporal views; None leaves it, like the next two, to the model's entry.
        num_crops: Spatial crops per view.
        num_frames: Frames per view.
        merge_tokens: Share of the tokens to merge away in rows of their own; 0 for none.
        compare: Whether to measure transformers' model too.
        spread: Spread of the median to reach; see `vidcls.bench.timing.measure`.
        seconds: Time for one figure; from `WITH_CLIPS` on, whole clips are measured too.
        least: Calls of one figure, at least; see `vidcls.bench.timing.measure`, too, for None.
        registry: A registry file given by hand.
    """

    models: tuple[str, ...]
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...] = (1,)
    device: str = "auto"
    weights: str | None = None
    num_views: int | None = None
    num_crops: int | None = None
    num_frames: int | None = None
    merge_tokens: float = 0.0
    compare: bool = False
    spread: float = 0.05
    seconds: float = 20.0
    least: int | None = None
    registry: str | None = None

    @property
    def limits(self) -> Row:
        """How long something is measured; see `vidcls.bench.timing.measure`."""
        return {"spread": self.spread, "seconds": self.seconds, "least": self.least}

    @property
    def wanted(self) -> list[tuple[str, str, float]]:
        """Engines with their precisions, and the shares of tokens that are merged."""
        shares = dict.fromkeys((0.0, self.merge_tokens))
        return [(e, p, share) for e in self.engines for p in self.precisions for share in shares]

    @property
    def runs(self) -> list[tuple[str, str, float]]:
        """What each model is run by: what is wanted where it exists, and what its logits are compared with."""
        kinds = dict.fromkeys((BASE, *self.wanted))
        return [kind for kind in kinds if kind[1] != "int8" or kind[0] not in ("eager", "compile")]

    @property
    def steps(self) -> int:
        """How many runs there are in all."""
        if self.weights is not None and is_artifact(Path(self.weights)):
            return 1
        return len(self.models) * (len(self.runs) + self.compare)


def measure(plan: Plan, known: Registry, notify: Notify) -> Iterator[Row]:
    """Measure and yield the rows, one for each batch; what fails has ``failed`` and no figures.

    Raises:
        UsageError: A model is unknown, or transformers has none to compare it with.
    """
    peaks: dict[str, float | None] = {}
    if plan.weights is not None and is_artifact(Path(plan.weights)):
        yield from _measure_artifact(plan, read_artifact(Path(plan.weights)), peaks, notify)
        return
    specs = [known[name] for name in plan.models]
    if plan.weights is not None and len(specs) != 1:
        raise UsageError("weights", "needs exactly one model", "name one")
    for spec in specs:
        if plan.compare and spec.architecture not in COMPARABLE:
            raise UsageError(
                spec.name,
                f"transformers has no {spec.architecture} to compare with",
                f"it has {', '.join(COMPARABLE)}",
            )
    for spec in specs:
        with tempfile.TemporaryDirectory(prefix="vidcls-bench-") as folder:
            yield from _measure_model(plan, spec, folder, peaks, notify)


def _measure_model(
    plan: Plan, spec: ModelSpec, folder: str, peaks: dict[str, float | None], notify: Notify
) -> Iterator[Row]:
    weights, env = _weights(plan, spec, folder, notify)
    reference: np.ndarray | None = None
    shape: Row = {}
    for kind in plan.runs:
        # Where eager fp32 was not asked for, only its logits are.
        task = _task(plan, spec, weights, *kind, quick=kind not in plan.wanted)
        if weights == "random" and kind[0] == "openvino" and kind[1] != "int8":
            task = _converted(task, spec, folder, notify)
        answer = _run(task, spec, *kind[:2], notify, env) | {"merge_tokens": kind[2]}
        if "failed" in answer:
            yield _base(spec, *kind[:2]) | {"failed": answer["failed"]}
            continue
        if reference is None:
            reference, shape = np.array(answer["logits"]), answer
        if kind in plan.wanted:
            for row in answer["rows"]:  # at once: the peak takes some seconds more
                median = row["timing"]["median"]
                notify(f"{spec.name}: {kind[0]} {kind[1]}: {median / row['batch']:.3g} s/view", False)
            yield from _rows(spec, answer, _error(answer, reference), _peak(plan, answer, peaks))
    if plan.compare and reference is not None:
        task = {"do": "transformers", "folder": weights, "input": shape["input"], "device": shape["device"]}
        answer = _run(task | plan.limits | {"batch": plan.batches}, spec, "transformers", "fp32", notify)
        if "failed" in answer:
            yield _base(spec, "transformers", "fp32") | {"failed": answer["failed"]}
            return
        answer = {**shape, **answer, "clip": None, "merge_tokens": 0.0}
        yield from _rows(spec, answer, _error(answer, reference), _peak(plan, answer, peaks))


def _converted(task: Row, spec: ModelSpec, folder: str, notify: Notify) -> Row:
    """Let OpenVINO's rows of a model with random weights share one conversion, as the cache does for checkpoints."""
    place = Path(folder) / "openvino"
    if not place.exists():
        notify(f"{spec.name}: converting to OpenVINO", False)
        if "failed" in worker.run({"do": "convert", "load": task["load"], "folder": str(place)}):
            return task  # whose own failure will say why
    load = {key: value for key, value in task["load"].items() if key != "random_weights"}
    return task | {"load": load | {"weights": str(place)}}


def _measure_artifact(
    plan: Plan, artifact: Artifact, peaks: dict[str, float | None], notify: Notify
) -> Iterator[Row]:
    """Measure an exported model, which one engine runs in one precision; its error was measured when it was made."""
    record = artifact.record
    spec = record.facts.spec.model_copy(update={"config": record.facts.config})
    kind = (str(FORMATS[record.format].engine), record.precision)
    task = _task(plan, spec, str(artifact.folder), *kind, 0.0, quick=False)
    task["load"]["model"] = None
    answer = _run(task, spec, *kind, notify)
    if "failed" in answer:
        yield _base(spec, *kind) | {"failed": answer["failed"]}
        return
    yield from _rows(spec, answer, record.error, _peak(plan, answer, peaks))


def _run(
    task: Row, spec: ModelSpec, engine: str, precision: str, notify: Notify, env: dict[str, str] | None = None
) -> Row:
    """Do one task in a process of its own, and say what is measured and whether it failed."""
    notify(f"{spec.name}: {engine} {precision}")
    answer = worker.run(task, env=env)
    if "failed" in answer:
        notify(f"{spec.name}: {engine} {precision}: {answer['failed']}", False)
    return answer


def _weights(
    plan: Plan, spec: ModelSpec, folder: str, notify: Notify
) -> tuple[str | None, dict[str, str] | None]:
    """Choose the weights: given, on this machine, random in transformers' format, or random; and the environment."""
    if plan.weights is not None:
        return plan.weights, None
    if spec.weights is not None and not plan.compare:
        from vidcls.zoo.weights import is_present

        if is_present(spec.weights):
            return None, None
    notify(f"{spec.name}: random weights", False)
    if not plan.compare:
        return "random", None
    config = {**spec.config} | ({"num_frames": plan.num_frames} if plan.num_frames else {})
    task = {"do": "reference", "architecture": spec.architecture, "config": config, "folder": folder}
    answer = worker.run(task)
    if "failed" in answer:
        raise UsageError("compare", answer["failed"], "leave it out")
    # What is converted from a folder that is about to vanish shall not crowd the person's own cache.
    return folder, {**os.environ, "VIDCLS_CACHE": f"{folder}/cache"}


def _task(
    plan: Plan,
    spec: ModelSpec,
    weights: str | None,
    engine: str,
    precision: str,
    merge_tokens: float,
    quick: bool,
) -> Row:
    load: Row = {
        "model": spec.name,
        "engine": engine,
        "precision": precision,
        "device": "cpu" if engine == "openvino" else plan.device,
        "num_views": plan.num_views,
        "num_crops": plan.num_crops,
        "num_frames": plan.num_frames,
        "merge_tokens": merge_tokens,
        "registry": plan.registry,
    }
    load |= {"random_weights": True} if weights == "random" else {"weights": weights}
    clip = not quick and plan.seconds >= WITH_CLIPS
    return {"do": "engine", "load": load, "batch": () if quick else plan.batches, "clip": clip, **plan.limits}


def _base(spec: ModelSpec, engine: str, precision: str) -> Row:
    return {
        "model": spec.name,
        "architecture": spec.architecture,
        "engine": engine,
        "precision": precision,
        "published": spec.published.model_dump(mode="json", exclude_none=True),
    }


def _rows(spec: ModelSpec, answer: Row, error: float, peak: float | None) -> Iterator[Row]:
    view = answer["input"]
    merged = answer.get("merge_tokens", 0.0)
    params, gmacs = _count(spec, view, merged)
    per_clip = view["num_views"] * view["num_crops"]
    for measured in answer["rows"]:
        timing, batch = measured["timing"], measured["batch"]
        views_per_second = batch / timing["median"]
        clip = answer.get("clip")
        clips = 1 / clip["timing"]["median"] if clip else views_per_second / per_clip
        gflops = 2 * gmacs * views_per_second
        yield _base(spec, answer["engine"], answer["precision"]) | {
            "device": answer["device"],
            "weights": "random" if "vidcls-bench-" in answer["weights"] else answer["weights"],
            "merge_tokens": merged,
            "batch": batch,
            "views": view["num_views"],
            "crops": view["num_crops"],
            "clips_per_view": view["clips_per_view"],
            "num_frames": view["num_frames"],
            "image_size": view["image_size"],
            "seconds": timing,
            "views_per_second": views_per_second,
            "clips_per_second": clips,
            "videos_per_hour": 3600 * clips,
            "units": None if not clip else {"of_views": clip["units"], "encoded": clip["encoded"]},
            "params": params,
            "gmacs": gmacs,
            "gflops_per_second": gflops,
            "peak_gflops_per_second": peak,
            "share_of_peak": None if not peak else gflops / peak,
            "peak_memory": measured["memory"],
            "ready_seconds": answer["ready"],
            "error": error,
            "calibrated_on": answer.get("calibrated_on"),
            "failed": None,
        }


def _count(spec: ModelSpec, view: Row, merge_tokens: float) -> tuple[int, float]:
    from vidcls.models import config_keys
    from vidcls.models.count import count_architecture

    sizes = {"num_frames": view["num_frames"], "image_size": tuple(view["image_size"])}
    config = {**spec.config, **{k: v for k, v in sizes.items() if k in config_keys(spec.architecture)}}
    if spec.config.get("num_frames", 0) is None or "num_frames" not in spec.config:
        config.pop("num_frames", None)
    counted = count_architecture(
        spec.architecture, config, view["num_frames"], tuple(view["image_size"]), merge_tokens
    )
    return counted.params, counted.macs / 1e9


def _peak(plan: Plan, answer: Row, peaks: dict[str, float | None]) -> float | None:
    precision = answer["precision"]
    if precision not in peaks:
        found = worker.run({"do": "peak", "device": answer["device"], "precision": precision})
        peaks[precision] = found.get("gflops")
    return peaks[precision]


def _error(answer: Row, reference: np.ndarray) -> float:
    return float(np.abs(np.array(answer["logits"]) - reference).max())
