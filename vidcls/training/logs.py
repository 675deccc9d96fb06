"""Messages and records of a run: progress, ``metrics.jsonl``, curves, TensorBoard, the bad clips."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from vidcls.errors import DependencyError, UsageError, nearest, needing, printable
from vidcls.output.plots import new_figure
from vidcls.output.progress import ProgressBar, print_line, worded
from vidcls.training.checkpointing import output_error, replaced, write_text

T = TypeVar("T")
METRICS = "metrics.jsonl"
CURVES = "curves.png"
BAD_CLIPS = "bad-clips.csv"
LINE_EVERY = 10.0
"""Seconds between two lines where no progress bar can be shown."""


def message(text: str) -> None:
    """Print one line on stderr, made safe for a terminal, with flags in place of parameters where a command runs."""
    print_line(printable(worded(text)))


class MetricsFile:
    """Rows of numbers, one JSON object a line; each row has its ``step``.

    Args:
        path: The file.
        step: Where a resumed run continues: rows of later steps, which will be made again, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_text(path, text)

    def add(self, row: dict[str, Any]) -> None:
        """Append one row.

        Raises:
            OutputError: It cannot be written.
        """
        self.rows.append(row)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise output_error(self.path, error) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line that is incomplete is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class BadClips:
    """The clips that could not be read, in a table beside the run.

    Args:
        path: The table.
        fresh: Start anew; otherwise the table that is there is continued.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}
        if fresh:
            path.unlink(missing_ok=True)
        elif path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, found: tuple[tuple[str, str], ...]) -> None:
        """Record clips, and report each once."""
        new = {path: reason for path, reason in found if path not in self.reasons}
        if not new:
            return
        for path, reason in new.items():
            message(f"skipped {path}: {reason}")
        self.reasons.update(new)
        with replaced(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "reason"))
            writer.writerows(self.reasons.items())


class Progress:
    """A progress bar on a terminal; a line now and then elsewhere.

    Args:
        epochs: Length of the run.
        quiet: Print nothing.
    """

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self.epochs, self.quiet = epochs, quiet
        self._bar: ProgressBar | None = None
        self._last = time.monotonic()

    def start(self, epoch: int, steps: int, done: int) -> None:
        """Begin an epoch of ``steps`` steps, ``done`` of them done."""
        self._bar = ProgressBar(f"epoch {epoch + 1}/{self.epochs}", steps, unit="steps", shown=not self.quiet)
        self._bar.update(done)

    def step(self, epoch: int, step: int, steps: int, figures: str) -> None:
        """Show the figures after a step."""
        if self._bar is not None and self._bar.shown:
            self._bar.update(step, text=figures)
        elif not self.quiet and time.monotonic() - self._last > LINE_EVERY:
            self._last = time.monotonic()
            message(f"epoch {epoch + 1}/{self.epochs} step {step}/{steps} {figures}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class TensorBoard:
    """The same numbers for TensorBoard, in ``tensorboard/`` of the run.

    Raises:
        DependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        with needing("tensorboard=True", "tensorboard is not installed", "pip install tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        # Events of steps that are made again after a resume are hidden by TensorBoard itself.
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def add(self, row: dict[str, Any]) -> None:
        """Write the numbers of one row."""
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def check_tracker(name: str) -> None:
    """Check that accelerate knows a tracking service, and that its package is here.

    Raises:
        UsageError: accelerate knows none of that name.
        DependencyError: Its package, or accelerate, is not installed.
    """
    with needing("vidcls train", "accelerate is not installed", "pip install 'vidcls[train]'"):
        from accelerate import tracking
    known = sorted(tracking.LOGGER_TYPE_TO_CLASS)
    if name not in known:
        problem = f"{name!r} is not known{nearest(name, known)}"
        raise UsageError("tracker", problem, f"choose from {', '.join(known)}")
    if name not in map(str, tracking.get_available_trackers()):
        raise DependencyError(f"tracker={name}", "its package is not installed", f"pip install {name}")


class Tracker:
    """The same numbers for a tracking service that accelerate knows, such as W&B or MLflow.

    Args:
        accelerator: Logs them.
        name: What accelerate calls the service; see `check_tracker`.
        folder: The run.
        recipe: Its settings.

    Raises:
        DependencyError: The service cannot be reached, or its package is not complete.
    """

    def __init__(self, accelerator: Any, name: str, folder: Path, recipe: dict[str, Any]) -> None:
        from accelerate import tracking

        accelerator.log_with = tracking.filter_trackers([name], str(folder))
        try:
            accelerator.init_trackers("vidcls", config={"run": str(folder), **_flat(recipe)})
        except Exception as error:  # services raise what they like
            reason = printable(str(error).strip().split("\n")[0][:200])
            problem = f"cannot be started ({type(error).__name__}: {reason})"
            remedy = "check its settings, or leave it out; then continue with resume=True"
            raise DependencyError(f"tracker={name}", problem, remedy) from error
        self._accelerator = accelerator

    def add(self, row: dict[str, Any]) -> None:
        """Log the numbers of one row."""
        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, (int, float))}
        self._accelerator.log(numbers, step=row["step"])

    def close(self) -> None:
        """Send what is left."""
        self._accelerator.end_training()


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted names, as plain numbers and texts."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{key}.")
        elif value is not None:
            found[above + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and accuracy over the steps into a PNG.

    Raises:
        DependencyError: matplotlib is not installed.
        OutputError: The picture cannot be written.
    """
    figure = new_figure("curves", 9, 3.5)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "top1"), strict=True):
        for split, style in (("train", {"alpha": 0.7}), ("val", {"marker": "."})):
            points = [(row["step"], row[f"{split}_{name}"]) for row in rows if f"{split}_{name}" in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, **style)
        axes.set_xlabel("step")
        axes.set_title("loss" if name == "loss" else "top-1 accuracy")
        if name == "top1":
            axes.set_ylim(0, 1.02)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    with replaced(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def figures_line(means: dict[str, float], speed: dict[str, float]) -> str:
    """The figures beside the progress bar."""
    return (
        f"loss {means['train_loss']:.3f}  top-1 {means['train_top1']:.1%}  "
        f"{speed['clips_per_s']:.1f} clips/s  waiting for data {speed['data_wait']:.0%}"
    )


def epoch_line(row: dict[str, Any], epochs: int, best: bool) -> str:
    """The line at the end of an epoch."""
    parts = [f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, top-1 {row['train_top1']:.1%}"]
    if "val_loss" in row:
        figure = f"mAP {row['val_map']:.1%}" if "val_map" in row else f"top-1 {row['val_top1']:.1%}"
        parts.append(f"validation loss {row['val_loss']:.3f}, {figure}" + (" (best)" if best else ""))
    if row["bad_clips"]:
        parts.append(f"{row['bad_clips']} bad clips skipped")
    return "; ".join(parts)


class Stopwatch:
    """How fast an epoch goes, and how long it waited for data."""

    def __init__(self) -> None:
        self.begun, self.waited, self.clips = time.perf_counter(), 0.0, 0

    def waits(self, groups: Iterator[T]) -> Iterator[T]:
        """Pass batches on, counting the time until each was there."""
        while True:
            before = time.perf_counter()
            group = next(groups, None)
            self.waited += time.perf_counter() - before
            if group is None:
                return
            yield group

    def speed(self) -> dict[str, float]:
        """Clips a second, and the share of the time that was spent waiting."""
        elapsed = max(1e-9, time.perf_counter() - self.begun)
        return {"clips_per_s": self.clips / elapsed, "data_wait": self.waited / elapsed}
