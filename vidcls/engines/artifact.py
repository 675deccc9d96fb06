"""An exported model on the disk: a folder that says itself what it is. Imports no torch.

    model.xml, model.bin, units.*, head.* | model.onnx | model.pt2    the model
    vidcls.json                                                       `ArtifactRecord`
    README.md                                                         the same for people

An artifact may come from a stranger. Its record is checked before any other file is opened: bounded in size, known
fields only, no file outside the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from vidcls.config import problems
from vidcls.config.specs import Spec
from vidcls.engines.base import Engine, lazy
from vidcls.engines.openvino import HEAD, UNITS, WHOLE, OpenVINOEngine
from vidcls.engines.whole_graph import GraphFacts
from vidcls.errors import CheckpointError, DeviceError, OutputError, UsageError, printable, system_errors
from vidcls.paths import write_text
from vidcls.zoo.facts import CheckpointFacts

RECORD, CARD = "vidcls.json", "README.md"
MAX_RECORD = 16 << 20  # bytes
_UNFINISHED = ".exporting-"


@dataclass(frozen=True)
class ExportFormat:
    """A format that models are exported to.

    Attributes:
        precisions: Number formats that it can hold.
        engine: Name of the engine that runs it; None for a checkpoint, which any engine runs.
        files: Names that the model's files may have.
        hint: What to do where a precision does not exist.
    """

    precisions: tuple[str, ...]
    engine: str | None = None
    files: tuple[str, ...] = ()
    hint: str = ""


FORMATS: dict[str, ExportFormat] = {
    "safetensors": ExportFormat(("fp32", "bf16", "fp16"), hint="int8 exists in openvino"),
    "openvino": ExportFormat(
        ("fp32", "fp16", "int8"),
        "openvino",
        tuple(f"{part}.{suffix}" for part in (WHOLE, UNITS, HEAD) for suffix in ("xml", "bin")),
        "an fp32 model runs in bf16 with precision=bf16",
    ),
    "onnx": ExportFormat(
        ("fp32", "fp16"), "onnxruntime", ("model.onnx", "model.onnx.data"), "int8 exists in openvino"
    ),
    "pt2": ExportFormat(("fp32", "bf16", "fp16"), "pt2", ("model.pt2",), "int8 exists in openvino"),
}
PIXELS = ("onnx", "pt2")  # formats whose graph may take pixels and normalize them itself


def check_format(format: str, precision: str) -> None:
    """Refuse formats, and precisions in them, that do not exist; raises UsageError."""
    if format not in FORMATS:
        raise UsageError(format, "is not an export format", f"use one of {', '.join(FORMATS)}")
    kind = FORMATS[format]
    if precision not in kind.precisions:
        known = f"it has {', '.join(kind.precisions)}"
        raise UsageError(
            precision, f"does not exist in {format}", f"{known}; {kind.hint}" if kind.hint else known
        )


class ArtifactRecord(Spec):
    """What an artifact says of itself.

    Attributes:
        version: Of this record.
        format: A key of `FORMATS`.
        precision: Number format of the model.
        error: Largest difference of its logits from those of PyTorch in fp32, as measured when it was made.
        pixels: Type of the pixels (v, t, h, w, 3) that the graph takes and normalizes itself; empty where it takes
            normalized views.
        source: Where the weights came from.
        facts: The model: architecture, preprocessing, labels.
        files: The model's files and their sizes in bytes.
    """

    version: Literal[1] = 1
    format: str
    precision: str
    error: float = Field(ge=0)
    pixels: Literal["", "uint8", "float32"] = ""
    source: str = Field(max_length=4096)
    facts: CheckpointFacts
    files: dict[str, int] = Field(default_factory=dict, max_length=8)

    @model_validator(mode="after")
    def _known_format(self) -> ArtifactRecord:
        kind = FORMATS.get(self.format)
        if kind is None or self.precision not in kind.precisions:
            raise ValueError(f"no such model: {self.format} {self.precision}")
        if self.pixels and self.format not in PIXELS:
            raise ValueError(f"{self.format} takes no pixels")
        unknown = [name for name in self.files if name not in kind.files]
        if unknown:
            raise ValueError(f"{self.format} has no file {unknown[0]!r}")
        return self


@dataclass(frozen=True)
class Artifact:
    """An exported model that is whole.

    Attributes:
        folder: Where it is.
        record: What it is.
    """

    folder: Path
    record: ArtifactRecord

    @property
    def size(self) -> int:
        """Bytes of the model's files."""
        return sum(self.record.files.values())

    def engine(self, engine: str = "auto", device: str = "auto", precision: str = "auto") -> Engine:
        """Make the engine that runs it; nothing is compiled yet.

        Raises:
            DependencyError: What runs it is not installed.
            DeviceError: It cannot be run by this engine, on this device or in this precision.
        """
        record, subject = self.record, str(self.folder)
        runner = FORMATS[record.format].engine
        if engine not in ("auto", runner):
            raise DeviceError(
                engine,
                f"cannot run {subject}, which is for {runner}",
                f"use engine={runner}, or the checkpoint",
            )
        if device not in ("auto", "cpu"):
            raise DeviceError(device, f"{runner} runs on the CPU here", "use device=cpu, or the checkpoint")
        held = record.precision
        hinted = record.format == "openvino" and held == "fp32" and precision in ("bf16", "fp16")
        if precision not in ("auto", held) and not hinted:
            raise DeviceError(precision, f"{subject} holds {held}", f"export it with precision={precision}")
        return lazy(lambda: self._engine(precision if hinted else held), record.facts.unit_frames)

    def _engine(self, precision: str) -> Engine:
        if self.record.format == "onnx":
            from vidcls.engines.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(self.folder / "model.onnx", precision, self._graph)
        if self.record.format == "pt2":
            from vidcls.engines.pt2 import ProgramEngine

            return ProgramEngine(self.folder / "model.pt2", precision, self._graph)
        names = [name for name in (WHOLE, UNITS, HEAD) if f"{name}.xml" in self.record.files]
        parts = {name: self.folder / f"{name}.xml" for name in names}
        facts = self.record.facts
        return OpenVINOEngine(parts, precision, facts.unit_frames, self.record.precision, facts.num_classes)

    @property
    def _graph(self) -> GraphFacts:
        return GraphFacts(self.record.facts.num_classes, self.record.pixels)


Measure = Callable[[Artifact], float]


def is_artifact(path: Path) -> bool:
    """Whether a path looks like an exported model."""
    return (path / RECORD).is_file()


def read_artifact(folder: Path) -> Artifact:
    """Read and check what a folder says of itself.

    Raises:
        CheckpointError: It is not an artifact, or damaged.
    """
    path = folder / RECORD
    try:
        if path.stat().st_size > MAX_RECORD:
            raise CheckpointError(
                str(path), f"is larger than {MAX_RECORD >> 20} MiB", "export the model again"
            )
        record = ArtifactRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
        found = {name: (folder / name).lstat() for name in record.files}
        sizes = {name: status.st_size for name, status in found.items() if S_ISREG(status.st_mode)}
    except ValidationError as error:
        text = "; ".join(problems(error, ArtifactRecord))
        raise CheckpointError(
            str(path), f"is damaged or of another version ({text})", "export again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise CheckpointError(str(path), f"cannot be read ({reason})", "export the model again") from None
    if not sizes or sizes != record.files:
        raise CheckpointError(str(folder), "is incomplete or damaged", "export the model again")
    return Artifact(folder, record)


def write_files(
    folder: Path, write: Callable[[Path], None], record: ArtifactRecord, measure: Measure | None = None
) -> int:
    """Fill an empty folder: the model's files, and then what they are.

    Args:
        folder: The folder.
        write: Writes the model's files into it.
        record: What they are; their sizes are filled in.
        measure: Measures the error of what was written; None: it is in the record already.

    Returns:
        Bytes of the model's files.

    Raises:
        OSError: The folder cannot be written.
    """
    write(folder)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    for name in sizes:
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
    whole = record.model_copy(update={"files": sizes})
    if measure is not None:
        whole = whole.model_copy(update={"error": measure(Artifact(folder, whole))})
    write_text(folder / CARD, model_card(whole))
    write_text(folder / RECORD, whole.model_dump_json(indent=1) + "\n")
    return sum(sizes.values())


@contextlib.contextmanager
def unfinished(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder in ``parent`` to be filled and renamed; what is still there at the end is deleted."""
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over what is there, unless that was asked for; raises UsageError."""
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise UsageError(str(path), "already exists", "choose another place, or pass overwrite=True")
    if path.is_dir() and not is_artifact(path):
        raise UsageError(str(path), "is a folder that is not an exported model", "choose another place")


def save(
    folder: Path,
    write: Callable[[Path], None],
    record: ArtifactRecord,
    measure: Measure | None = None,
    *,
    overwrite: bool = False,
) -> Artifact:
    """Write an artifact; the folder appears whole or not at all.

    Args:
        folder: Where.
        write: Writes the model's files into a folder.
        record: What they are.
        measure: As in `write_files`.
        overwrite: Replace an exported model that is there.

    Raises:
        UsageError: Something is there already.
        OutputError: The folder cannot be written.
    """
    check_free(folder, overwrite)
    # RuntimeError is how OpenVINO and ONNX report a full disk.
    refused = system_errors(OutputError, folder, "cannot be written", "choose another place", RuntimeError)
    with (
        refused,
        unfinished(folder.parent, _UNFINISHED) as made,
        unfinished(folder.parent, _UNFINISHED) as old,
    ):
        write_files(made, write, record, measure)
        os.chmod(made, 0o755)
        if folder.exists():
            os.rename(folder, old / folder.name)
        os.rename(made, folder)
    return read_artifact(folder)


def model_card(record: ArtifactRecord, place: str = "THIS_FOLDER") -> str:
    """Return a text about an exported model, for people."""
    spec, facts = record.facts.spec, record.facts
    view = spec.input
    height, width = view.image_size
    rate = f" at {view.fps:g} frames per second" if view.fps else ""
    lines = [
        f"# {spec.name}",
        "",
        *([printable(spec.description), ""] if spec.description else []),
        f"{spec.architecture}, {facts.num_classes} classes, exported by vidcls to {record.format}, "
        f"{record.precision}.",
        "",
        f"- Weights: {printable(record.source)}",
        f"- License of the weights: {spec.license or 'not stated'}",
        f"- Trained on: {spec.dataset or 'not stated'}",
        f"- Logits differ from PyTorch's in fp32 by at most {record.error:.1g}, measured when it was exported",
        f"- A view: {view.num_frames} frames, {view.stride} apart{rate}, {width}x{height} pixels",
        f"- A clip: {view.num_views} views in time × {view.num_crops} crops, {view.average} averaged",
        "",
        f"    vidcls predict clip.mp4 --weights {place}",
        "",
    ]
    return "\n".join(lines)
