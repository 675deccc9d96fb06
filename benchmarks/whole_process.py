"""The whole process: `vidcls predict` against transformers' own pipeline, same checkpoint, clip and view.

python benchmarks/whole_process.py --clip CLIP [--repetitions 5] [-o benchmarks/results/whole_process.json]

A ViViT-B (Model 1), or another model (`--model videomae-b`), with random weights is written by transformers; all
programs read that folder, one view. They run in turn, each in a fresh process, with everything in the page cache. A
third program loads the bundled or any other small model (`--small NAME`) to see how fast a cold start is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.bench.machine import describe
from vidcls.bench.predict import summary, timed
from vidcls.bench.reference import save_reference
from vidcls.config import load_registry
from vidcls.engines.torch import cpu_has_bf16

# What somebody writes who classifies one clip with transformers. The pipeline samples its frames itself
# (numpy.linspace over the file); what it does on the way is what is timed.
PIPELINE = """
import sys, json, torch
from transformers import pipeline
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[sys.argv[3]]
classify = pipeline("video-classification", model=sys.argv[1], dtype=dtype, num_frames=int(sys.argv[4]),
                    frame_sampling_rate=2)
print(json.dumps(classify(sys.argv[2], top_k=400)))
"""

# The same without the pipeline, which reads no file unless torchcodec and FFmpeg are there: the way of transformers'
# own page on ViViT, with PyAV, and the frames that the pipeline would take.
PLAIN = """
import sys, json, av, numpy as np, torch
from transformers import AutoImageProcessor, AutoModelForVideoClassification
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[sys.argv[3]]
processor = AutoImageProcessor.from_pretrained(sys.argv[1])
model = AutoModelForVideoClassification.from_pretrained(sys.argv[1], dtype=dtype).eval()
frames = int(sys.argv[4])
wanted = np.linspace(0, 2 * frames - 1, frames).astype(int)
with av.open(sys.argv[2]) as container:
    frames = {}
    for number, frame in enumerate(container.decode(video=0)):
        if number in wanted:
            frames[number] = frame.to_ndarray(format="rgb24")
        if number >= wanted[-1]:
            break
inputs = processor([frames[i] for i in wanted], return_tensors="pt").to(dtype)
with torch.no_grad():
    scores = model(**inputs).logits.softmax(-1)[0].float()
print(json.dumps([{"score": s, "label": model.config.id2label[i]} for i, s in enumerate(scores.tolist())]))
"""

# The same frames and the same processor for both, so that logits can be compared.
LOGITS = """
import sys, json, torch, transformers, vidcls
clip = vidcls.load(sys.argv[1], num_views=1, num_crops=1, fps="native", engine="eager").read(sys.argv[2])
model = transformers.AutoModelForVideoClassification.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    print(json.dumps(model(torch.from_numpy(clip.views).transpose(1, 2)).logits[0].tolist()))
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--model", default="vivit-st", help="entry whose shape the checkpoint has")
    parser.add_argument("--programs", help="names to run, with commas; default: all")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/whole_process.json"))
    args = parser.parse_args()
    spec = load_registry()[args.model]
    with tempfile.TemporaryDirectory(prefix="vidcls-whole-") as folder:
        weights = f"{folder}/model"
        save_reference(spec.architecture, spec.config, weights)
        env = {**os.environ, "VIDCLS_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs have their bytecode, so ours shall too
        record = {"machine": describe(), **compare(weights, spec.input.num_frames, args, env)}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["ratios"], indent=2))
    return 0


def compare(weights: str, num_frames: int, args: argparse.Namespace, env: dict[str, str]) -> dict[str, Any]:
    """Run all programs in turn, or only some; transformers at fp32 is always among them."""
    clip, repetitions, only = args.clip, args.repetitions, args.programs
    ours = [
        sys.executable,
        "-m",
        "vidcls",
        "predict",
        clip,
        "--weights",
        weights,
        "--views",
        "1",
        "--crops",
        "1",
        "-k",
        "400",
    ]
    ours += ["--fps", "native", "-f", "jsonl", "-q", "--device", "cpu"]
    theirs_way = PIPELINE if find_spec("torchcodec") else PLAIN
    programs = {
        "transformers fp32": [sys.executable, "-c", theirs_way, weights, clip, "fp32", str(num_frames)],
        "transformers bf16": [sys.executable, "-c", theirs_way, weights, clip, "bf16", str(num_frames)],
        "vidcls eager fp32": [*ours, "--engine", "eager"],
        "vidcls openvino fp32": [*ours, "--engine", "openvino"],
        "vidcls openvino bf16": [*ours, "--engine", "openvino", "--precision", "bf16"],
    }
    if not cpu_has_bf16():
        programs = {name: command for name, command in programs.items() if not name.endswith("bf16")}
    if only is not None:
        chosen = ["transformers fp32", *only.split(",")]
        programs = {name: command for name, command in programs.items() if name in chosen}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    # The first run of each is not counted: it fills the page cache, and makes and keeps the converted engine.
    making = timed([*ours, "--engine", "openvino"], env)
    for number in range(0 if repetitions > 1 else 1, repetitions + 1):
        for name, command in programs.items():
            run = timed(command, env)
            if number:
                runs[name].append(run)
            print(f"{number} {name}: {run['seconds']:.2f} s", file=sys.stderr, flush=True)
    theirs = np.array(
        json.loads(timed([sys.executable, "-c", LOGITS, weights, clip], env)["output"].splitlines()[-1])
    )
    base = summary("", runs["transformers fp32"])
    ratios: dict[str, Any] = {}
    for name in programs:
        own = summary(name, runs[name])
        ratios[name] = {
            "times_as_fast_as_transformers_fp32": base["seconds"]["median"] / own["seconds"]["median"],
            "times_fewer_processor_seconds": base["cpu_seconds"] / own["cpu_seconds"],
            "share_of_its_memory": own["peak_memory"] / base["peak_memory"],
        }
        if name.startswith("vidcls"):
            ratios[name] |= agreement(runs[name][-1]["output"], theirs)
    return {
        "transformers_by": "pipeline" if theirs_way is PIPELINE else "processor and model, PyAV",
        "programs": [summary(name, runs[name]) for name in programs],
        "making_the_engine_seconds": making["seconds"],
        "ratios": ratios,
    }


def agreement(output: str, theirs: np.ndarray) -> dict[str, Any]:
    """Compare our scores with their logits, both up to the constant that a softmax loses."""
    (row,) = [json.loads(line) for line in output.splitlines()]
    scores = np.zeros(len(theirs))
    for item in row["predictions"]:
        scores[item["index"]] = item["score"]
    ours = np.log(scores)
    error = np.abs((ours - ours.mean()) - (theirs - theirs.mean())).max()
    same = set(np.argsort(-ours)[:5].tolist()) == set(np.argsort(-theirs)[:5].tolist())
    return {"logit_error": float(error), "same_top5": bool(same)}


if __name__ == "__main__":
    sys.exit(main())
