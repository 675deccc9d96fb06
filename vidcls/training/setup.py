"""From a recipe to the things that train: the checked data, the model and how it sees a video, the loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from vidcls.config import (
    InputSpec,
    ModelSpec,
    Registry,
    WeightsSpec,
    load_registry,
    nearest,
    problems,
)
from vidcls.config.architecture_keys import ARCHITECTURE_KEYS
from vidcls.errors import ConfigError, DependencyError, UsageError
from vidcls.training.data import listing
from vidcls.training.data.dataset import ClipDataset, ClipLoader, EpochSampler, Loader, SyntheticLoader
from vidcls.training.data.listing import Sample
from vidcls.training.init.initialize import InitReport, initialize
from vidcls.training.recipe import Recipe

SYNTHETIC = "synthetic:"
VAL_SEED = 1_000_003
"""Added to the seed for synthetic validation clips, so that none of them is trained on."""


@dataclass
class Data:
    """The clips of a run, checked.

    Attributes:
        classes: Class names of each head, in the order of their ids.
        train: Training clips and their ids; None where they are made on the fly.
        val: Validation clips; None for none, or where they are made on the fly.
        notes: What a person should know.
    """

    classes: tuple[tuple[str, ...], ...]
    train: tuple[list[Sample], list[tuple[int, ...]]] | None = None
    val: tuple[list[Sample], list[tuple[int, ...]]] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """One name for each logit; with several heads, one head after the other."""
        return tuple(name for head in self.classes for name in head)


def is_synthetic(source: str | None) -> bool:
    """Whether clips are made on the fly instead of read."""
    return source is not None and source.startswith(SYNTHETIC)


def find_model(recipe: Recipe, registry: Registry | None = None) -> ModelSpec:
    """The registry entry that a recipe names, its ``config`` and ``input`` laid over.

    Raises:
        UsageError: No model is named, or none is called so.
        ConfigError: The recipe's changes do not fit it.
    """
    if recipe.model is None:
        raise UsageError("--model", "no model is named", "give --model NAME; `vidcls models` lists them")
    known = registry if registry is not None else load_registry()
    name = recipe.model
    if name in known:
        spec = known[name]
    elif name in ARCHITECTURE_KEYS:
        spec = ModelSpec(name=name, architecture=name)
    else:
        raise UsageError(
            name,
            f"no such model{nearest(name, [*known, *ARCHITECTURE_KEYS])}",
            "`vidcls models` lists them all",
        )
    return _overlaid(spec, recipe)


def _overlaid(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """Lay the recipe's settings over the entry; sizes that model and input share follow each other."""
    keys = ARCHITECTURE_KEYS[spec.architecture]
    wrong = [f"unknown key {key!r}{nearest(key, keys)}" for key in recipe.config if key not in keys]
    if wrong:
        raise ConfigError(
            "recipe", f"config: {', '.join(wrong)}", f"{spec.architecture} takes {', '.join(sorted(keys))}"
        )
    config, view = {**spec.config, **recipe.config}, {**spec.input.model_dump(), **recipe.input}
    for key in ("image_size", "num_frames"):
        if key not in keys:
            continue
        given = [key in recipe.input, key in recipe.config]
        if all(given) and _pair(config[key], key) != _pair(view[key], key):
            raise ConfigError(
                "recipe", f"config.{key} is {config[key]}, input.{key} {view[key]}", "make them equal"
            )
        if given[1]:
            view[key] = config[key]
        else:
            config[key] = view[key]
    side, old = min(_pair(view["image_size"], "image_size")), min(spec.input.image_size)
    if side != old and "resize" not in recipe.input and isinstance(view["resize"], int):
        view["resize"] = round(view["resize"] * side / old)
    try:
        return spec.model_copy(update={"config": config, "input": InputSpec(**view)})
    except ValidationError as error:
        raise ConfigError("recipe", "input: " + "; ".join(problems(error, InputSpec)), "mend it") from None


def _pair(value: Any, key: str) -> tuple[int, ...]:
    if key == "image_size" and isinstance(value, int):
        return (value, value)
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def load_data(recipe: Recipe, spec: ModelSpec) -> Data:
    """Read and check all lists before any work.

    Raises:
        UsageError: With all missing files and label mistakes of all lists together.
    """
    if recipe.data is None:
        raise UsageError(
            "--data", "no training clips are named", "give a CSV, a list, or a folder of classes"
        )
    if is_synthetic(recipe.data):
        return Data((_synthetic_labels(recipe.data),))
    heads = tuple(recipe.heads) if recipe.heads else ("label",)
    train = listing.read_listing(recipe.data, recipe.videos, heads)
    val = listing.read_listing(recipe.val, recipe.videos, heads) if recipe.val else None
    classes = _classes(recipe, spec, train)
    sets = [train] if val is None else [train, val]
    mistakes: list[str] = []
    missing: list[Sample] = []
    for one in sets:
        found, absent = listing.find_problems(one)
        mistakes += found + listing.unknown_labels(one, classes)
        missing += absent
    if mistakes or (missing and not recipe.skip_missing):
        remedy = "mend the list" + (", or leave missing clips out with --skip-missing" if missing else "")
        raise listing.report(recipe.data, mistakes, [] if recipe.skip_missing else missing, remedy)
    data = Data(classes)
    if missing:
        data.notes.append(f"{len(missing)} missing files are left out (first: {missing[0].path})")
    absent_paths = {sample.path for sample in missing}
    data.train = _numbered(train, classes, absent_paths)
    data.val = _numbered(val, classes, absent_paths) if val else None
    if not data.train[0] or (data.val is not None and not data.val[0]):
        raise UsageError(
            recipe.data, "no clip of the list exists", "check the paths, or give --videos FOLDER"
        )
    data.notes += _doubts(data)
    return data


def _synthetic_labels(source: str) -> tuple[str, ...]:
    name = source.removeprefix(SYNTHETIC)
    if name != "camera-motion":
        raise UsageError(source, "no such synthetic task", "use synthetic:camera-motion")
    from vidcls.training.camera_motion.camera import LABELS

    return tuple(LABELS)


def _classes(recipe: Recipe, spec: ModelSpec, train: listing.Listing) -> tuple[tuple[str, ...], ...]:
    from vidcls.zoo.labels import load_labels

    if not train.samples:
        raise listing.report(train.source, train.problems, [], "mend the list")
    if recipe.heads:
        found = listing.make_classes(train)
        for (name, size), names in zip(recipe.heads.items(), found, strict=True):
            if len(names) > size:
                raise UsageError(
                    train.source, f"{len(names)} classes of {name}, not {size}", "correct heads:"
                )
        return tuple(
            (*names, *(f"{name} {i}" for i in range(len(names), size)))
            for (name, size), names in zip(recipe.heads.items(), found, strict=True)
        )
    if recipe.labels is not None:
        return (load_labels(recipe.labels),)
    known = None
    if spec.labels is not None:
        known = load_labels(spec.labels)
    return listing.make_classes(train, known)


def _numbered(
    source: listing.Listing, classes: Sequence[Sequence[str]], missing: set[str]
) -> tuple[list[Sample], list[tuple[int, ...]]]:
    lookup = [{name: i for i, name in enumerate(names)} for names in classes]
    samples = [sample for sample in source.samples if sample.path not in missing]
    return samples, [listing.label_ids(sample, classes, lookup) for sample in samples]


def _doubts(data: Data) -> list[str]:
    """What may be meant, but is worth saying: classes without clips, clips in both sets."""
    notes = []
    assert data.train is not None
    seen = [{ids[head] for ids in data.train[1]} for head in range(len(data.classes))]
    for names, used in zip(data.classes, seen, strict=True):
        empty = [name for i, name in enumerate(names) if i not in used]
        if empty:
            notes.append(f"{len(empty)} of {len(names)} classes have no training clip (first: {empty[0]!r})")
    if data.val is not None:
        both = {os.path.realpath(s.path) for s in data.train[0]} & {
            os.path.realpath(s.path) for s in data.val[0]
        }
        if both:
            notes.append(
                f"{len(both)} clips are both trained on and validated with: accuracy will look too good"
            )
    return notes


def build_model(spec: ModelSpec, num_classes: int) -> nn.Module:
    """The model with random weights and a head for the classes.

    Raises:
        ConfigError: The configuration does not make a model.
    """
    from vidcls.models import build

    return build(spec.architecture, **{**spec.config, "num_classes": num_classes})


def start_weights(
    model: nn.Module, spec: ModelSpec, recipe: Recipe, registry: Registry | None = None
) -> InitReport | None:
    """Fill the model as the recipe says; None where it stays random.

    Raises:
        WeightsError: The source cannot be fetched.
        CheckpointError: It cannot be read, or does not fit.
    """
    name = recipe.init.source
    known = registry if registry is not None else load_registry()
    source: str | WeightsSpec | None = name
    if name == "none":
        return None
    if name is None:
        source = spec.weights
    elif name in known:
        source = known[name].weights
        if source is None:
            raise UsageError(f"--init-from {name}", "this model has no weights of its own", "name another")
    if source is None:
        return None
    from vidcls.zoo.weights import resolve

    path = resolve(source)
    return initialize(model, path, recipe.init.method, recipe.init.positions, recipe.init.temporal)


def make_loaders(
    recipe: Recipe, spec: ModelSpec, data: Data, *, rank: int = 0, world_size: int = 1, pin: bool = False
) -> tuple[Loader, Loader | None]:
    """The training and validation loaders of one process.

    Raises:
        UsageError: The batch cannot be shared by the processes, or an epoch has no length.
    """
    if recipe.batch_size % world_size:
        raise UsageError(
            "--batch-size", f"{recipe.batch_size} clips cannot be shared by {world_size} devices", "change it"
        )
    workers = spare_cores() if recipe.workers is None else recipe.workers
    share: dict[str, Any] = {"micro_batch": recipe.micro_batch, "rank": rank, "world_size": world_size}
    train: Loader
    if is_synthetic(recipe.data):
        train, val = _synthetic_loaders(recipe, spec, workers, share)
        return train, val
    assert data.train is not None
    dataset = ClipDataset(*data.train, spec.input, recipe.augment, recipe.seed)
    sampler = EpochSampler(
        len(dataset), recipe.batch_size, seed=recipe.seed, limit=recipe.clips_per_epoch, **share
    )
    train = ClipLoader(dataset, sampler, workers, pin)
    if data.val is None:
        return train, None
    test = ClipDataset(*data.val, spec.input, None, recipe.seed)
    order = EpochSampler(
        len(test), recipe.micro_batch or recipe.batch_size, shuffle=False, rank=rank, world_size=world_size
    )
    return train, ClipLoader(test, order, workers, pin)


def spare_cores() -> int:
    """Processes to read clips with: all cores but one, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores - 1))


def _synthetic_loaders(
    recipe: Recipe, spec: ModelSpec, workers: int, share: dict[str, Any]
) -> tuple[SyntheticLoader, SyntheticLoader | None]:
    if recipe.clips_per_epoch is None:
        raise UsageError("clips_per_epoch", "clips made on the fly have no end", "say how many make an epoch")
    options = recipe.synthetic
    block = _synthetic_block_size() * options.repeats
    plain = options.plain_steps * recipe.batch_size
    lively = None if options.lively_steps is None else options.lively_steps * recipe.batch_size
    make = partial(
        make_block, spec.input, options.repeats, options.images, options.videos, recipe.seed, plain, lively
    )
    train = SyntheticLoader(
        make, block, spec.input, recipe.clips_per_epoch, recipe.batch_size, workers=workers, **share
    )
    if recipe.val is None:
        return train, None
    make = partial(make_block, spec.input, 1, options.images, options.videos, recipe.seed + VAL_SEED, 0, None)
    size = _synthetic_block_size()
    return train, SyntheticLoader(
        make, size, spec.input, options.val_clips, recipe.batch_size, workers=workers, **share
    )


def _synthetic_block_size() -> int:
    try:
        from vidcls.training.camera_motion.dataset import CameraMotionDataset
    except ImportError:
        raise DependencyError(
            "synthetic:camera-motion",
            "making clips needs OpenCV, which is not installed",
            "pip install 'vidcls[train]'",
        ) from None
    return CameraMotionDataset.block


def make_block(
    view: InputSpec,
    repeats: int,
    images: str | None,
    videos: str | None,
    seed: int,
    plain: int,
    lively: int | None,
    number: int,
) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """One block of camera-motion clips; a plain function of plain values, so that any process can make it.

    Raises:
        UsageError: The views are not square, or both pictures and footage are given.
    """
    from vidcls.training.camera_motion.backgrounds import FileBackgrounds
    from vidcls.training.camera_motion.dataset import CameraMotionDataset, ClipSpec

    if view.image_size[0] != view.image_size[1]:
        raise UsageError("input.image_size", "synthetic clips are square", "make height and width equal")
    if images and videos:
        raise UsageError("synthetic", "takes images or videos, not both", "name one folder")
    backgrounds = FileBackgrounds(images or videos or "", videos=bool(videos)) if images or videos else None
    clip = ClipSpec(view.num_frames, view.stride, view.fps or 25.0, view.image_size[0])
    data = CameraMotionDataset(
        seed, 1 << 40, clip, repeats, backgrounds, plain_items=plain, lively_items=lively
    )
    return [(item.frames, item.label, item.steps) for item in data.make_block(number)]


def make_teacher(model: nn.Module, recipe: Recipe, world_size: int) -> nn.Module | None:
    """What shows a model the motion of synthetic clips while it is trained, or None where nothing does.

    Raises:
        UsageError: The clips are not synthetic, or there are several devices.
        ConfigError: The model has no spatial encoder.
    """
    if not recipe.synthetic.teaching:
        return None
    if not is_synthetic(recipe.data) or world_size > 1:
        raise UsageError("synthetic.teaching", "needs clips that are made, and one device", "set it to 0")
    from vidcls.training.camera_motion.motion_teacher import MotionTeacher

    config: Any = model.config
    if getattr(model, "architecture", "") != "vivit-fe" or config.depth < 2 or config.pool != "gap":
        raise ConfigError(
            "synthetic.teaching",
            "is made for a factorized encoder with average pooling and two blocks or more",
            "set it to 0",
        )
    return MotionTeacher(model, config.image_size[0], config.tubelet_size, config.embed_dim)


def whiten(model: nn.Module, loader: Loader, recipe: Recipe, spec: ModelSpec) -> None:
    """Set a ViViT's tubelet filters to PCA whitening of training tubelets.

    Raises:
        ConfigError: The model has no tubelet filters.
    """
    from vidcls.training.camera_motion.motion_start import whitened_patch_filters

    embedding = next((m for m in model.modules() if isinstance(m, nn.Conv3d)), None)
    if embedding is None:
        raise ConfigError("init.whiten", f"{spec.architecture} has no tubelet filters", "set it to 0")
    view = spec.input
    if view.mean is not None or abs(view.scale - 2 / 255) > 1e-9 or view.offset != -1:
        raise ConfigError(
            "init.whiten", "is made for pixels in -1..1", "leave scale, offset, mean and std as they are"
        )
    clips: list[np.ndarray] = []
    count = 0
    # An epoch that training does not reach: clips of the full variety, which no step learns from.
    for group in loader.epoch(recipe.schedule.epochs):
        for batch in group:
            pixels = (batch.views - view.offset) / view.scale
            clips.append(pixels.permute(0, 2, 3, 4, 1).round().clamp(0, 255).to(torch.uint8).numpy())
            count += len(batch)
        if count >= recipe.init.whiten:
            break
    t, h, w = embedding.kernel_size
    kernels, bias = whitened_patch_filters(np.concatenate(clips), (t, h, w), embedding.out_channels)
    with torch.no_grad():
        embedding.weight.copy_(kernels)
        if embedding.bias is not None:
            embedding.bias.copy_(bias)
