"""Train the bundled camera-motion model from clips made on the fly.

    python -m vidcls.training.camera_motion OUT [--steps N]

A run is decided by its settings: clips, their order, the initialisation and every step follow from the seed. It can be
broken off at any moment; the same command goes on from the last snapshot.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidcls.models import build
from vidcls.training.camera import LABELS
from vidcls.training.motion_teacher import MotionTeacher
from vidcls.training.synthetic import CameraMotionDataset, ClipSpec

TEST_SEED = 7_777_777
"""Seed of the synthetic test split; training never uses it."""
FILTER_RATE = 0.03
"""Learning rate of the filters as a share of the others'.

Whitening balances brightness away to within a thousandth, which a few ordinary steps of Adam would undo.
"""
WHITENING_BLOCKS = 5
"""Blocks of clips whose tubelets give the filters at step 0; no step trains on them."""
SPACE_POSITIONS, TIME_POSITIONS = 0.4, 0.2
"""Amplitudes of the position embeddings at step 0."""
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run.

    Attributes:
        seed: Seed of clips and initialisation.
        steps: Optimizer steps.
        batch: Clips of a step.
        learning_rate: Peak rate; it rises over `warmup` steps and falls as a half cosine to zero.
        warmup: Steps.
        weight_decay: AdamW's, on matrices only.
        clip_norm: Largest norm of the gradient.
        smoothing: Label smoothing.
        teaching: Weight of the motion in the loss; see `MotionTeacher`.
        ema: Decay of the running mean of the weights, which is what is kept.
        repeats: Symmetric images used of each clip drawn.
        plain_steps: Steps over which plain clips give way to the full variety.
        lively_steps: Step from which on half of the clips are lively: hand-held, and crowded.
        image_size: Height and width of the model's views in pixels.
        tubelet_size: Frames and pixels (t, h, w) of a token.
        embed_dim: Width.
        depth: Blocks in space.
        temporal_depth: Blocks in time.
        num_heads: Heads of both.
    """

    seed: int = 2021
    steps: int = 6_400
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    smoothing: float = 0.05
    teaching: float = 1.5
    ema: float = 0.9985
    repeats: int = 2
    plain_steps: int = 1000
    lively_steps: int = 3600
    image_size: int = 48
    tubelet_size: tuple[int, int, int] = (4, 8, 8)
    embed_dim: int = 128
    depth: int = 4
    temporal_depth: int = 2
    num_heads: int = 4

    def clip_spec(self) -> ClipSpec:
        return ClipSpec(side=self.image_size)

    def model(self) -> nn.Module:
        """The untrained model, its filters not yet whitened."""
        return build(
            "vivit-fe",
            image_size=self.image_size,
            num_frames=self.clip_spec().num_frames,
            tubelet_size=self.tubelet_size,
            num_classes=len(LABELS),
            embed_dim=self.embed_dim,
            depth=self.depth,
            temporal_depth=self.temporal_depth,
            num_heads=self.num_heads,
            pool="gap",
        )

    def input(self) -> dict[str, Any]:
        """How a video reaches the model (fields of `vidcls.config.InputSpec`)."""
        spec = self.clip_spec()
        return {
            "num_frames": spec.num_frames,
            "stride": spec.stride,
            "fps": spec.fps,
            "num_views": 4,
            "num_crops": 1,
            "sampling": "vivit",
            "image_size": (self.image_size, self.image_size),
            "resize": self.image_size,
            "resize_rule": "round",
        }


def normalised(clips: Tensor) -> Tensor:
    """Clips (b, t, h, w, c) uint8 to views (b, c, t, h, w) float32 in [-1, 1]."""
    return clips.permute(0, 4, 1, 2, 3).float() * (2 / 255) - 1


def whitened_patch_filters(
    clips: np.ndarray, tubelet_size: tuple[int, int, int], count: int
) -> tuple[Tensor, Tensor]:
    """Filters that make the tokens of training clips white: principal components, each scaled to variance one.

    With ordinary filters brightness swamps motion in every token; whitened, the small changes over time count as much.
    The components are those of luminance, since motion shows in it and they are then three times as many.

    Args:
        clips: (n, t, h, w, 3) uint8.
        tubelet_size: Frames, height and width of a tubelet.
        count: Number of filters; at most the number of pixels of a tubelet in all its frames.

    Returns:
        Kernels (count, 3, t, h, w) and biases (count,), for pixels scaled to [-1, 1].
    """
    t, h, w = tubelet_size
    x = (clips.astype(np.float32) * (2 / 255) - 1) @ np.array(LUMA, np.float32)
    n, frames, height, width = x.shape
    x = x.reshape(n, frames // t, t, height // h, h, width // w, w).transpose(0, 1, 3, 5, 2, 4, 6)
    tubelets = x.reshape(-1, t * h * w).astype(np.float64)
    mean = tubelets.mean(0)
    centred = tubelets - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    variance, axes = variance[::-1][:count], axes[:, ::-1][:, :count]
    # The floor keeps components that are little but noise from being blown up.
    filters = axes.T / np.sqrt(variance + 0.03)[:, None]
    bias = -filters @ mean
    kernels = filters.reshape(count, 1, t, h, w) * np.array(LUMA).reshape(1, 3, 1, 1, 1)
    return torch.from_numpy(kernels).float(), torch.from_numpy(bias).float()


Batch = tuple[Tensor, Tensor, Tensor]
"""Clips (b, t, s, s, 3) uint8, class ids (b,), the camera's steps (b, t - 1, 4)."""


def _make_block(settings: Settings, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One block of training items, stacked: clips, class ids, steps."""
    plain = settings.plain_steps * settings.batch
    data = CameraMotionDataset(
        settings.seed,
        1 << 40,
        settings.clip_spec(),
        settings.repeats,
        plain_items=plain,
        lively_items=settings.lively_steps * settings.batch,
    )
    items = data.make_block(number)
    clips, labels = np.stack([item.frames for item in items]), np.array([item.label for item in items])
    return clips, labels, np.stack([item.steps for item in items])


def _in_the_background() -> None:
    torch.set_num_threads(1)


def batches(settings: Settings, first: int, workers: int) -> Iterator[Batch]:
    """Training batches in their fixed order, from step `first` on.

    Yields:
        See `Batch`.
    """
    per_block = CameraMotionDataset.block * settings.repeats // settings.batch
    number, skip = divmod(first, per_block)
    with ProcessPoolExecutor(workers, initializer=_in_the_background) as pool:
        ahead: list[Future[tuple[np.ndarray, np.ndarray, np.ndarray]]] = []
        while True:
            while len(ahead) < workers + 2:
                ahead.append(pool.submit(_make_block, settings, number))
                number += 1
            clips, labels, steps = (torch.from_numpy(a) for a in ahead.pop(0).result())
            for k in range(skip, per_block):
                part = slice(k * settings.batch, (k + 1) * settings.batch)
                yield clips[part], labels[part], steps[part]
            skip = 0


def learning_rate(settings: Settings, step: int) -> float:
    """Rate at a step: linear warm-up, then half a cosine to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def sine_positions(grid: tuple[int, ...], dim: int, longest: float, shortest: float = 3.0) -> Tensor:
    """Sine and cosine positions on a grid, some components for each axis.

    Args:
        grid: Tokens along every axis.
        dim: Width; a multiple of twice the number of axes.
        longest: Longest wavelength in tokens.
        shortest: Shortest wavelength in tokens.

    Returns:
        (product of the grid, dim), amplitude 1.
    """
    count = dim // (2 * len(grid))
    wave = 2 * math.pi / torch.logspace(math.log10(longest), math.log10(shortest), count)
    axes = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * wave for axis in axes]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def initialised(settings: Settings) -> nn.Module:
    """The model at step 0: seeded, with whitened filters and positions that are felt beside them.

    Zooms and rolls differ from pans only in where the picture moves which way. Whitened tokens have a norm of about 6;
    the usual positions, of a norm of 0.2, go unnoticed for thousands of steps.
    """
    torch.manual_seed(settings.seed)
    model = settings.model()
    clips = np.concatenate([_make_block(settings, (1 << 30) + k)[0][::2] for k in range(WHITENING_BLOCKS)])
    kernels, bias = whitened_patch_filters(clips, settings.tubelet_size, settings.embed_dim)
    embedding = next(module for module in model.modules() if isinstance(module, nn.Conv3d))
    with torch.no_grad():
        embedding.weight.copy_(kernels)
        if embedding.bias is not None:
            embedding.bias.copy_(bias)
        # Attention in space starts as nothing, so that each token first finds its own motion.
        for name, weight in model.named_parameters():
            if name.startswith("spatial.") and name.endswith("attn.proj.weight"):
                weight.zero_()
        (steps, _, _), side = settings.tubelet_size, settings.image_size
        steps = settings.clip_spec().num_frames // steps
        grid = side // settings.tubelet_size[1], side // settings.tubelet_size[2]
        space = sine_positions(grid, settings.embed_dim, 24.0) * SPACE_POSITIONS
        model.get_parameter("spatial.pos_embed").copy_(space[None])
        time_steps = sine_positions((steps,), settings.embed_dim, 32.0) * TIME_POSITIONS
        model.get_parameter("temporal.pos_embed").copy_(time_steps[None])
    return model


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """AdamW; biases, norms and position embeddings do not decay, and the filters learn slowly."""
    named = list(model.named_parameters())
    filters = [p for name, p in named if "patch_embed" in name]
    matrices = [
        p for name, p in named if p.ndim > 1 and "pos_embed" not in name and "patch_embed" not in name
    ]
    others = [p for name, p in named if (p.ndim <= 1 or "pos_embed" in name) and "patch_embed" not in name]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay, "share": 1.0},
        {"params": others, "weight_decay": 0.0, "share": 1.0},
        {"params": filters, "weight_decay": 0.0, "share": FILTER_RATE},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def save_snapshot(path: Path, **content: Any) -> None:
    """Write a snapshot so that a broken-off write leaves the old one."""
    unfinished = path.with_suffix(".partial")
    torch.save(content, unfinished)
    unfinished.replace(path)


def synthetic_test_set(settings: Settings, count: int) -> tuple[Tensor, Tensor]:
    """Clips of the test split, which no training run has seen: (n, t, s, s, 3) uint8 and class ids (n,)."""
    data = CameraMotionDataset(TEST_SEED, count, settings.clip_spec())
    items = [data[i] for i in range(count)]
    return torch.from_numpy(np.stack([c for c, _ in items])), torch.tensor([k for _, k in items])


@torch.inference_mode()
def accuracy(model: nn.Module, clips: Tensor, labels: Tensor) -> tuple[float, list[float]]:
    """Top-1 of single views, and per class."""
    model.eval()
    logits = torch.cat([model(normalised(part)) for part in torch.split(clips, 32)])
    right = (logits.argmax(-1) == labels).float()
    model.train()
    per_class = [right[labels == k].mean().item() for k in range(len(LABELS))]
    return right.mean().item(), per_class


def train(
    out: Path, settings: Settings, workers: int = 1, snapshot_s: float = 120.0, test_clips: int = 480
) -> Path:
    """Train, or go on with a broken-off run.

    Args:
        out: Folder of the run: snapshot.pt, log.jsonl and camera-motion.safetensors.
        settings: The run.
        workers: Processes that make clips.
        snapshot_s: Seconds between snapshots.
        test_clips: Clips of the synthetic test split on which accuracy is logged every 500 steps.

    Returns:
        Path of the finished model.
    """
    out.mkdir(parents=True, exist_ok=True)
    snapshot = out / "snapshot.pt"
    model = initialised(settings).train() if not snapshot.exists() else settings.model().train()
    average = deepcopy(model)
    torch.manual_seed(settings.seed + 1)
    teacher = MotionTeacher(model, settings)
    optimizer = make_optimizer(nn.ModuleList([model, teacher]), settings)
    step = 0
    if snapshot.exists():
        saved = torch.load(snapshot, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        teacher.load_state_dict(saved["teacher"])
        optimizer.load_state_dict(saved["optimizer"])
        step = int(saved["step"])
    test = synthetic_test_set(settings, test_clips)
    begun, last_snapshot, seen, loss_sum, flow_sum, right = time.monotonic(), time.monotonic(), 0, 0.0, 0.0, 0
    for clips, labels, steps in batches(settings, step, workers):
        if step >= settings.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step) * group["share"]
        optimizer.zero_grad(set_to_none=True)
        # On CPUs the plain attention is a quarter faster, backward, than the fused one at these sizes.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(normalised(clips))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.smoothing)
            taught = teacher(steps)
            (loss + settings.teaching * taught).backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        step += 1
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        seen, loss_sum = seen + len(labels), loss_sum + loss.item() * len(labels)
        flow_sum += taught.item() * len(labels)
        right += int((logits.argmax(-1) == labels).sum())
        if step % 100 == 0:
            row = {"step": step, "loss": loss_sum / seen, "flow": flow_sum / seen, "train_top1": right / seen}
            row["clips_per_s"] = seen / (time.monotonic() - begun)
            if step % 500 == 0:
                row["test_top1"], classes = accuracy(average, *test)
                row |= {"classes": [round(k, 3) for k in classes]}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            begun, seen, loss_sum, flow_sum, right = time.monotonic(), 0, 0.0, 0.0, 0
        if time.monotonic() - last_snapshot > snapshot_s or step == settings.steps:
            save_snapshot(
                snapshot, model=model.state_dict(), average=average.state_dict(), teacher=teacher.state_dict(),
                optimizer=optimizer.state_dict(), step=step,
            )  # fmt: skip
            last_snapshot = time.monotonic()
    return save_model(average, settings, out / "camera-motion.safetensors", step)


def save_model(model: nn.Module, settings: Settings, path: Path, step: int) -> Path:
    """Write the self-describing checkpoint that `vidcls predict --weights` reads."""
    from vidcls.checkpoints import save_checkpoint

    changed = {k: v for k, v in asdict(settings).items() if v != getattr(Settings(), k)}
    options = "".join(f" --{k.replace('_', '-')} {v}" for k, v in changed.items())
    extra = {
        "made_by": "python -m vidcls.training.camera_motion OUT" + options,
        "step": step,
        "settings": asdict(settings),
    }
    half = torch.float16  # 2.6 MB instead of 5.2; the answers stay the same
    save_checkpoint(model.eval(), path, labels=LABELS, input=settings.input(), extra=extra, dtype=half)
    return path


def main() -> None:
    """Command line of a run; every setting is an option."""
    parser = argparse.ArgumentParser(description="Train the camera-motion model on clips made on the fly.")
    parser.add_argument("out", type=Path, help="folder of the run; a broken-off run there goes on")
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training process")
    for name, value in asdict(Settings()).items():
        kind = (lambda s: tuple(int(x) for x in s.split(","))) if isinstance(value, tuple) else type(value)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=value)
    options = vars(parser.parse_args())
    out, workers = options.pop("out"), options.pop("workers")
    torch.set_num_threads(options.pop("threads"))
    path = train(out, Settings(**options), workers)
    print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
