"""The clips of a run: lists read and checked before any work, and the loaders over them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidcls.config import ModelSpec
from vidcls.doctor.machine import cores
from vidcls.errors import OutputError, UsageError, counted, system_errors
from vidcls.paths import cache_dir
from vidcls.training import splitting, synthetic
from vidcls.training.data import listing
from vidcls.training.data.classes import (
    class_counts,
    class_ids,
    describe_classes,
    make_classes,
    names_beside,
    unknown_labels,
)
from vidcls.training.data.dataset import ClipDataset, ClipLoader, EpochSampler, Loader
from vidcls.training.data.forms import SEVERAL
from vidcls.training.data.frame_cache import FrameCache
from vidcls.training.data.listing import Sample
from vidcls.training.groups import split
from vidcls.training.recipe import NO_VAL, Recipe

HELD_OUT = 0.2
"""Share of each class that is held out to validate with where no validation set is given."""


@dataclass
class Data:
    """The clips of a run, checked.

    Attributes:
        classes: Class names of each head, in the order of their ids.
        train: Training clips and their ids; None where they are made on the fly.
        val: Validation clips; None for none, or where they are made on the fly.
        several: A clip may have several of the classes of the one head.
        columns: Names of the columns of labels in a list of these clips.
        held_out: The validation clips were drawn from the training set.
        notes: Warnings for the user.
    """

    classes: tuple[tuple[str, ...], ...]
    train: tuple[list[Sample], list[tuple[int, ...]]] | None = None
    val: tuple[list[Sample], list[tuple[int, ...]]] | None = None
    several: bool = False
    columns: tuple[str, ...] = ("label",)
    held_out: bool = False
    notes: list[str] = field(default_factory=list)

    def table(self) -> list[str]:
        """Return the classes with their ids and how many clips show them, as lines of a table."""
        sets = {"train": self.train, "val": self.val}
        return describe_classes(self.classes, {name: s[1] for name, s in sets.items() if s is not None})

    @property
    def labels(self) -> tuple[str, ...]:
        """One name for each logit; with several heads, one head after the other."""
        return tuple(name for head in self.classes for name in head)


def load_data(recipe: Recipe, spec: ModelSpec, run: Path | None = None, *, hold_out: bool = True) -> Data:
    """Read and check all lists before any work.

    Args:
        recipe: Its ``data`` and ``val``, and how they are read.
        spec: The model, whose classes keep their order.
        run: Folder of the run; what it held out before is held out again.
        hold_out: Hold clips out to validate with where the recipe names none.

    Raises:
        UsageError: With all missing files and label mistakes of all lists together.
    """
    if recipe.data is None:
        raise UsageError("data", "no training clips were given", "give a CSV, a list, or a folder of classes")
    if synthetic.is_synthetic(recipe.data):
        return Data((synthetic.load_task(recipe.data).labels,))
    train, val = _read_lists(recipe, recipe.data)
    classes = _classes(recipe, spec, train)
    missing = _check(recipe, classes, [train] if val is None else [train, val])
    data = Data(classes, several=train.several, columns=_columns(recipe, train))
    data.notes += dict.fromkeys(note for one in (train, val) if one is not None for note in one.notes)
    if missing:
        data.notes.append(
            f"{counted(len(missing), 'missing file')} {'is' if len(missing) == 1 else 'are'} left out "
            f"(first: {missing[0].path})"
        )
    absent = {sample.path for sample in missing}
    data.train = _numbered(train, classes, absent)
    data.val = _numbered(val, classes, absent) if val else None
    if not data.train[0] or (data.val is not None and not data.val[0]):
        raise UsageError(recipe.data, "no clip of the list exists", "check the paths, or give videos=FOLDER")
    if len(set(data.train[1])) < 2 and not (train.several and len(classes[0]) > 1):
        problem = f"all clips are of one class, {'/'.join(train.samples[0].labels)!r}"
        raise UsageError(recipe.data, problem, "give clips of two classes or more")
    if val is None and hold_out and recipe.val is None:
        _hold_out(data, recipe.seed, run)
    data.notes += _warnings(data)
    return data


def _read_lists(recipe: Recipe, source: str) -> tuple[listing.Listing, listing.Listing | None]:
    """Read the training and the validation set."""
    train, beside = listing.parts_of(source)
    val = beside if recipe.val is None else None if recipe.val == NO_VAL else recipe.val
    heads = tuple(recipe.heads) if recipe.heads else ("label",)
    form: dict[str, Any] = {
        "labels_format": recipe.labels_format,
        "delimiter": recipe.delimiter,
        "multi_label": recipe.multi_label,
    }
    found = listing.read_listing(train, recipe.videos, heads, **form)
    if train != source:
        found.notes.append(f"training on {train}" + (f", validating on {val}" if val else ""))
    if val is None:
        return found, None
    form["multi_label"] = found.several
    return found, listing.read_listing(val, recipe.videos, heads, **form, part="test")


def _columns(recipe: Recipe, train: listing.Listing) -> tuple[str, ...]:
    """Names of the columns of labels, by which a list of the same clips would be read the same."""
    if train.several:
        return (SEVERAL,)
    return tuple(recipe.heads or ("label_name" if train.named else "label",))


def _check(recipe: Recipe, classes: Sequence[Sequence[str]], sets: Sequence[listing.Listing]) -> list[Sample]:
    """Return the clips whose file is missing, where they may be left out.

    Raises:
        UsageError: With everything wrong with the sets together.
    """
    mistakes: list[str] = []
    missing: list[Sample] = []
    for one in sets:
        found, absent = listing.find_problems(one)
        mistakes += found + unknown_labels(one, classes)
        missing += absent
    if mistakes or (missing and not recipe.skip_missing):
        told = [] if recipe.skip_missing else missing
        remedy = "fix the list" + (", or leave missing clips out with skip_missing=True" if told else "")
        raise listing.report(sets[0].source, mistakes, told, remedy)
    return missing


def _hold_out(data: Data, seed: int, run: Path | None) -> None:
    """Move part of the training clips to a validation set: those that the run has held out before, or a new draw."""
    assert data.train is not None
    samples, ids = data.train
    kept = run / splitting.VAL if run is not None else None
    if kept is not None and kept.is_file():
        paths = {os.path.abspath(s.path) for s in listing.read_listing(kept, heads=data.columns).samples}
        chosen = np.array([os.path.abspath(sample.path) in paths for sample in samples])
    else:
        names = [
            tuple(f"{0 if data.several else head}/{i}" for head, i in enumerate(own)) or ("none",)
            for own in ids
        ]
        chosen = split(names, splitting.source_numbers(samples), HELD_OUT, seed)
    if chosen.all() or not chosen.any():
        data.notes.append("too few clips to hold some out: the figures are on training clips")
        return
    data.train, data.val = (
        ([samples[i] for i in part], [ids[i] for i in part])
        for part in map(np.flatnonzero, (~chosen, chosen))
    )
    data.held_out = True


def _classes(recipe: Recipe, spec: ModelSpec, train: listing.Listing) -> tuple[tuple[str, ...], ...]:
    from vidcls.zoo.labels import load_labels

    if not train.samples:
        raise listing.report(train.source, train.problems, [], "fix the list")
    if recipe.heads:
        found = make_classes(train)
        for (name, size), names in zip(recipe.heads.items(), found, strict=True):
            if len(names) > size:
                raise UsageError(train.source, f"{len(names)} classes of {name}, not {size}", "correct heads")
        return tuple(
            (*names, *(f"{name} {i}" for i in range(len(names), size)))
            for (name, size), names in zip(recipe.heads.items(), found, strict=True)
        )
    if recipe.labels is not None:
        return (load_labels(recipe.labels),)
    beside = names_beside(train)
    if beside is not None:
        train.notes.append(f"classes are called as in {beside[1]}")
        return (beside[0],)
    return make_classes(train, None if spec.labels is None else load_labels(spec.labels))


def _numbered(
    source: listing.Listing, classes: Sequence[Sequence[str]], missing: set[str]
) -> tuple[list[Sample], list[tuple[int, ...]]]:
    samples, numbers = [], []
    for sample, ids in zip(source.samples, class_ids(source, classes), strict=True):
        if sample.path not in missing:
            samples.append(sample)
            numbers.append(tuple(i for i in ids if i is not None))  # none is: unknown labels were refused
    return samples, numbers


def _warnings(data: Data) -> list[str]:
    """What may be intended, but is worth a warning: classes without clips, clips in both sets."""
    notes = []
    assert data.train is not None
    for names, used in zip(data.classes, class_counts(data.classes, data.train[1]), strict=True):
        empty = [name for i, name in enumerate(names) if i not in used]
        if empty:
            notes.append(f"{len(empty)} of {len(names)} classes have no training clip (first: {empty[0]!r})")
    repeated = len(data.train[0]) - len({sample.path for sample in data.train[0]})
    if repeated:
        notes.append(f"{repeated} rows repeat a clip with the same label: it counts as often as it is listed")
    if data.val is not None:
        both = {os.path.realpath(s.path) for s in data.train[0]} & {
            os.path.realpath(s.path) for s in data.val[0]
        }
        if both:
            notes.append(
                f"{len(both)} clips are both trained on and validated with: accuracy will look too good"
            )
        elif shared := _from_trained_sources(data.train[0], data.val[0]):
            notes.append(
                f"{shared} of {len(data.val[0])} validation clips are of sources that are trained on too: accuracy "
                "will look too good; `vidcls split` keeps sources together"
            )
    return notes


def _from_trained_sources(train: Sequence[Sample], val: Sequence[Sample]) -> int:
    """How many validation clips are of a source that training clips are of too."""
    numbers = splitting.source_numbers([*train, *val])
    return int(np.isin(numbers[len(train) :], numbers[: len(train)]).sum())


def make_loaders(
    recipe: Recipe, spec: ModelSpec, data: Data, *, rank: int = 0, world_size: int = 1, pin: bool = False
) -> tuple[Loader, Loader | None]:
    """The training and validation loaders of one process.

    Raises:
        UsageError: The batch cannot be shared by the processes, or an epoch has no length.
    """
    if recipe.batch_size % world_size:
        raise UsageError(
            "batch_size", f"{recipe.batch_size} clips cannot be shared by {world_size} devices", "change it"
        )
    if data.several and recipe.sampler == "balanced":
        raise UsageError("sampler", "balanced needs clips of one label each", "use class_weights=balanced")
    workers = worker_count(recipe)
    share: dict[str, Any] = {"micro_batch": recipe.micro_batch, "rank": rank, "world_size": world_size}
    if recipe.data is not None and synthetic.is_synthetic(recipe.data):
        return synthetic.load_task(recipe.data).make_loaders(
            recipe, spec.input, {**share, "workers": workers}
        )
    assert data.train is not None
    reading: dict[str, Any] = {
        "seed": recipe.seed,
        "num_classes": len(data.labels) if data.several else None,
        "cache": _frame_cache(recipe, rank),
    }
    dataset = ClipDataset(*data.train, spec.input, recipe.augment, **reading)
    sampler = EpochSampler(
        len(dataset),
        recipe.batch_size,
        seed=recipe.seed,
        limit=recipe.clips_per_epoch,
        balance=data.train[1] if recipe.sampler == "balanced" else None,
        **share,
    )
    train = ClipLoader(dataset, sampler, workers, pin)
    if data.val is None:
        return train, None
    test = ClipDataset(*data.val, spec.input, None, **reading)
    share["micro_batch"] = None
    order = EpochSampler(len(test), recipe.micro_batch or recipe.batch_size, shuffle=False, **share)
    return train, ClipLoader(test, order, workers, pin)


def _frame_cache(recipe: Recipe, rank: int) -> FrameCache | None:
    """The cache of resized frames, where the recipe asks for one.

    Raises:
        UsageError: The recipe draws a new size for each clip.
        OutputError: The folder cannot be written.
    """
    if not recipe.frame_cache:
        return None
    if recipe.augment.short_side is not None:
        raise UsageError(
            "frame_cache", "keeps frames of one size, and augment.short_side draws one", "use scale_jitter"
        )
    folder = cache_dir() / "frames"
    cache = FrameCache(folder, int(recipe.frame_cache * 1e9))
    with system_errors(
        OutputError, folder, "cannot be made", "set VIDCLS_CACHE to a folder that can be written"
    ):
        if rank == 0:
            cache.prepare()
    return cache


def worker_count(recipe: Recipe) -> int:
    """Processes to read clips with: the recipe's number, or all cores but one, 8 at most."""
    return max(1, min(8, cores() - 1)) if recipe.workers is None else recipe.workers
