"""What this machine has of what vidcls needs, for ``vidcls doctor``. Imports neither torch nor a decoder."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from vidcls import __version__
from vidcls.config import load_registry, registry_paths
from vidcls.doctor import imports, machine
from vidcls.errors import ConfigError, VidclsError, nearest
from vidcls.models.limits import known_memory

WALK_TIMEOUT = 3.0  # seconds for counting a cache's bytes

# What each optional package is good for. Which extra brings it is read from vidcls's own metadata.
OPTIONAL = {
    "timm": "VTN on ResNet, DeiT and other backbones",
    "openvino": "a faster engine on CPUs",
    "nncf": "int8 weights and activations",
    "onnx": "export to ONNX",
    "onnxscript": "export to ONNX",
    "onnxruntime": "an engine for exported ONNX models",
    "accelerate": "training",
    "torchvision": "augmentation in training",
    "torchmetrics": "metrics in training",
    "pyarrow": "Parquet files",
    "ray": "scoring on a cluster",
    "scenedetect-headless": "timelines by shots",
}
# Packages that do the same under several names: any of them will do.
SAME = {"scenedetect-headless": ("scenedetect",)}
DEVELOPMENT = frozenset(("test", "dev", "docs"))  # extras that no user needs
VARIABLES = (
    "HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE CUDA_VISIBLE_DEVICES OMP_NUM_THREADS XDG_CACHE_HOME NO_COLOR".split()
)
# Variables that the library reads and no option does.
OWN_VARIABLES = frozenset(("VIDCLS_CACHE", "VIDCLS_ENGINE_CACHE", "VIDCLS_OFFLINE", "VIDCLS_TRUST_PT2"))

Status = Literal["ok", "note", "missing", "broken"]


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        name: What was looked at.
        value: What was found.
        status: ``ok``; ``note`` for what is worth knowing; ``missing``; ``broken`` for what is there but unusable.
        remedy: What to do about it; empty where nothing needs doing.
        required: No clip can be classified unless this is ``ok``.
    """

    name: str
    value: str
    status: Status = "ok"
    remedy: str = ""
    required: bool = False


@dataclass(frozen=True)
class Section:
    """Findings of one kind under a title."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Report:
    """All findings."""

    sections: tuple[Section, ...]

    @property
    def problems(self) -> tuple[Row, ...]:
        """What keeps vidcls from classifying any clip here."""
        rows = (row for section in self.sections for row in section.rows)
        return tuple(row for row in rows if row.required and row.status in ("missing", "broken"))

    @property
    def ok(self) -> bool:
        """Whether clips can be classified here."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"ok": self.ok, "sections": [asdict(section) for section in self.sections]}


def report(
    options: Iterable[str] = (), configuration: Iterable[tuple[str, str, ConfigError | None]] = ()
) -> Report:
    """Check packages, decoders, devices, registry, caches and environment variables; takes a few seconds.

    Args:
        options: Names of the environment variables that the command line reads, so that a misspelled one is found.
        configuration: Files of defaults, what each sets, and what is wrong with it.
    """
    tried = {name: imports.start(name) for name in imports.PROBES}  # all at once
    found = {name: imports.finish(process) for name, process in tried.items()}
    return Report(
        (
            Section("packages", _packages(found)),
            Section("optional packages", _optional()),
            Section("decoders", _decoders(found)),
            Section("devices", _devices(found["torch"])),
            Section("models", _models()),
            Section("caches", _caches()),
            Section("configuration", tuple(starmap(_configured, configuration))),
            Section("environment", _variables(frozenset(options) | OWN_VARIABLES)),
        )
    )


# --- packages -----------------------------------------------------------------------------------------------------


def requirements() -> list[tuple[Requirement, str | None]]:
    """Return what vidcls's metadata asks for on this machine, each with the extra it belongs to, None for none."""
    try:
        metadata = importlib.metadata.metadata("vidcls")
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted: list[tuple[Requirement, str | None]] = []
    extras = [None, *(metadata.get_all("Provides-Extra") or [])]
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        for extra in extras:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""}):
                wanted.append((requirement, extra))
                break  # without an extra comes first: such a requirement holds for all of them
    return wanted


def _version(name: str) -> str | None:
    for one in (name, *SAME.get(name, ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(one)
    return None


def _packages(found: dict[str, dict[str, Any]]) -> tuple[Row, ...]:
    python = f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})"
    rows = [Row("python", python), Row("vidcls", __version__)]
    wanted = {r.name.lower(): r for r, extra in requirements() if extra is None}
    # decord is another way of doing what PyAV does; its row stands with the decoders.
    for name in dict.fromkeys(("torch", "numpy", *wanted)):
        if name in ("decord", "av"):
            continue
        rows.append(_package(name, wanted.get(name), found.get(name)))
    return tuple(rows)


def _package(name: str, wanted: Requirement | None, probe: dict[str, Any] | None) -> Row:
    version = _version(name)
    asked = name if wanted is None else f"{name}{wanted.specifier}"
    if version is None:
        return Row(name, "not installed", "missing", f"pip install '{asked}'", required=True)
    if wanted is not None and not wanted.specifier.contains(version, prereleases=True):
        return Row(
            name, f"{version}, but vidcls needs {wanted.specifier}", "broken", f"pip install '{asked}'", True
        )
    if probe is not None and "error" in probe:
        remedy = f"pip install --force-reinstall '{asked}'"
        return Row(name, f"{version}, but {probe['error']}", "broken", remedy, required=True)
    return Row(name, version, required=True)


def _optional() -> tuple[Row, ...]:
    extras = {r.name.lower(): extra for r, extra in requirements() if extra and extra not in DEVELOPMENT}
    rows = []
    for name in dict.fromkeys((*OPTIONAL, *extras)):
        purpose = f", for {OPTIONAL[name]}" if name in OPTIONAL else ""
        version = _version(name)
        if version is None:
            remedy = f"pip install 'vidcls[{extras[name]}]'" if name in extras else f"pip install {name}"
            rows.append(Row(name, f"not installed{purpose}", "note", remedy))
        else:
            rows.append(Row(name, f"{version}{purpose}"))
    return tuple(rows)


# --- decoders -----------------------------------------------------------------------------------------------------


def _decoders(found: dict[str, dict[str, Any]]) -> tuple[Row, ...]:
    av = found["av"]
    wanted = next((r for r, extra in requirements() if r.name.lower() == "av" and extra is None), None)
    rows = [_package("av", wanted, av)]
    if "error" not in av:
        rows.append(Row("ffmpeg", ", ".join(f"{name} {number}" for name, number in av["libraries"].items())))
        rows += [_codec(codec, names, av["decoders"]) for codec, names in imports.CODECS.items()]
    return (*rows, _decord(found["decord"]))


def _codec(codec: str, names: tuple[str, ...], there: list[str]) -> Row:
    required = codec == "h264"
    decoder = next((name for name in names if name in there), None)
    if decoder is not None:
        return Row(f"codec {codec}", f"decoded by {decoder}", required=required)
    remedy = "pip install --force-reinstall av, or convert such clips: ffmpeg -i IN -c:v libx264 OUT.mp4"
    return Row(f"codec {codec}", "no decoder", "missing" if required else "note", remedy, required=required)


def _decord(probe: dict[str, Any]) -> Row:
    version = _version("decord")
    if version is None:
        wanted = any(r.name.lower() == "decord" for r, _ in requirements())
        remedy = "pip install decord" if wanted else ""
        why = "" if wanted else f" (it has no wheel for {platform.system()} on {platform.machine()})"
        return Row("decord", f"not installed{why}; PyAV reads every clip", "note", remedy)
    if "error" in probe:
        return Row(
            "decord",
            f"{version}, but {probe['error']}; PyAV reads every clip",
            "note",
            "pip install --force-reinstall decord",
        )
    return Row("decord", version)


# --- devices ------------------------------------------------------------------------------------------------------


def _devices(probe: dict[str, Any]) -> tuple[Row, ...]:
    total, usable, held = os.cpu_count() or 1, machine.cores(), known_memory()
    rows = [
        Row("cpu", f"{machine.processor()} ({platform.machine()})"),
        Row("cpu cores", str(total) if usable == total else f"{usable} of {total} may be used"),
    ]
    if held is not None:
        rows.append(Row("memory", _bytes(held)))
    if found := machine.instructions():
        native = [name for name in found if "bf16" in name]
        rows.append(
            Row("cpu bfloat16", f"native ({', '.join(native)})" if native else "emulated: slower than fp32")
        )
    if "error" in probe:
        return (*rows, Row("torch devices", f"not known: torch {probe['error']}", "note"))
    rows.append(Row("torch threads", str(probe["threads"])))
    for index, device in enumerate(probe["cuda"]):
        value = (
            f"{device['name']}, {device['memory'] / 2**30:.1f} GiB, compute capability {device['capability']}"
        )
        rows.append(
            Row(f"cuda:{index}", f"{value}, {'bfloat16' if device['bf16'] else 'no bfloat16: fp16 is used'}")
        )
    if not probe["cuda"]:
        rows.append(_no_cuda(probe))
    rows.append(Row("mps", "available" if probe["mps"] else "none"))
    return tuple(rows)


def _no_cuda(probe: dict[str, Any]) -> Row:
    if shutil.which("nvidia-smi") is None:
        return Row("cuda", "none")
    if probe["cuda_build"] is None:
        return Row(
            "cuda",
            "a driver is here, but this torch is built without CUDA",
            "note",
            "install a CUDA build: https://pytorch.org/get-started/locally/",
        )
    return Row(
        "cuda",
        f"torch is built for CUDA {probe['cuda_build']}, but sees no device",
        "note",
        "see what nvidia-smi says, and CUDA_VISIBLE_DEVICES",
    )


# --- registry, caches, variables ----------------------------------------------------------------------------------


def _models() -> tuple[Row, ...]:
    try:
        registry = load_registry()
    except VidclsError as error:
        return (Row(error.subject, error.problem, "broken", error.remedy, required=True),)
    rows = [Row("registry", ", ".join(map(str, registry_paths()))), Row("models", str(len(registry)))]
    if registry.default is not None:
        from vidcls.zoo.weights import is_present

        weights = registry[registry.default].weights
        here = weights is not None and is_present(weights)
        rows.append(
            Row("default model", f"{registry.default}, weights {'are here' if here else 'to be fetched'}")
        )
    return tuple(rows)


def _caches() -> tuple[Row, ...]:
    from vidcls.paths import cache_dir, hugging_face_cache

    return _cache("vidcls", cache_dir()), _cache("hugging face", hugging_face_cache())


def _cache(name: str, folder: Path) -> Row:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        free = _bytes(shutil.disk_usage(existing).free)
    except OSError as error:
        return Row(name, f"{folder}: {error.strerror}", "broken", "set another place for it")
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Row(name, f"{folder}: cannot be written", "broken", f"make {existing} writable")
    if existing != folder:
        return Row(name, f"{folder}: empty, {free} free")
    size, files, complete = folder_size(folder)
    return Row(name, f"{folder}: {'' if complete else 'over '}{_bytes(size)} in {files} files, {free} free")


def folder_size(folder: Path, timeout: float = WALK_TIMEOUT) -> tuple[int, int, bool]:
    """Return the bytes and number of files below a folder, and whether all were seen before ``timeout`` seconds.

    Links count for nothing: the hub's cache links to each of its files.
    """
    size, files, end = 0, 0, time.monotonic() + timeout
    for root, _, names in os.walk(folder):
        for name in names:
            if time.monotonic() > end:
                return size, files, False
            path = Path(root, name)
            if not path.is_symlink() and path.is_file():
                size += path.stat().st_size
                files += 1
    return size, files, True


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _configured(path: str, text: str, error: ConfigError | None) -> Row:
    if error is not None:
        return Row(path, error.problem, "broken", error.remedy, required=True)
    return Row(path, text or "sets nothing")


def _variables(known: frozenset[str]) -> tuple[Row, ...]:
    rows = []
    for name in sorted(os.environ):
        if name.startswith("VIDCLS_") and name not in known:
            remedy = f"unset it{nearest(name, known)}"
            rows.append(Row(name, f"{_shown(os.environ[name])}, but nothing reads it", "note", remedy))
        elif name.startswith("VIDCLS_") or name in VARIABLES:
            rows.append(Row(name, _shown(os.environ[name])))
    return tuple(rows)


def _shown(value: str) -> str:
    # People paste this into bug reports: no passwords.
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", value)
