"""Do the published designs see motion? All of them at toy size and equal cost, on one task that no picture gives away.

    python benchmarks/motion_ablation.py

The task: a bright soft blob on a grainy still background moves left, right, up or down. It may be anywhere at any
moment, so that a single picture tells nothing (25 %), and left and right consist of the same pictures in another order.
Every model has the width that brings it nearest to the same number of multiply-adds for one clip, and the same clips,
steps, optimizer and schedule. Initialization is each design's own, but for what is too small to learn from at toy
size (see `scale_start`).

Writes motion-ablation.md, .png and .json into docs/. A model whose figures are in the .json is not trained again.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vidcls.models import build

SIDE, FRAMES, PATCH = 16, 8, 4
DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))
"""(y, x) of left, right, up, down."""
TEST_SEED = 1_000_000
TEST_CLIPS = 1024
EVERY = 100
"""Steps between two tests."""
EMBEDDING = re.compile(r"(pos|time|position)_embed(\.weight)?$")
"""Parameters that say where or when a token is."""
EMBEDDING_STD = 0.5


@dataclass(frozen=True)
class Design:
    """One model of the comparison.

    Attributes:
        title: As the papers call it.
        architecture: Key of `vidcls.models.ARCHITECTURES`.
        config: Its keywords, without sizes that all share and without the width.
        can_see: Whether the design can tell the order of frames at all.
        rate: Share of the learning rate that it stands.
    """

    title: str
    architecture: str
    config: dict[str, Any]
    can_see: bool = True
    rate: float = 1.0


TUBELETS = {"tubelet_size": (2, PATCH, PATCH), "depth": 4, "num_heads": 4}
PATCHES = {"patch_size": PATCH, "depth": 4, "num_heads": 4, "drop_path_rate": 0.0}
DESIGNS = (
    Design("ViT on each frame, averaged", "vit-frames", PATCHES, can_see=False),
    Design("TimeSformer, space only", "timesformer-space", PATCHES, can_see=False),
    Design("ViViT 1, spatio-temporal", "vivit-st", TUBELETS),
    Design("ViViT 2, factorized encoder", "vivit-fe", {**TUBELETS, "temporal_depth": 2}),
    Design("ViViT 3, factorized self-attention", "vivit-fsa", TUBELETS),
    Design("ViViT 4, factorized dot product", "vivit-fdp", TUBELETS),
    Design("TimeSformer, joint", "timesformer-joint", PATCHES),
    Design("TimeSformer, divided", "timesformer-divided", PATCHES),
    Design("TimeSformer, local-global", "timesformer-local-global", PATCHES),
    Design("TimeSformer, axial", "timesformer-axial", PATCHES),
    # Longformer's layers normalize after each sum, as BERT's. At the full rate, or with two of them at half of it, the
    # class token forgot the frames within 200 steps, and then no gradient reached the backbone any more.
    Design(
        "VTN",
        "vtn",
        {"temporal_depth": 1, "dropout": 0.0, "attn_dropout": 0.0, "head_dropout": 0.0},
        rate=0.5,
    ),
)


@dataclass(frozen=True)
class Setting:
    """What all models share.

    Attributes:
        steps: Optimizer steps.
        batch: Clips of a step.
        learning_rate: Peak of AdamW's rate, after a linear rise over a tenth of the steps; then half a cosine.
        mmacs: Multiply-adds for one clip in millions.
        seed: Of weights and clips.
    """

    steps: int = 1500
    batch: int = 32
    learning_rate: float = 1e-3
    mmacs: float = 24.0
    seed: int = 0


def make_batch(seed: int, number: int, count: int) -> tuple[Tensor, Tensor]:
    """Batch ``number`` of ``count`` clips: (b, 3, t, h, w) float32 in -1..1, and their directions 0..3."""
    clips, labels, _ = draw_batch(seed, number, count)
    return torch.from_numpy(clips), torch.from_numpy(labels)


def draw_batch(
    seed: int, number: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """What `make_batch` gives, and where the blob is: (b, t, h, w), 1 in its middle."""
    rng = np.random.default_rng([seed, number])
    labels = rng.integers(len(DIRECTIONS), size=count)
    moves = np.array(DIRECTIONS)[labels]  # (b, 2), (y, x)
    when = np.arange(FRAMES) - (FRAMES - 1) / 2
    # A path crosses two fifths to three fifths of the picture, and lies anywhere within it. Across the path the blob
    # stands where it might be at some moment of another path, so that a place tells neither axis nor direction.
    reach = rng.uniform(0.4, 0.6, (count, 2, 1)) * SIDE / (FRAMES - 1)
    ends = reach * (FRAMES - 1) / 2 + SIDE / 16
    middle = rng.uniform(ends, SIDE - ends)
    at = np.where(
        moves[..., None] != 0, moves[..., None] * when, rng.choice(when, (count, 2, 1))
    )  # (b, 2, t)
    places = (middle + reach * at).transpose(0, 2, 1)  # (b, t, 2)
    radius = rng.uniform(0.07, 0.12, count) * SIDE
    color = rng.uniform(0.5, 1.0, (count, 3))
    away = np.arange(SIDE) + 0.5 - places[..., None]  # (b, t, 2, side)
    bumps = np.exp(-(away**2) / (2 * radius[:, None, None, None] ** 2))
    shape = bumps[:, :, 0, :, None] * bumps[:, :, 1, None, :]  # (b, t, h, w)
    still = rng.normal(0.0, 0.1, (count, 1, 1, SIDE, SIDE)) + rng.uniform(-0.2, 0.2, (count, 1, 1, 1, 1))
    clips = np.clip(still + color[:, :, None, None, None] * shape[:, None], -1, 1)
    return clips.astype(np.float32), labels, shape


def make_model(design: Design, width: int) -> nn.Module:
    """The design at a width."""
    shared: dict[str, Any] = {"image_size": SIDE, "num_frames": FRAMES, "num_classes": len(DIRECTIONS)}
    if design.architecture == "vtn":
        backbone = {"patch_size": PATCH, "embed_dim": width, "depth": 4, "num_heads": 4}
        shared |= {"backbone": backbone, "temporal_num_heads": 4}
        return build("vtn", **shared, **design.config)
    return build(design.architecture, **shared, embed_dim=width, **design.config)


def scale_start(model: nn.Module, width: int) -> None:
    """Start narrow models from nothing; what the papers start from is 768 wide, and has seen millions of pictures.

    Embeddings of place and time are drawn at `EMBEDDING_STD`, about the size of the tokens they are added to. As
    released they are 0.02 or zero, and where a token is a single picture, motion is the product of place and time:
    with the released start joint and local-global attention were at 63 % after 1,200 steps.
    Other weights drawn from a normal of 0.02 are scaled as 1/√width, which keeps the size of what goes through the
    layers. ViViT draws those by fan-in.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if EMBEDDING.search(name):
                parameter.normal_(std=EMBEDDING_STD)
            elif parameter.ndim > 1 and 0.015 < float(parameter.std()) < 0.025:
                parameter *= math.sqrt(768 / width)


def count_mmacs(model: nn.Module) -> float:
    """Multiply-adds of one clip in millions: matrix products, convolutions and attention."""
    counter = FlopCounterMode(display=False)
    # While gradients are recorded, nothing is left out of the last block.
    with sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(torch.zeros(1, 3, FRAMES, SIDE, SIDE))
    return counter.get_total_flops() / 2e6


def fit_width(design: Design, mmacs: float) -> int:
    """The width, a multiple of 4, whose cost is nearest to ``mmacs``; costs grow with the width."""
    widths = range(16, 129, 4)
    above = bisect.bisect_left(widths, mmacs, key=lambda width: count_mmacs(make_model(design, width)))
    near = widths[max(0, above - 1) : above + 1]
    return min(near, key=lambda width: abs(count_mmacs(make_model(design, width)) - mmacs))


@torch.inference_mode()
def accuracy(model: nn.Module, clips: Tensor, labels: Tensor) -> float:
    """Share of clips whose direction is told right."""
    model.eval()
    hits = [
        (model(part).argmax(1) == right)
        for part, right in zip(clips.split(128), labels.split(128), strict=True)
    ]
    model.train()
    return float(torch.cat(hits).float().mean())


def fit(
    design: Design, setting: Setting, told: Callable[[int, nn.Module], None] = lambda step, model: None
) -> tuple[nn.Module, int]:
    """Train one design; returns the model, in training mode, and its width.

    Args:
        design: What to train.
        setting: How.
        told: Is called after each step, with how many there have been.
    """
    torch.manual_seed(setting.seed)
    width = fit_width(design, setting.mmacs)
    model = make_model(design, width)
    scale_start(model, width)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=setting.learning_rate, weight_decay=0.05, betas=(0.9, 0.98)
    )
    for step in range(setting.steps):
        clips, labels = make_batch(setting.seed, step, setting.batch)
        progress = step / setting.steps
        scale = (
            min(1.0, (step + 1) / (0.1 * setting.steps))
            * 0.5
            * (1 + math.cos(math.pi * max(0, progress - 0.1) / 0.9))
        )
        for group in optimizer.param_groups:
            group["lr"] = setting.learning_rate * design.rate * scale
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(clips), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        told(step + 1, model)
    return model, width


def train(design: Design, setting: Setting) -> dict[str, Any]:
    """Train one design; returns its figures."""
    test = make_batch(TEST_SEED, 0, TEST_CLIPS)
    begun, curve = time.perf_counter(), []

    def measure(step: int, model: nn.Module) -> None:
        if step % EVERY == 0 or step == setting.steps:
            curve.append((step, accuracy(model, *test)))
            print(f"  step {step}: {curve[-1][1]:.1%}", file=sys.stderr, flush=True)

    model, width = fit(design, setting, measure)
    return {
        "title": design.title,
        "architecture": design.architecture,
        "can_see": design.can_see,
        "width": width,
        "mmacs": count_mmacs(model),
        "params": sum(p.numel() for p in model.parameters()),
        "top1": curve[-1][1],
        "curve": curve,
        "seconds": time.perf_counter() - begun,
    }


def write_table(results: dict[str, dict[str, Any]], setting: Setting, path: Path) -> None:
    """Write the page with the table."""
    text = f"""# Which designs see motion?

`python benchmarks/motion_ablation.py` trains every design here at toy size ({FRAMES} frames of {SIDE}×{SIDE} pixels,
patches of {PATCH}×{PATCH}) on one task: a bright blob on a still, grainy background moves left, right, up or down. It
may be anywhere at any moment, so that a single picture tells nothing (25 %), and left and right consist of the same
pictures in another order (50 % for a model that knows all pictures but not their order). Each design has the width
that brings it nearest to {setting.mmacs:g} million multiply-adds a clip, and sees the same
{setting.steps * setting.batch:,} clips
in {setting.steps} steps (AdamW, peak rate {setting.learning_rate:g}, warm-up and cosine, one seed). Weights start as
each design has it, but for two things that toy size needs: embeddings of place and time are drawn with a standard
deviation of {EMBEDDING_STD:g}, and other normals of 0.02, meant for a width of 768, are scaled by √(768 / width).
Accuracy is on {TEST_CLIPS} clips of another seed: its standard error is about 1.4 points at 25 %, and less toward
100 %.

| design | architecture | width | million multiply-adds | parameters | top-1 | 90 % by step |
|---|---|--:|--:|--:|--:|--:|
"""
    for design in DESIGNS:
        if design.architecture in results:
            r = results[design.architecture]
            reached = next((step for step, share in r["curve"] if share >= 0.9), "–")
            text += (
                f"| {r['title']} | `{r['architecture']}` | {r['width']} | {r['mmacs']:.1f} | {r['params']:,} "
                f"| {r['top1']:.1%} | {reached} |\n"
            )
    text += "\n![accuracy over training](motion-ablation.png)\n"
    notes = path.with_suffix(".notes.md")
    if notes.exists():
        text += "\n" + notes.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw accuracy over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, design in enumerate(d for d in DESIGNS if d.architecture in results):
        r = results[design.architecture]
        axes.plot(*zip(*r["curve"], strict=True), label=r["title"], color=f"C{number % 10}",
                  linestyle="-" if design.can_see else "--", marker="." if number > 9 else None)  # fmt: skip
    axes.axhline(0.25, color="0.6", linewidth=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("top-1 accuracy")
    axes.set_ylim(0.15, 1.02)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, format="png", dpi=110)


def main() -> None:
    """Train what has no figures yet, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the page"
    )
    parser.add_argument("--models", nargs="*", help="architectures to train; all by default")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    for name, value in asdict(Setting()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    options = vars(parser.parse_args())
    out, models = options.pop("out"), options.pop("models")
    torch.set_num_threads(options.pop("threads"))
    setting = Setting(**options)
    store = out / "motion-ablation.json"
    saved = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    results = saved.get("results", {}) if saved.get("setting") == asdict(setting) else {}
    for design in DESIGNS:
        if design.architecture in results or (models and design.architecture not in models):
            continue
        print(design.title, file=sys.stderr, flush=True)
        results[design.architecture] = train(design, setting)
        out.mkdir(parents=True, exist_ok=True)
        partial = store.with_suffix(".partial")
        partial.write_text(
            json.dumps({"setting": asdict(setting), "results": results}, indent=1) + "\n", encoding="utf-8"
        )
        partial.replace(store)
        write_table(results, setting, out / "motion-ablation.md")
        draw(results, out / "motion-ablation.png")
    print(out / "motion-ablation.md")


if __name__ == "__main__":
    main()
