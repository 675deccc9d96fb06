"""The whole state of a training run in one file, written atomically.

``state.pt`` holds everything from which the run continues exactly: weights, optimizer, running mean, random states,
counters. ``last.safetensors`` and ``best.safetensors`` beside it are for use, and follow from it.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidcls.checkpoints.native import save_checkpoint
from vidcls.config import InputSpec
from vidcls.errors import CheckpointError, OutputError, UsageError, system_errors
from vidcls.paths import replacing
from vidcls.training.recipe_file import RECIPE

STATE = "state.pt"
BEST = "best.safetensors"
LAST = "last.safetensors"
LABELS = "labels.txt"
VERSION = 2


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a file to write beside ``path``, which takes its place when it is safe on the disk.

    Raises:
        OutputError: It cannot be written; what was at ``path`` is untouched.
    """
    try:
        with replacing(path, alone=True) as partial:
            yield partial
    except (OSError, RuntimeError) as error:
        raise output_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


def output_error(path: Path, error: Exception) -> OutputError:
    """Say in one line why a file of the run could not be written, and that the last good one is in place."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # torch.save reports a full disk as a RuntimeError of its archive writer.
    full = full or "file write failed" in str(error) or "unexpected pos" in str(error)
    reason = (
        "the disk is full" if full else f"cannot be written ({getattr(error, 'strerror', None) or error})"
    )
    kept = " (the last good one is in place)" if path.exists() else ""
    remedy = ("make room" if full else "check the folder") + ", then continue with resume=True"
    return OutputError(str(path), reason + kept, remedy)


def random_states() -> dict[str, Any]:
    """The states of all generators that training draws from, in types that load without pickle's dangers."""
    version, keys, gauss = random.getstate()
    # The legacy tuple form; numpy's type stubs describe the dict form only.
    kind, words, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, list(keys), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(words).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Put the generators back to what `random_states` found."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, *rest = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def saved_state(out: Path, resume: bool) -> dict[str, Any] | None:
    """Read the state of the run that is in a folder, where it is to be resumed.

    Raises:
        UsageError: It holds a run that is not to be resumed.
        CheckpointError: The run's state is damaged.
    """
    if not resume and ((out / STATE).exists() or (out / RECIPE).exists()):
        raise UsageError(
            str(out), "already holds a run", "continue it with resume=True, or name another output=FOLDER"
        )
    return load_state(out) if resume else None


@contextmanager
def run_folder(out: Path) -> Iterator[None]:
    """Make a run's folder; where the block fails before anything is in it, it is removed again, but not one that was.

    Raises:
        OutputError: It cannot be made.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()
        raise


def make_folder(out: Path) -> None:
    """Make a run's folder.

    Raises:
        OutputError: It cannot be made.
    """
    with system_errors(OutputError, out, "cannot be made", "name another output=FOLDER"):
        out.mkdir(parents=True, exist_ok=True)


def save_weights(
    path: Path, model: nn.Module, view: InputSpec, labels: Sequence[str], extra: dict[str, Any]
) -> None:
    """Write a self-describing checkpoint of a model that is being trained.

    Raises:
        OutputError: It cannot be written; the one before it is untouched.
    """
    training = model.training
    model.eval()
    try:
        save_checkpoint(model, path, labels=labels, input=view.model_dump(mode="json"), extra=extra)
    except OutputError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise output_error(path, cause) from error
    finally:
        model.train(training)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the run's state.

    Raises:
        OutputError: It cannot be written; the one before it is untouched.
    """
    with replaced(folder / STATE) as path:
        torch.save({**state, "version": VERSION}, path)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read the run's state, or None where the run was interrupted before its first save.

    Raises:
        CheckpointError: The file is damaged or of another version.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        version = state["version"]
    except Exception as error:  # torch.load raises what its archive and pickle readers happen to raise
        raise CheckpointError(str(path), f"is damaged ({error})", "start the run again") from None
    if version != VERSION:
        raise CheckpointError(str(path), f"is of version {version}, not {VERSION}", "start the run again")
    return state
