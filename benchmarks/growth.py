"""How time grows with frames, views, crops and resolution: one fitted exponent for each, and a plot.

python benchmarks/growth.py [-o benchmarks/results/growth.json] [--plot docs/growth.png] [--width 64]

Times are the processor's, of one thread, so that other programs on the machine disturb them little. The models have
the published depth divided by six and a twelfth of the width, which changes the constants but not how cost grows:
attention overtakes the rest at about six times as many tokens as channels, and narrow models show that at sizes that
are quickly measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.bench.machine import describe
from vidcls.bench.worker import clip_of
from vidcls.config import InputSpec, ModelSpec
from vidcls.inference.classifier import Classifier

MODELS = ("vivit-st", "vivit-fe", "vivit-fsa", "vivit-fdp", "timesformer-divided", "vtn", "vit-frames")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/growth.json"))
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--small", action="store_true", help="sizes for a test of this script")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    record: dict[str, Any] = {"machine": describe(), "width": args.width, "models": {}}
    for name in MODELS:
        record["models"][name] = {
            what: fit(points) for what, points in measure(name, args.width, args.small).items()
        }
        exponents = {what: round(found["exponent"], 2) for what, found in record["models"][name].items()}
        print(f"{name}: {exponents}", file=sys.stderr, flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if args.plot is not None:
        plot(record, args.plot)
    return 0


def measure(name: str, width: int, small: bool) -> dict[str, list[tuple[float, float]]]:
    """Measure one model → what changes → (size, processor seconds)."""
    frames = (4, 8, 16) if small else (64, 128, 256, 512)
    sides = (16, 32, 48) if small else (128, 192, 256, 384)
    side, count = (32, 8) if small else (128, 32)
    found: dict[str, list[tuple[float, float]]] = {
        "frames": [(n, seconds(name, width, n, side)) for n in frames],
        "resolution": [(s * s, seconds(name, width, count // 2, s)) for s in sides],
    }
    found["views"] = [(v, seconds(name, width, count, side, views=v)) for v in (1, 2, 4)]
    found["crops"] = [(c, seconds(name, width, count, side, crops=c)) for c in (1, 3)]
    return found


def seconds(name: str, width: int, frames: int, side: int, views: int = 1, crops: int = 1) -> float:
    """Processor seconds of one clip, the best of three."""
    classifier = make(name, width, frames, side, views, crops)
    clip = clip_of(classifier.spec.input)
    run: Callable[[], object] = lambda: classifier.clip_logits(clip)  # noqa: E731
    run()
    times = []
    for _ in range(3):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    classifier.close()
    return min(times)


def make(name: str, width: int, frames: int, side: int, views: int, crops: int) -> Classifier:
    """A narrow and shallow model of one architecture; views lie so far apart that they share no frame."""
    from vidcls.engines import make_engine
    from vidcls.models import build

    sizes: dict[str, Any] = {"num_classes": 10}
    heads = max(2, width // 64)  # Model 4 shares them between time and space
    encoder = {"embed_dim": width, "depth": 2, "num_heads": heads}
    if name == "vtn":
        sizes |= {"backbone": {**encoder, "patch_size": 16}, "image_size": side, "temporal_depth": 1}
    elif name == "vit-frames":
        sizes |= {**encoder, "patch_size": 16, "image_size": side}
    elif name.startswith("timesformer"):
        sizes |= {**encoder, "image_size": side, "num_frames": frames}
    else:
        sizes |= {**encoder, "image_size": side, "num_frames": frames, "tubelet_size": (2, 16, 16)}
        sizes |= {"temporal_depth": 1} if name == "vivit-fe" else {}
    view = InputSpec(
        num_frames=frames,
        stride=1,
        fps=60.0,  # a clip of ten seconds has enough frames for the longest view
        num_views=views,
        num_crops=crops,  # type: ignore[arg-type]
        sampling="vivit",
        image_size=(side, side),
        resize=side,
    )
    spec = ModelSpec(name=name, architecture=name, input=view)
    model = build(name, **sizes).eval()
    uses = bool(getattr(model, "uses_frame_indices", False))
    labels = tuple(map(str, range(10)))
    return Classifier(
        make_engine(model, "cpu", "fp32"), spec, labels, weights="random", uses_frame_indices=uses
    )


def fit(points: list[tuple[float, float]]) -> dict[str, Any]:
    """Fit seconds = a · size^exponent; the exponent of the last two sizes says where it is heading."""
    x, y = np.log(np.array(points)).T
    exponent = float(np.polyfit(x, y, 1)[0])
    last = float((y[-1] - y[-2]) / (x[-1] - x[-2]))
    return {"exponent": exponent, "exponent_of_last_two": last, "points": points}


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw all points and their exponents."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = ("frames", "resolution", "views", "crops")
    labels = ("frames of a view", "pixels of a frame", "views", "crops")
    figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    for axis, kind, label in zip(axes, kinds, labels, strict=True):
        for name, found in record["models"].items():
            x, y = zip(*found[kind]["points"], strict=True)
            axis.loglog(x, y, "o-", label=f"{name}: {found[kind]['exponent']:.2f}")
        axis.set(xlabel=label, ylabel="processor seconds of a clip")
        axis.legend(fontsize=7, title="exponent")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
