"""Training clips: decoded, augmented and batched in worker processes, each determined by (seed, epoch, index).

A clip that cannot be read is replaced by the next one that can, so that batches keep their size; it is
reported with the batch and never ends the training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vidcls.config import InputSpec
from vidcls.errors import InputError, UsageError, VidclsError
from vidcls.training.data.augment import augment_clip, draw_short_side
from vidcls.training.data.clips import random_clip, resize_transform
from vidcls.training.data.frame_cache import FrameCache, read_through
from vidcls.training.data.listing import Sample
from vidcls.training.recipe import Augment
from vidcls.video.reader import VideoInfo, VideoReader
from vidcls.views.transform import ClipPlan, frame_transform, make_views, plan_clips

ATTEMPTS = 32
"""Bad clips in a row after which a set counts as unreadable."""

Key = tuple[int, int]
"""(epoch, index): which clip, and which of its random forms."""


@dataclass
class Batch:
    """Some clips.

    Attributes:
        views: (b, c, t, h, w) float32, normalized.
        labels: (b, heads) int64 class ids; (b, k) of 0 and 1 where clips have several labels.
        indices: (b, t) int64 numbers of the frames within the clip's span; what VTN is told.
        bad: Path and reason of each clip that could not be read.
        error: Why no clip at all could be read; the caller raises it. (An exception that leaves a
            worker process loses its type on the way.)
        motion: (b, t - 1, 4) how the camera moved from frame to frame, of clips that were made.
    """

    views: Tensor
    labels: Tensor
    indices: Tensor
    bad: tuple[tuple[str, str], ...] = ()
    error: VidclsError | None = None
    motion: Tensor | None = None

    def __len__(self) -> int:
        return len(self.views)

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        move = [x.to(device, non_blocking=True) for x in (self.views, self.labels, self.indices)]
        motion = None if self.motion is None else self.motion.to(device)
        return Batch(move[0], move[1], move[2], self.bad, self.error, motion)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; DataLoader calls this."""
        pinned = [x.pin_memory() for x in (self.views, self.labels, self.indices)]
        return Batch(pinned[0], pinned[1], pinned[2], self.bad, self.error)


def collate(items: Sequence[Batch]) -> Batch:
    """Join batches of one clip each."""
    return Batch(
        torch.cat([item.views for item in items]),
        torch.cat([item.labels for item in items]),
        torch.cat([item.indices for item in items]),
        tuple(bad for item in items for bad in item.bad),
        next((item.error for item in items if item.error is not None), None),
    )


class ClipDataset(Dataset[Batch]):
    """Clips of a listing; an item is asked for by (epoch, index) and is a batch of one.

    Args:
        samples: The clips.
        labels: (n, heads) ids of their labels; any number of ids where ``num_classes`` is given.
        spec: How the model sees a video.
        augment: What is done to the pictures; None gives the central view as it is tested.
        seed: Seed of all random draws.
        decoder: As for `VideoReader`.
        timeout: Seconds that decoding one clip may take.
        num_classes: Classes, k, where a clip may have several of them.
        cache: Keeps resized frames on the disk.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[tuple[int, ...]],
        spec: InputSpec,
        augment: Augment | None,
        seed: int = 0,
        decoder: str = "auto",
        timeout: float = 60.0,
        num_classes: int | None = None,
        cache: FrameCache | None = None,
    ) -> None:
        self.num_classes, self.cache = num_classes, cache
        self.samples, self.labels = tuple(samples), tuple(labels)
        self.spec = spec if augment else spec.model_copy(update={"num_views": 1, "num_crops": 1})
        self.augment, self.seed = augment, seed
        self.decoder, self.timeout = decoder, timeout
        self._known_bad: dict[int, str] = {}
        self._reader: VideoReader | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # each process has its own

    def __getitem__(self, key: Key) -> Batch:
        """Make one clip; in a test set a clip that cannot be read leaves an empty batch."""
        epoch, index = key
        bad: list[tuple[str, str]] = []
        for attempt in range(min(ATTEMPTS, len(self)) if self.augment else 1):
            place = (index + attempt) % len(self)
            reason = self._known_bad.get(place)
            if reason is None:
                try:
                    views, indices = self._load(place, epoch, index)
                except InputError as error:
                    self._known_bad[place] = reason = f"{error.problem} ({error.kind})"
                except VidclsError as error:
                    return self._empty(bad, error)
                else:
                    return Batch(
                        views[None], self._target(place), torch.from_numpy(indices)[None], tuple(bad)
                    )
            bad.append((self.samples[place].path, reason))
        if not self.augment:
            return self._empty(bad)
        first = f"{bad[0][0]}: {bad[0][1]}"
        problem = f"{len(bad)} clips in a row cannot be read (first: {first})"
        return self._empty(bad, UsageError("data", problem, "check the files"))

    def _target(self, place: int) -> Tensor:
        """(1, heads) class ids, or (1, k) of 0 and 1."""
        ids = torch.tensor([self.labels[place]], dtype=torch.int64)
        return (
            ids if self.num_classes is None else ids.new_zeros(1, self.num_classes).index_fill(1, ids[0], 1)
        )

    def _empty(self, bad: list[tuple[str, str]], error: VidclsError | None = None) -> Batch:
        views = torch.empty(0, 3, self.spec.num_frames, *self.spec.image_size)
        labels = torch.empty(0, self.num_classes or len(self.labels[0]), dtype=torch.int64)
        return Batch(
            views, labels, torch.empty(0, self.spec.num_frames, dtype=torch.int64), tuple(bad), error
        )

    def _load(self, place: int, epoch: int, index: int) -> tuple[Tensor, np.ndarray]:
        if self._reader is None:
            self._reader = VideoReader(self.decoder, self.timeout)
        reader, path = self._reader, self.samples[place].path
        if self.augment is None:
            return self._load_center(path, reader)
        rng = np.random.default_rng([self.seed, epoch, index])
        transform = resize_transform(self.spec)

        def choose(info: VideoInfo) -> np.ndarray:
            return random_clip(self.spec, rng, **_timing(info))

        if self.augment.short_side is None:
            frames, indices = read_through(self.cache, path, transform, reader, choose, whole=True)
        else:  # each clip has a size of its own, drawn after its frames: nothing can be kept
            indices = choose(reader.open(path))
            transform = resize_transform(self.spec, draw_short_side(self.augment, rng))
            frames = reader.read(indices, transform)
        clip = torch.from_numpy(frames.frames[np.searchsorted(frames.indices, indices)])
        # VTN is told places within the clip, not within the file, when it is trained (bomri/SlowFast).
        return augment_clip(clip.permute(0, 3, 1, 2), self.spec, self.augment, rng), indices - indices.min()

    def _load_center(self, path: str, reader: VideoReader) -> tuple[Tensor, np.ndarray]:
        """The central view of a clip, as it is tested."""
        plans: list[ClipPlan] = []

        def choose(info: VideoInfo) -> np.ndarray:
            plans.append(plan_clips(self.spec, **_timing(info)))
            return plans[-1].unique

        frames, _ = read_through(self.cache, path, frame_transform(self.spec), reader, choose, whole=False)
        views = make_views(frames.frames, frames.indices, plans[-1], self.spec)
        return torch.from_numpy(views[0]), plans[-1].indices[0]

    def close(self) -> None:
        """Stop the decoding process."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _timing(info: VideoInfo) -> dict[str, Any]:
    return {"num_frames": info.num_frames, "fps": info.fps, "timestamps": info.timestamps}


class EpochSampler(Sampler[list[Key]]):
    """Keys of one epoch in parts of a batch, in an order that follows from (seed, epoch); may start in the middle.

    Args:
        length: Clips in the set.
        batch_size: Clips of one step over all processes; an epoch's last batch may be smaller, but not when balancing.
        micro_batch: Clips of one part; None for all that this process has of a batch.
        seed: Of the order.
        shuffle: False keeps the order and all clips.
        limit: Clips of one epoch, None for all.
        balance: (length,) the clips' labels, to draw each label equally often; a clip may then come several times.
        rank: This process, of ``world_size``: it gets its share of each batch.
        world_size: Number of processes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        micro_batch: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        limit: int | None = None,
        balance: Sequence[object] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.total, self.length = length, min(length, limit) if limit else length
        self.batch_size = min(batch_size, self.length)
        self.micro_batch = micro_batch or self.batch_size
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.members = _members(balance) if balance is not None else None
        self.epoch, self.start = 0, 0

    @property
    def steps(self) -> int:
        """Batches in a whole epoch."""
        return (
            self.length // self.batch_size if self.members is not None else -(-self.length // self.batch_size)
        )

    @property
    def parts(self) -> int:
        """Parts of one whole batch in this process."""
        return -(-len(range(self.rank, self.batch_size, self.world_size)) // self.micro_batch)

    def set(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and the batch of it to begin with."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        for number in range(self.start, self.steps):
            batch = order[number * self.batch_size : min((number + 1) * self.batch_size, self.length)]
            if (
                self.shuffle
            ):  # each process must have as many clips, or it would wait for the others' gradients
                batch = np.concatenate([batch, np.resize(order, -len(batch) % self.world_size)])
            mine = [(self.epoch, int(index)) for index in batch[self.rank :: self.world_size]]
            for first in range(0, len(mine), self.micro_batch):
                yield mine[first : first + self.micro_batch]

    def _order(self) -> np.ndarray:
        """Numbers of the clips of an epoch, in order."""
        if not self.shuffle:
            return np.arange(self.total)
        rng = np.random.default_rng([self.seed, 7919, self.epoch])
        if self.members is None:
            return rng.permutation(self.total)
        each = -(-self.total // len(self.members))
        drawn = [
            np.concatenate([rng.permutation(clips) for _ in range(-(-each // len(clips)))])[:each]
            for clips in self.members
        ]
        # One clip of each label after the other, so that the labels are balanced within every batch too.
        return rng.permuted(np.stack(drawn), axis=0).T.ravel()[: self.total]


def _members(labels: Sequence[object]) -> list[np.ndarray]:
    """Numbers of the clips of each label."""
    found: dict[object, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(label, []).append(index)
    return [np.array(indices) for indices in found.values()]


class ClipLoader:
    """Batches of a `ClipDataset`, made ahead by worker processes that live as long as the loader.

    Args:
        dataset: The clips.
        sampler: Their order.
        workers: Processes; 0 makes clips in this one.
        pin: Put batches in page-locked memory, for a GPU.
    """

    def __init__(
        self, dataset: ClipDataset, sampler: EpochSampler, workers: int = 0, pin: bool = False
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self._loader: DataLoader[Batch] = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=one_thread,
            # A generator of its own: DataLoader draws a seed for each epoch, and a run that is resumed makes one
            # epoch more than the unbroken one; drawn from torch's generator, that would part their dropout.
            generator=torch.Generator(),
        )

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return self.sampler.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The parts of each step's batch, from step ``start`` of the epoch on."""
        self.sampler.set(epoch, start)
        parts = iter(self._loader)
        while group := list(itertools.islice(parts, self.sampler.parts)):
            yield group

    def example(self) -> Batch:
        """One clip of the first epoch, read in this process."""
        return self.dataset[0, 0]

    def close(self) -> None:
        """Stop the decoding process of this process; worker processes end with the loader."""
        self.dataset.close()


def one_thread(worker: int) -> None:
    """Let a worker process work on one core; more would fight for those of the training."""
    torch.set_num_threads(1)


class Loader(Protocol):
    """What the training loop asks of its data, be it read from files or made on the fly."""

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The parts of each step's batch, from step ``start`` of the epoch on."""
        ...

    def example(self) -> Batch:
        """A few clips read or made in this process, by which the time of the others is estimated."""
        ...

    def close(self) -> None:
        """Stop what reads or makes the clips."""
        ...
