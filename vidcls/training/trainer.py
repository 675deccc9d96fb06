"""The training loop, resumable at any step, for one device or several (through accelerate).

A run is a folder: ``recipe.yaml`` (all settings), ``labels.txt``, ``metrics.jsonl``, ``curves.png``,
``best.safetensors`` and ``last.safetensors`` (self-describing, for `vidcls predict --weights`), ``state.pt`` (from
which it continues), and ``bad-clips.csv`` where there were any.

On a CPU the result follows from the recipe alone, whether or not the run was interrupted: every clip is determined by
(seed, epoch, index), every other draw by a generator whose state is saved.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidcls.errors import UsageError
from vidcls.training import checkpointing, logs, optim, plan
from vidcls.training.data.augment import mix, mixup_share
from vidcls.training.data.dataset import Batch
from vidcls.training.losses import Sums, class_loss, multi_label_loss
from vidcls.training.prepare import Prepared
from vidcls.training.recipe import Recipe
from vidcls.training.recipe_file import RECIPE, recipe_text
from vidcls.training.runtime import (
    TrainingError,
    readable_errors,
    stop_between_steps,
)
from vidcls.training.splitting import VAL, write_lists
from vidcls.training.validate import Scores, validate

LOG_EVERY = 50
"""Steps between two rows of step metrics."""


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        folder: The run.
        weights: The best checkpoint.
        steps: Optimizer steps.
        scores: The best validation, or None without one.
        bad_clips: How many clips could not be read.
        main: Whether this is the first of several processes, the one that prints.
    """

    folder: Path
    weights: Path
    steps: int
    scores: dict[str, float] | None
    bad_clips: int
    main: bool = True


@dataclass
class Position:
    """Where a run stands; part of the saved state."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    tracker: str | None = None,
    quiet: bool = False,
) -> Result:
    """Train as the recipe says, or continue the run in ``out``.

    Args:
        recipe: The whole run.
        out: Its folder.
        resume: Continue where it was interrupted; a run that has not saved yet starts anew.
        device: ``auto`` (accelerate's choice) or ``cpu``.
        tensorboard: Write the metrics for TensorBoard too.
        tracker: Log them to a service that accelerate knows too, such as ``wandb`` or ``mlflow``.
        quiet: Print nothing but warnings.

    Raises:
        UsageError: The data has mistakes, or ``out`` holds another run.
        TrainingError: The loss is not finite any more.
        DeviceError: Memory ran out, or the precision does not exist here.
        OutputError: The run's files cannot be written.
        KeyboardInterrupt: It was interrupted; the state was saved before.
    """
    trainer = Trainer(
        recipe, out, resume=resume, device=device, tensorboard=tensorboard, tracker=tracker, quiet=quiet
    )
    with readable_errors(out), stop_between_steps() as stopped:
        return trainer.run(stopped)


class Trainer:
    """One run; arguments as for `train`.

    Args:
        recipe: The whole run.
        out: Its folder.
        resume: Continue where it was interrupted.
        device: ``auto`` or ``cpu``.
        tensorboard: Write the metrics for TensorBoard too.
        tracker: Log them to a service that accelerate knows too.
        quiet: Print nothing but warnings.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        resume: bool = False,
        device: str = "auto",
        tensorboard: bool = False,
        tracker: str | None = None,
        quiet: bool = False,
    ) -> None:
        if tracker is not None:
            logs.check_tracker(tracker)
        state = checkpointing.saved_state(out, resume)
        with checkpointing.run_folder(out):
            self.parts = parts = Prepared(recipe, device, quiet, state is None, out)
        self.recipe, self.out, self.main = parts.recipe, out, parts.main
        self.at, self.sums, self.stale = Position(), Sums(), 0
        self.best: dict[str, float] | None = None
        self.speed: dict[str, float] = {}
        self.bad = logs.BadClips(out / logs.BAD_CLIPS)
        if state is not None:
            self._restore(state)
        if parts.rank:  # each device drops other units; only the first one's generator is saved
            torch.manual_seed(recipe.seed + 1_000_003 * parts.rank + self.at.step)
        if self.main:
            checkpointing.write_text(out / checkpointing.LABELS, "".join(f"{x}\n" for x in parts.data.labels))
            checkpointing.write_text(out / RECIPE, recipe_text(self.recipe))
            self._write_split()
        self.metrics = logs.MetricsFile(out / logs.METRICS, self.at.step) if self.main else None
        self.boards = self._boards(tensorboard, tracker)
        self.progress = logs.Progress(recipe.schedule.epochs, quiet or not self.main)

    def _boards(self, tensorboard: bool, tracker: str | None) -> list[logs.TensorBoard | logs.Tracker]:
        """What else takes the metrics."""
        boards: list[logs.TensorBoard | logs.Tracker] = []
        if tensorboard and self.main:
            boards.append(logs.TensorBoard(self.out, self.at.step))
        if tracker is not None:
            settings = self.recipe.model_dump(mode="json", by_alias=True)
            boards.append(logs.Tracker(self.parts.accelerator, tracker, self.out, settings))
        return boards

    def _write_split(self) -> None:
        """Write the lists of a split that the run made itself."""
        data = self.parts.data
        if data.held_out and not (self.out / VAL).exists():
            assert data.train is not None
            assert data.val is not None
            write_lists(self.out, data.train[0], data.val[0], data.columns)

    def run(self, stopped: threading.Event) -> Result:
        """Train to the end; see `train`."""
        if self._is_over():
            self._report_finished()
        elif not self.parts.quiet:
            self.parts.message(*plan.lines(self.parts, self.at.epoch))
        while not self._is_over():
            self._train_epoch(stopped)
            self._end_epoch()
            if self.at.epoch < self.recipe.schedule.epochs and self._is_over():
                self.parts.message(f"stopping early: no better validation in the last {self.stale} epochs")
        for part in (*self.boards, self.parts.loader, self.parts.val):
            if part is not None:
                part.close()
        best = self.out / checkpointing.BEST
        return Result(self.out, best, self.at.step, self.best, len(self.bad), self.main)

    def _is_over(self) -> bool:
        patience = self.recipe.patience
        return self.at.epoch >= self.recipe.schedule.epochs or (
            patience is not None and self.stale >= patience
        )

    def _report_finished(self) -> None:
        """Report that a resumed run has nothing left to do, and how to train it further."""
        epochs, done = self.recipe.schedule.epochs, self.at.epoch
        line = f"{self.out}: already finished ({done} of {epochs} epochs)"
        further = f"epochs={2 * done}"
        if done < epochs:
            line += f", no better validation in the last {self.stale}"
            further = f"settings='patience={2 * self.stale}'"
        self.parts.message(f"{line}; train further with resume=True and {further}")

    def _train_epoch(self, stopped: threading.Event) -> None:
        """All steps that are left of the epoch."""
        steps, at = self.parts.loader.steps, self.at
        self.parts.model.train()
        self.progress.start(at.epoch, steps, at.step_in_epoch)
        watch = logs.Stopwatch()
        try:
            for group in watch.waits(self.parts.loader.epoch(at.epoch, at.step_in_epoch)):
                with sdpa_kernel(SDPBackend.MATH) if self.recipe.plain_attention else nullcontext():
                    self._step(group, steps)
                watch.clips += sum(len(part) for part in group) * self.parts.accelerator.num_processes
                self._after_step(steps, watch.speed(), stopped.is_set())
        finally:
            self.progress.stop()
        self.speed = watch.speed()

    def _after_step(self, steps: int, speed: dict[str, float], stop: bool) -> None:
        """Show and log the figures, and save where it is time.

        Raises:
            KeyboardInterrupt: The run is to stop; its state is saved.
        """
        at, means = self.at, self.sums.means()
        self.progress.step(at.epoch, at.step_in_epoch, steps, logs.figures_line(means, speed))
        if at.step % LOG_EVERY == 0:
            self._log({**means, **speed})
        if stop or (at.step % self.recipe.save_every == 0 and at.step_in_epoch < steps):
            self._save_state()
        if stop:
            raise KeyboardInterrupt

    def _step(self, group: list[Batch], steps: int) -> None:
        """One step of the optimizer over the parts of a batch."""
        rate = self.recipe.optimizer.lr * self.recipe.schedule.factor(self.at.step, steps)
        optim.set_rate(self.parts.optimizer, rate)
        self.parts.optimizer.zero_grad(set_to_none=True)
        total = sum(len(part) for part in group)
        for number, part in enumerate(group):
            last = number == len(group) - 1
            with nullcontext() if last else self.parts.accelerator.no_sync(self.parts.model):
                self._backward(part, number, total)
        self._update()
        self.at.step += 1
        self.at.step_in_epoch += 1

    def _backward(self, part: Batch, number: int, total: int) -> None:
        """Gradients of one part of a batch of ``total`` clips."""
        if self.main:
            self.bad.add(part.bad)
        if part.error is not None:
            raise part.error
        loss, right = self._loss(part, number)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        self.parts.accelerator.backward(loss * (len(part) / total))
        self.sums.add(value, right, len(part))

    def _loss(self, part: Batch, number: int) -> tuple[Tensor, float]:
        """Loss of one part, mean over heads and clips, and how many clips it has right."""
        recipe, part = self.recipe, part.to(self.parts.accelerator.device)
        rank = self.parts.rank
        draw = np.random.default_rng([recipe.seed, 104_729, self.at.step, number, rank])
        share = mixup_share(recipe.mixup, draw)
        with self.parts.accelerator.autocast():
            views = mix(part.views, share)
            logits = (
                self.parts.model(views, part.indices) if self.parts.uses_indices else self.parts.model(views)
            )
        weights, smoothing = self.parts.class_weights, recipe.label_smoothing
        if self.parts.data.several:
            weight = None if weights is None else weights[0]
            loss, right = multi_label_loss(logits, part.labels, smoothing, share, weight)
        else:
            sizes = [len(names) for names in self.parts.data.classes]
            loss, right = class_loss(logits, part.labels, sizes, smoothing, share, weights)
        if self.parts.extra_loss is not None and part.motion is not None:
            loss = loss + recipe.synthetic.motion_loss * self.parts.extra_loss(part.motion)
        return loss, float(right.sum())

    def _update(self) -> None:
        """Move the weights, unless the gradient is not finite."""
        if self.recipe.clip_grad is not None:
            norm = self.parts.accelerator.clip_grad_norm_(
                self.parts.model.parameters(), self.recipe.clip_grad
            )
            # fp16 has its own remedy: accelerate's scaler leaves such steps out and scales down.
            if norm is not None and self.recipe.precision != "fp16" and not torch.isfinite(norm):
                raise self._diverged(f"the gradient's norm is {float(norm)}")
        self.parts.optimizer.step()
        if self.parts.mean is not None:
            self.parts.mean.update_parameters(self.parts.plain)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"step {self.at.step}",
            f"{what}; {checkpointing.STATE} of the last save is in place",
            "lower the learning rate, clip the gradient, or warm up longer",
        )

    def _end_epoch(self) -> None:
        """Validate, save, log; after it the next epoch begins."""
        scores = self._validate()
        better = scores is None or scores.better(self.best, self.recipe.best)
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = scores.values if scores is not None else None
        row: dict[str, Any] = {"epoch": self.at.epoch + 1, **self.sums.means(), **self.speed}
        row["lr"] = max(group["lr"] / group["lr_scale"] for group in self.parts.optimizer.param_groups)
        row.update({f"val_{name}": value for name, value in (scores.values if scores else {}).items()})
        row["bad_clips"] = len(self.bad)
        self.at.epoch, self.at.step_in_epoch, self.sums = self.at.epoch + 1, 0, Sums()
        # The weights first: should we be killed in between, the epoch's end is repeated and writes them again.
        if better:
            self._save_weights(checkpointing.BEST, row)
        self._save_weights(checkpointing.LAST, row)
        self._save_state()
        self._log(row)
        if self.metrics is not None:
            logs.draw_curves(self.metrics.rows, self.out / logs.CURVES)
        self.parts.message(logs.epoch_line(row, self.recipe.schedule.epochs, better and scores is not None))

    def _validate(self) -> Scores | None:
        if self.parts.val is None:
            return None
        data = self.parts.data
        scores = validate(
            self.parts.finished,
            self.parts.val,
            data.classes,
            self.parts.accelerator,
            uses_indices=self.parts.uses_indices,
            several=data.several,
        )
        if self.main:
            self.bad.add(scores.bad)
        return scores

    def _save_weights(self, name: str, row: dict[str, Any]) -> None:
        if not self.main:
            return
        extra = {
            "step": self.at.step,
            "metrics": {key: value for key, value in row.items() if isinstance(value, (int, float))},
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
        }
        checkpointing.save_weights(
            self.out / name, self.parts.ordinary, self.parts.spec.input, self.parts.data.labels, extra
        )

    def _log(self, row: dict[str, Any]) -> None:
        row = {"step": self.at.step, **row}
        if self.metrics is not None:
            self.metrics.add(row)
        for board in self.boards:
            board.add(row)

    def _save_state(self) -> None:
        """Write all from which the run continues exactly."""
        if not self.main:
            return
        state: dict[str, Any] = {
            name: None if part is None else part.state_dict() for name, part in self.parts.states().items()
        }
        state |= {
            "random": checkpointing.random_states(),
            "position": asdict(self.at),
            "best": self.best,
            "stale": self.stale,
            "sums": asdict(self.sums),
            "labels": list(self.parts.data.labels),
        }
        checkpointing.save_state(self.out, state)

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            UsageError: The data has other classes than when the run was begun.
        """
        if tuple(state["labels"]) != self.parts.data.labels:
            raise UsageError(
                str(self.out),
                "the data's classes are not those of the run",
                "start a new run with output=FOLDER",
            )
        for name, part in self.parts.states().items():
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])
        self.at, self.sums = Position(**state["position"]), Sums(**state["sums"])
        self.best, self.stale = state["best"], state["stale"]
        checkpointing.restore_random_states(state["random"])
        if not self._is_over():
            self.parts.message(f"continuing at epoch {self.at.epoch + 1}, step {self.at.step}")
