"""One measurement in a process of its own: a task as JSON on stdin, its figures as JSON on stdout.

python -m vidcls.bench.worker < task.json
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidcls.bench.machine import peak_matmul, peak_memory, synchronizer
from vidcls.bench.timing import measure
from vidcls.errors import VidclsError

if TYPE_CHECKING:
    from vidcls.config import InputSpec
    from vidcls.inference.classifier import Classifier
    from vidcls.inference.clip import Clip

# Length of the clip for which clips a second are given, when views share work.
CLIP_SECONDS = 10.0
DEFAULT_FPS = 25.0


def run(task: dict[str, Any], timeout: float = 3600.0, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Do a task in a process of its own; what goes wrong there comes back as ``{"failed": …}``."""
    command = [sys.executable, "-m", "vidcls.bench.worker"]
    try:
        done = subprocess.run(
            command, input=json.dumps(task), capture_output=True, text=True, timeout=timeout, env=env
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {timeout:.0f} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"failed": f"ended with {done.returncode}: {last[:300]}"}


def pixels_of(spec: InputSpec, batch: int) -> NDArray[np.uint8]:
    """Noise as views (batch, t, h, w, 3); the same for every engine."""
    noise = np.random.default_rng(0)
    return noise.integers(0, 256, (batch, spec.num_frames, *spec.image_size, 3), np.uint8)


def clip_of(spec: InputSpec) -> Clip:
    """A clip of noise, ten seconds long, in the views that the model wants of it."""
    from vidcls.inference.clip import Clip
    from vidcls.video.reader import VideoInfo
    from vidcls.views.transform import plan_clips

    fps = spec.fps or DEFAULT_FPS
    count = round(CLIP_SECONDS * fps)
    times = np.arange(count) / fps
    plan = plan_clips(spec, num_frames=count, fps=fps, timestamps=times, target_fps="auto")
    height, width = spec.image_size
    width += width // 3 if spec.num_crops == 3 else 0
    frames = np.random.default_rng(0).integers(0, 256, (len(plan.unique), height, width, 3), np.uint8)
    info = VideoInfo("noise", count, fps, CLIP_SECONDS, width, height, 0, "", "", times, False)
    return Clip(frames, plan.unique, plan, spec, info, "", ())


def measure_engine(task: dict[str, Any]) -> dict[str, Any]:
    """Make an engine and time it on views, and on a whole clip where its views share work."""
    from vidcls.views.transform import pixel_scale_shift

    start = time.perf_counter()
    classifier, calibrated = _ready(task["load"])
    with classifier:
        engine, spec = classifier.engine, classifier.spec.input
        scale_shift = pixel_scale_shift(spec)
        engine.prepare(np.dtype(np.uint8), scale_shift)
        ready = time.perf_counter() - start
        device = engine.device
        wait = synchronizer(device) if engine.name != "openvino" else (lambda: None)
        warm_up = 3 if engine.name == "compile" else 1
        limits = {**_limits(task), "warm_up": warm_up}
        rows = []
        logits: dict[int, Any] = {}

        def run(batch: int, views: Any, indices: Any) -> None:
            logits[batch] = engine(views, indices, scale_shift)

        for batch in task["batch"]:
            inputs = batch, pixels_of(spec, batch), _indices(classifier, batch)
            timing = measure(partial(run, *inputs), wait=wait, **limits)
            rows.append({"batch": batch, "timing": timing._asdict(), "memory": peak_memory(device)})
        if 1 not in logits:
            run(1, pixels_of(spec, 1), _indices(classifier, 1))
        answer = {
            "engine": engine.name,
            "device": device,
            "precision": engine.precision,
            "architecture": classifier.spec.architecture,
            "weights": classifier.weights,
            "input": spec.model_dump(mode="json"),
            "ready": ready,
            "calibrated_on": calibrated,
            "rows": rows,
            "logits": logits[1][0].tolist(),
        }
        if engine.unit_frames and task["clip"]:
            clip = clip_of(spec)
            timing = measure(lambda: classifier.clip_logits(clip), wait=wait, **limits)
            units = classifier.clip_logits(clip)[1] or (0, 0)
            answer["clip"] = {"timing": timing._asdict(), "units": units[0], "encoded": units[1]}
        return answer


def _limits(task: dict[str, Any]) -> dict[str, Any]:
    """How long something is measured; see `measure`."""
    return {name: task[name] for name in ("spread", "seconds", "least") if name in task}


def _ready(wanted: dict[str, Any]) -> tuple[Classifier, str | None]:
    """Make the classifier; for int8 without an engine that was calibrated on clips, calibrate one on noise."""
    from vidcls.errors import DeviceError
    from vidcls.inference.load import load

    try:
        classifier = load(**wanted)
        classifier.engine.name  # noqa: B018 - made now, if it was to be made later
        return classifier, "clips" if wanted["precision"] == "int8" else None
    except DeviceError:
        if wanted["precision"] != "int8":
            raise
    from vidcls.engines import unit_frames
    from vidcls.engines.export import openvino_parts
    from vidcls.engines.openvino import OpenVINOEngine, split_units
    from vidcls.engines.quantize import quantize
    from vidcls.views.transform import normalize

    classifier = load(**{**wanted, "engine": "eager", "precision": "fp32"})
    engine: Any = classifier.engine
    module = getattr(engine, "engine", engine).module
    spec, unit = classifier.spec.input, unit_frames(module)
    views = normalize(pixels_of(spec, 1), spec)
    inputs = split_units(views, unit, False) if unit else views
    parts = openvino_parts(module, spec.num_frames, spec.image_size)
    smaller = quantize(parts, [part[None] for part in inputs[:16]])
    classifier.engine = OpenVINOEngine(smaller, "int8", unit)
    return classifier, "noise"


def _indices(classifier: Classifier, batch: int) -> NDArray[np.int64] | None:
    if not classifier.uses_frame_indices:
        return None
    return np.tile(np.arange(classifier.spec.input.num_frames), (batch, 1))


def measure_transformers(task: dict[str, Any]) -> dict[str, Any]:
    """Time transformers' own model, in fp32 as it loads it, on the same numbers."""
    import torch

    from vidcls.bench.reference import load_reference
    from vidcls.config import InputSpec
    from vidcls.views.transform import normalize

    spec = InputSpec(**task["input"])
    start = time.perf_counter()
    forward = load_reference(task["folder"], task["device"])
    ready = time.perf_counter() - start
    limits = _limits(task)
    rows = []
    with torch.inference_mode():
        for batch in task["batch"]:
            views = torch.from_numpy(normalize(pixels_of(spec, batch), spec)).to(task["device"])
            timing = measure(lambda: forward(views), wait=synchronizer(task["device"]), **limits)  # noqa: B023
            rows.append({"batch": batch, "timing": timing._asdict(), "memory": peak_memory(task["device"])})
        view = torch.from_numpy(normalize(pixels_of(spec, 1), spec)).to(task["device"])
        logits = forward(view)[0].float().cpu().tolist()
    return {"engine": "transformers", "precision": "fp32", "ready": ready, "rows": rows, "logits": logits}


def make_reference(task: dict[str, Any]) -> dict[str, Any]:
    """Write a model of transformers with random weights into a folder, shaped as one of ours."""
    from vidcls.bench.reference import save_reference

    save_reference(task["architecture"], task["config"], task["folder"])
    return {}


def convert(task: dict[str, Any]) -> dict[str, Any]:
    """Write a model with random weights as OpenVINO's, unchecked: each row's logits are compared anyway."""
    from vidcls.engines.artifact import save
    from vidcls.engines.export import openvino_parts, openvino_writer, record_of
    from vidcls.inference.load import load

    with load(**{**task["load"], "engine": "eager", "precision": "fp32"}) as classifier:
        assert classifier.origin is not None
        found, view = classifier.origin[0], classifier.spec.input
        parts = openvino_parts(found.module(), view.num_frames, view.image_size)
        record = record_of(found, view, "openvino", "fp32", classifier.labels)
        save(Path(task["folder"]), openvino_writer(parts), record)
    return {}


def measure_peak(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the fastest matrix product."""
    from vidcls.engines import choose_device

    return {"gflops": peak_matmul(choose_device(task["device"]), task["precision"])}


TASKS = {
    "engine": measure_engine,
    "transformers": measure_transformers,
    "reference": make_reference,
    "convert": convert,
    "peak": measure_peak,
}


def main() -> int:
    """Read the task, do it, write the answer; libraries may print what they like meanwhile."""
    task = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            answer = TASKS[task.pop("do")](task)
        except VidclsError as error:
            answer = {"failed": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
