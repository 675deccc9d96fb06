"""What surrounds the training loop: devices, seeds, signals, and errors put into words."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from vidcls.errors import DeviceError, VidclsError, first_line, needing
from vidcls.training import checkpointing


class TrainingError(VidclsError):
    """Training cannot continue; the last good checkpoint is in place."""

    kind = "training"


def make_accelerator(precision: str, device: str = "auto") -> Any:
    """Set up accelerate for the devices there are.

    Raises:
        DependencyError: accelerate is not installed.
        DeviceError: The precision does not exist on the device.
    """
    with needing("vidcls train", "accelerate is not installed", "pip install 'vidcls[train]'"):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
    # Its state is one for the process; a second run in it (a test, a notebook) may want another precision.
    AcceleratorState._reset_state(reset_partial_state=PartialState().num_processes == 1)
    name = {"fp32": "no"}.get(precision, precision)
    try:
        accelerator = Accelerator(mixed_precision=name, cpu=device == "cpu")
    except ValueError as error:
        raise DeviceError(f"precision={precision}", str(error), "use fp32 or bf16") from None
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise DeviceError("precision=fp16", "does not exist on the CPU", "use bf16 or fp32")
    return accelerator


def seed_all(seed: int) -> None:
    """Seed every generator that training may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def stop_between_steps() -> Iterator[threading.Event]:
    """Let Ctrl-C and SIGTERM end the run after the step that is under way; a second Ctrl-C ends it at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def readable_errors(out: Path) -> Iterator[None]:
    """Turn errors of memory and of worker processes into one line that says what ran out."""
    kept = "; the last good checkpoint is in place" if (out / checkpointing.STATE).exists() else ""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(
            "memory", f"ran out ({first_line(error)}){kept}", "set a smaller micro_batch=N"
        ) from error
    except RuntimeError as error:
        text = str(error)
        if "DataLoader worker" in text:
            raise DeviceError("memory", f"a process that reads clips died ({first_line(error)}){kept}",
                              "set a smaller workers=N or micro_batch=N") from error  # fmt: skip
        if "not enough memory" in text or "out of memory" in text or "allocate memory" in text:
            raise DeviceError(
                "memory", f"ran out ({first_line(error)}){kept}", "set a smaller micro_batch=N"
            ) from error
        raise
