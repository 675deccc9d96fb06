"""Train a model: one loop, resumable at any step, for one device or several (through accelerate).

A run is a folder: ``recipe.yaml`` (all settings), ``labels.txt``, ``metrics.jsonl``, ``curves.png``,
``best.safetensors`` and ``last.safetensors`` (self-describing, for `vidcls predict --weights`), ``state.pt`` (from
which it goes on), and ``bad-clips.csv`` where there were any.

On a CPU the result follows from the recipe alone, whether or not the run was broken off in between: every clip is
determined by (seed, epoch, index), every other draw by a generator whose state is saved.
"""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidcls.config import load_registry
from vidcls.engines.torch import cpu_has_bf16
from vidcls.errors import OutputError, UsageError
from vidcls.training import checkpointing, logs, optim, setup
from vidcls.training.camera_motion.motion_start import fill_positions
from vidcls.training.data.augment import mix, mixup_share, soft_targets
from vidcls.training.data.dataset import Batch
from vidcls.training.recipe import Recipe
from vidcls.training.recipe_file import RECIPE, recipe_text, with_absolute_paths
from vidcls.training.runtime import (
    TrainingError,
    make_accelerator,
    readable_errors,
    seed_all,
    stop_between_steps,
)
from vidcls.training.validate import Scores, validate

LABELS = "labels.txt"
LOG_EVERY = 50
"""Steps between two rows of step metrics."""


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        folder: The run.
        weights: The best checkpoint.
        steps: Optimizer steps.
        scores: The best validation, or None without one.
        bad_clips: How many clips could not be read.
        main: Whether this is the first of several processes, which speaks for all.
    """

    folder: Path
    weights: Path
    steps: int
    scores: dict[str, float] | None
    bad_clips: int
    main: bool = True


@dataclass
class Sums:
    """Running sums of an epoch's training figures; part of the saved state."""

    loss: float = 0.0
    right: float = 0.0
    clips: int = 0

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy."""
        count = max(1, self.clips)
        return {"train_loss": self.loss / count, "train_top1": self.right / count}


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    quiet: bool = False,
) -> Result:
    """Train as the recipe says, or go on with the run in ``out``.

    Args:
        recipe: The whole run.
        out: Its folder.
        resume: Go on where it was broken off; a run that has not saved yet begins anew.
        device: ``auto`` (accelerate's choice) or ``cpu``.
        tensorboard: Write the metrics for TensorBoard too.
        quiet: Print nothing but warnings.

    Raises:
        UsageError: The data has mistakes, or ``out`` holds another run.
        TrainingError: The loss is no number any more.
        DeviceError: Memory ran out, or the precision does not exist here.
        OutputError: The run's files cannot be written.
        KeyboardInterrupt: It was interrupted; the state was saved before.
    """
    trainer = Trainer(recipe, out, resume=resume, device=device, tensorboard=tensorboard, quiet=quiet)
    with readable_errors(out), stop_between_steps() as stopped:
        return trainer.run(stopped)


class Trainer:
    """One run; arguments as for `train`.

    Args:
        recipe: The whole run.
        out: Its folder.
        resume: Go on where it was broken off.
        device: ``auto`` or ``cpu``.
        tensorboard: Write the metrics for TensorBoard too.
        quiet: Print nothing but warnings.
        dry: Check everything up to the model's weights and write nothing; there is nothing to run then.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        resume: bool = False,
        device: str = "auto",
        tensorboard: bool = False,
        quiet: bool = False,
        dry: bool = False,
    ) -> None:
        recipe = with_absolute_paths(recipe)
        self.recipe, self.out, self.quiet = recipe, out, quiet
        state = None if dry else _prepare_folder(out, resume)
        self.accelerator = make_accelerator(recipe.precision, device)
        self.main: bool = self.accelerator.is_main_process
        spec = setup.find_model(recipe, load_registry(recipe.registry))
        self.data = setup.load_data(recipe, spec)
        self.say(*self.data.notes)
        if self.accelerator.device.type == "cpu" and recipe.precision == "bf16" and not cpu_has_bf16():
            self.say("this CPU has no bfloat16 arithmetic: --precision fp32 is many times as fast here")
        seed_all(recipe.seed)
        self.spec = spec
        model = setup.build_model(spec, len(self.data.labels))
        share = {"rank": self.accelerator.process_index, "world_size": self.accelerator.num_processes}
        self.loader, self.val = setup.make_loaders(
            recipe, spec, self.data, pin=self.accelerator.device.type == "cuda", **share
        )
        if state is None:
            self._start(model)
            if self.main and not dry:
                self._write_text(LABELS, "".join(f"{name}\n" for name in self.data.labels))
                self._write_text(RECIPE, recipe_text(recipe))
        frozen = optim.freeze(model, recipe.freeze)
        if frozen:
            self.say(f"{frozen:,} of {sum(p.numel() for p in model.parameters()):,} parameters are frozen")
        self.uses_indices = bool(getattr(model, "uses_frame_indices", False))
        # Before the teacher, whose hooks would be copied with the model.
        self.mean = optim.running_mean(model, recipe.ema) if recipe.ema else None
        self.teacher = setup.make_teacher(model, recipe, self.accelerator.num_processes)
        optimizer = optim.make_optimizer(model, recipe.optimizer, self.teacher)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        for part in (self.mean, self.teacher):
            if part is not None:
                part.to(self.accelerator.device)
        self.epoch = self.step_in_epoch = self.step = 0
        self.best: dict[str, float] | None = None
        self.stale = 0
        self.sums = Sums()
        self.bad = logs.BadClips(out / logs.BAD_CLIPS)
        if dry:
            return
        if state is not None:
            self._restore(state)
        if share["rank"]:  # each device drops other units; only the first one's generator is saved
            torch.manual_seed(recipe.seed + 1_000_003 * share["rank"] + self.step)
        self.metrics = logs.MetricsFile(out / logs.METRICS, self.step) if self.main else None
        self.board = logs.TensorBoard(out, self.step) if tensorboard and self.main else None
        self.progress = logs.Progress(recipe.schedule.epochs, quiet or not self.main)

    @property
    def plain(self) -> nn.Module:
        """The model without accelerate's wrapper."""
        model: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return model

    @property
    def finished(self) -> nn.Module:
        """The weights that count: the running mean where there is one."""
        return self.mean.module if self.mean is not None else self.plain

    def say(self, *lines: str) -> None:
        """Talk on stderr, once however many processes there are."""
        if self.main and not self.quiet:
            for line in lines:
                logs.say(line)

    def _start(self, model: nn.Module) -> None:
        """Fill the weights as the recipe says, and say so."""
        report = setup.start_weights(model, self.spec, self.recipe)
        self.say(f"starting from {report}" if report else f"{self.spec.name}: starting from random weights")
        if report and any(name.startswith("head") for name in report.fresh):
            self.say(f"new head for {len(self.data.labels)} classes: {', '.join(self.data.labels[:8])}"
                     + (" …" if len(self.data.labels) > 8 else ""))  # fmt: skip
        if self.recipe.init.whiten:
            setup.whiten(model, self.loader, self.recipe, self.spec)
        if self.recipe.init.sines:
            fill_positions(model, self.recipe.init.sines)
        names = [name for name, _ in model.named_parameters()]
        for pattern in self.recipe.init.zero:
            for name in optim.matching(names, pattern, "init.zero"):
                nn.init.zeros_(model.get_parameter(name))

    def _write_text(self, name: str, text: str) -> None:
        checkpointing.write_atomically(self.out / name, lambda path: logs.write_text(path, text))

    def run(self, stopped: threading.Event) -> Result:
        """Train to the end; see `train`."""
        recipe, steps = self.recipe, self.loader.steps
        while self.epoch < recipe.schedule.epochs:
            if recipe.patience is not None and self.stale >= recipe.patience:
                self.say(f"no better validation for {self.stale} epochs: stopping")
                break
            self._train_epoch(steps, stopped)
            self._end_epoch()
        if self.board is not None:
            self.board.close()
        self.loader.close()
        if self.val is not None:
            self.val.close()
        return Result(self.out, self.out / checkpointing.BEST, self.step, self.best, len(self.bad), self.main)

    def _train_epoch(self, steps: int, stopped: threading.Event) -> None:
        """All steps that are left of the epoch."""
        self.model.train()
        self.progress.start(self.epoch, steps, self.step_in_epoch)
        begun, waited, clips = time.perf_counter(), 0.0, 0
        groups = self.loader.epoch(self.epoch, self.step_in_epoch)
        try:
            while True:
                before = time.perf_counter()
                group = next(groups, None)
                waited += time.perf_counter() - before
                if group is None:
                    break
                with sdpa_kernel(SDPBackend.MATH) if self.recipe.plain_attention else nullcontext():
                    self._step(group, steps)
                clips += sum(len(part) for part in group) * self.accelerator.num_processes
                elapsed = time.perf_counter() - begun
                speed = {"clips_per_s": clips / elapsed, "data_wait": waited / elapsed}
                self.progress.step(
                    self.epoch, self.step_in_epoch, steps, logs.figures_line(self.sums.means(), speed)
                )
                if self.step % LOG_EVERY == 0:
                    self._log({**self.sums.means(), **speed})
                if stopped.is_set() or (
                    self.step % self.recipe.save_every == 0 and self.step_in_epoch < steps
                ):
                    self._save_state()
                if stopped.is_set():
                    raise KeyboardInterrupt
        finally:
            self.progress.stop()
        self.speed = {"clips_per_s": clips / max(1e-9, time.perf_counter() - begun)}

    def _step(self, group: list[Batch], steps: int) -> None:
        """One step of the optimizer over the parts of a batch."""
        rate = self.recipe.optimizer.lr * self.recipe.schedule.factor(self.step, steps)
        optim.set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(len(part) for part in group)
        for number, part in enumerate(group):
            if self.main:
                self.bad.add(part.bad)
            if part.error is not None:
                raise part.error
            last = number == len(group) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss, right = self._loss(part, number)
                value = float(loss.detach())
                if not np.isfinite(value):
                    raise self._diverged(f"the loss is {value}")
                self.accelerator.backward(loss * (len(part) / total))
            self.sums.loss += value * len(part)
            self.sums.right += right
            self.sums.clips += len(part)
        self._update()
        self.step += 1
        self.step_in_epoch += 1

    def _loss(self, part: Batch, number: int) -> tuple[Tensor, float]:
        """Loss of one part, mean over heads and clips, and how many clips it has right."""
        recipe = self.recipe
        part = part.to(self.accelerator.device)
        draw = np.random.default_rng(
            [recipe.seed, 104_729, self.step, number, self.accelerator.process_index]
        )
        share = mixup_share(recipe.mixup, draw)
        with self.accelerator.autocast():
            views = mix(part.views, share)
            logits = self.model(views, part.indices) if self.uses_indices else self.model(views)
        losses, right = [], torch.ones(len(part), device=logits.device)
        sizes = [len(names) for names in self.data.classes]
        for head, scores in enumerate(logits.float().split(sizes, dim=1)):
            ids = part.labels[:, head]
            targets = mix(soft_targets(ids, sizes[head], recipe.label_smoothing), share)
            losses.append(F.cross_entropy(scores, targets))
            best = scores.argmax(1)
            right = right * (share * (best == ids) + (1.0 - share) * (best == ids.flip(0)))
        loss = torch.stack(losses).mean()
        if self.teacher is not None and part.motion is not None:
            loss = loss + recipe.synthetic.teaching * self.teacher(part.motion)
        return loss, float(right.sum())

    def _update(self) -> None:
        """Move the weights, unless the gradient is no number."""
        if self.recipe.clip_grad is not None:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
            # fp16 has its own remedy: accelerate's scaler leaves such steps out and scales down.
            if norm is not None and self.recipe.precision != "fp16" and not torch.isfinite(norm):
                raise self._diverged(f"the gradient's norm is {float(norm)}")
        self.optimizer.step()
        if self.mean is not None:
            self.mean.update_parameters(self.plain)

    def _diverged(self, what: str) -> TrainingError:
        kept = f"{checkpointing.STATE} of the last save is in place"
        return TrainingError(
            f"step {self.step}",
            f"{what}; {kept}",
            "lower the learning rate, clip the gradient, or warm up longer",
        )

    def _end_epoch(self) -> None:
        """Validate, save, log; after it the next epoch begins."""
        row: dict[str, Any] = {"epoch": self.epoch + 1, **self.sums.means(), **getattr(self, "speed", {})}
        row["lr"] = max(group["lr"] / group["lr_scale"] for group in self.optimizer.param_groups)
        scores: Scores | None = None
        if self.val is not None:
            scores = validate(
                self.finished, self.val, self.data.classes, self.accelerator, uses_indices=self.uses_indices
            )
            if self.main:
                self.bad.add(scores.bad)
            row.update({f"val_{name}": value for name, value in scores.values.items()})
        better = scores is None or self.best is None or scores.rank > (self.best["top1"], -self.best["loss"])
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = scores.values if scores is not None else None
        row["bad_clips"] = len(self.bad)
        self.epoch, self.step_in_epoch, self.sums = self.epoch + 1, 0, Sums()
        if self.main:
            # The weights first: should we be killed in between, the epoch's end is repeated and writes them again.
            if better:
                self._save_weights(checkpointing.BEST, row)
            self._save_weights(checkpointing.LAST, row)
        self._save_state()
        self._log(row)
        if self.metrics is not None:
            logs.draw_curves(self.metrics.rows, self.out / logs.CURVES)
        self.say(logs.epoch_line(row, self.recipe.schedule.epochs, better and scores is not None))

    def _save_weights(self, name: str, row: dict[str, Any]) -> None:
        from vidcls.checkpoints.native import save_checkpoint

        numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        extra = {
            "step": self.step,
            "metrics": numbers,
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
        }
        model = self.finished
        training = model.training
        model.eval()
        try:
            save_checkpoint(
                model,
                self.out / name,
                labels=self.data.labels,
                input=self.spec.input.model_dump(mode="json"),
                extra=extra,
            )
        except OutputError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise checkpointing.output_error(self.out / name, cause) from error
        finally:
            model.train(training)

    def _log(self, row: dict[str, Any]) -> None:
        row = {"step": self.step, **row}
        if self.metrics is not None:
            self.metrics.add(row)
        if self.board is not None:
            self.board.add(row)

    def _save_state(self) -> None:
        """Write all from which the run goes on exactly."""
        if not self.main:
            return
        state = {
            "model": self.plain.state_dict(),
            "mean": self.mean.state_dict() if self.mean is not None else None,
            "teacher": self.teacher.state_dict() if self.teacher is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            "random": checkpointing.random_states(),
            "position": {"epoch": self.epoch, "step_in_epoch": self.step_in_epoch, "step": self.step},
            "best": self.best,
            "stale": self.stale,
            "sums": {"loss": self.sums.loss, "right": self.sums.right, "clips": self.sums.clips},
            "labels": list(self.data.labels),
        }
        checkpointing.save_state(self.out, state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            UsageError: The data has other classes than when the run was begun.
        """
        if tuple(state["labels"]) != self.data.labels:
            raise UsageError(
                str(self.out), "the data's classes are not those of the run", "start a new run with --out"
            )
        self.plain.load_state_dict(state["model"])
        if self.mean is not None:
            self.mean.load_state_dict(state["mean"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        position = state["position"]
        self.epoch, self.step_in_epoch = position["epoch"], position["step_in_epoch"]
        self.step, self.best, self.stale = position["step"], state["best"], state["stale"]
        self.sums = Sums(**state["sums"])
        checkpointing.restore_random_states(state["random"])
        self.say(f"going on at epoch {self.epoch + 1}, step {self.step}")


def _prepare_folder(out: Path, resume: bool) -> dict[str, Any] | None:
    """Make the run's folder, or read the state of the run that is in it."""
    if not resume and ((out / checkpointing.STATE).exists() or (out / RECIPE).exists()):
        raise UsageError(str(out), "holds a run already", "go on with --resume, or name another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(str(out), f"cannot be made ({error.strerror})", "name another --out") from None
    return checkpointing.load_state(out) if resume else None
