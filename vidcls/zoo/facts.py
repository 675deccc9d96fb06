"""What a checkpoint turned out to be, kept from one run to the next, so that the next need not ask torch.

Which frames a model wants and what its classes are called is known only when its checkpoint has been read, and
that takes torch. So it is written into a small JSON file, named by a digest of the weights' files (path, size,
time), the registry's entry and the options. With it, clips can be read while torch is still being imported, and a
converted model runs without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidcls.config import InputSpec, ModelSpec, Registry, WeightsSpec
from vidcls.engines.cache import Recipe, code_digest
from vidcls.paths import cache_dir, write_text

MAX_FILES = 512
MAX_RECORDS = 256
MAX_BYTES = 8 << 20


@dataclass(frozen=True)
class CheckpointFacts:
    """What was learned when a checkpoint was read.

    Attributes:
        spec: The entry, completed by what the checkpoint says.
        stored_labels: Labels that the checkpoint itself holds.
        source: Where the weights come from, as it is written into results.
        num_classes: Length of the logits.
        unit_frames: See `vidcls.engines.Engine`.
        uses_frame_indices: Whether the model wants to be told the frames' numbers.
        tubelet_frames: Number that a view's frames must be a multiple of.
        config: The architecture's whole configuration.
        notes: What a person should know of choices that the checkpoint left open.
        weights: Checksum of the weights, where it was computed.
    """

    spec: ModelSpec
    stored_labels: tuple[str, ...] | None
    source: str
    num_classes: int
    unit_frames: int
    uses_frame_indices: bool
    tubelet_frames: int
    config: dict[str, Any]
    notes: tuple[str, ...] = ()
    weights: str | None = None

    def recipe(self, view: InputSpec, weights: str, storage: str) -> Recipe:
        """What a converted model of this checkpoint is made of, for views as ``view`` says."""
        config = json.loads(json.dumps(self.config))
        return Recipe(self.spec.architecture, config, weights, view.num_frames, view.image_size, storage)


def request_key(
    path: Path, wanted: str | WeightsSpec, spec: ModelSpec | None, frames: int | None, known: Registry
) -> str | None:
    """Digest of all that decides what a checkpoint turns out to be; None where its files cannot be listed."""
    try:
        files = sorted(path.iterdir())[: MAX_FILES + 1] if path.is_dir() else [path]
        if len(files) > MAX_FILES:
            return None
        listing = [(f.name, (status := f.stat()).st_size, status.st_mtime_ns) for f in files]
        where = str(path.resolve())
    except OSError:
        return None
    entries = known.values() if spec is None else [spec]
    record = {
        "code": code_digest(),
        "where": where,
        "files": listing,
        "wanted": wanted if isinstance(wanted, str) else wanted.model_dump(),
        "foreign": isinstance(wanted, str),
        "entries": [entry.model_dump(mode="json") for entry in entries],
        "frames": frames,
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:40]


def recall(key: str | None) -> CheckpointFacts | None:
    """Return what was learned under ``key``, if anything."""
    if key is None:
        return None
    path = _folder() / f"{key}.json"
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        labels = record.pop("stored_labels")
        found = CheckpointFacts(
            spec=ModelSpec(**record.pop("spec")),
            stored_labels=None if labels is None else tuple(labels),
            notes=tuple(record.pop("notes")),
            **record,
        )
        os.utime(path)
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ValidationError):
        return None


def remember(key: str | None, known: CheckpointFacts) -> None:
    """Write down what was learned; where the disk does not let us, the next run asks torch again."""
    if key is None:
        return
    record = {name: getattr(known, name) for name in CheckpointFacts.__dataclass_fields__}
    record["spec"] = known.spec.model_dump(mode="json")
    with contextlib.suppress(OSError, TypeError, ValueError):
        text = json.dumps(record)
        _folder().mkdir(parents=True, exist_ok=True)
        write_text(_folder() / f"{key}.json", text)
        _forget_oldest()


def _forget_oldest() -> None:
    files = sorted(_folder().glob("*.json"), key=lambda file: file.stat().st_mtime)
    for file in files[:-MAX_RECORDS]:
        file.unlink(missing_ok=True)


def _folder() -> Path:
    return cache_dir() / "checkpoints"


def plain_config(module: Any) -> dict[str, Any]:
    """Return a model's configuration as plain data."""
    config: dict[str, Any] = asdict(module.config)
    return config
