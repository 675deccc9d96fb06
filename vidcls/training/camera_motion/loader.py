"""Batches of synthetic clips, made by whole blocks in worker processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidcls.config import InputSpec
from vidcls.training.data.augment import normalize
from vidcls.training.data.dataset import Batch, one_thread

Blocks = Callable[[int], Sequence[tuple[np.ndarray, int, np.ndarray]]]
Block = tuple[Tensor, Tensor, Tensor]
"""Frames, class ids and steps of the clips of one block, or of one clip."""


class SyntheticLoader:
    """Batches of clips made on the fly, block by block, since the clips of a block share their backgrounds.

    Args:
        blocks: Makes block ``n``: of each clip its frames (t, h, w, 3) uint8, its class id, and the camera's steps
            (t - 1, 4).
        block_size: Clips in each block.
        spec: How the model sees a video; only its normalization is used.
        length: Clips of one epoch; epoch e takes the clips from ``e * length`` on.
        batch_size: Clips of one step over all processes.
        micro_batch: Clips of one part of it.
        workers: Processes; 0 makes clips in this one.
        rank: This process, of ``world_size``: it gets its share of each batch.
        world_size: Number of processes.
    """

    def __init__(
        self,
        blocks: Blocks,
        block_size: int,
        spec: InputSpec,
        length: int,
        batch_size: int,
        micro_batch: int | None = None,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.block_size, self.spec, self.length = block_size, spec, length
        self.batch_size = min(batch_size, length)
        self.micro_batch = micro_batch or self.batch_size
        self.rank, self.world_size = rank, world_size
        self._order: list[int] = []
        self._loader: DataLoader[Block] = DataLoader(
            _BlockDataset(blocks),
            batch_size=None,
            sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=one_thread,
            generator=torch.Generator(),
        )

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return self.length // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The parts of each step's batch, from step ``start`` of the epoch on."""
        first = epoch * self.length + start * self.batch_size
        last = epoch * self.length + self.steps * self.batch_size
        if first >= last:
            return
        self._order[:] = range(first // self.block_size, (last - 1) // self.block_size + 1)
        clips = self._clips(first % self.block_size)
        for _ in range(self.steps - start):
            batch = list(itertools.islice(clips, self.batch_size))
            mine = batch[self.rank :: self.world_size]
            yield [self._join(mine[i : i + self.micro_batch]) for i in range(0, len(mine), self.micro_batch)]

    def _clips(self, skip: int) -> Iterator[Block]:
        for block in self._loader:
            yield from list(zip(*block, strict=True))[skip:]
            skip = 0

    def _join(self, clips: list[Block]) -> Batch:
        views = torch.stack([normalize(frames.permute(0, 3, 1, 2), self.spec) for frames, _, _ in clips])
        labels = torch.stack([label for _, label, _ in clips])[:, None]
        motion = torch.stack([steps for _, _, steps in clips])
        return Batch(views, labels, torch.arange(views.shape[2]).expand(len(views), -1), motion=motion)

    def example(self) -> Batch:
        """One block, made in this process."""
        return self._join(list(zip(*self._loader.dataset[0], strict=True)))

    def close(self) -> None:
        """Nothing to stop: worker processes end with the loader."""


class _BlockDataset(Dataset[Block]):
    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __getitem__(self, number: int) -> Block:
        items = self.blocks(number)
        frames = torch.from_numpy(np.stack([np.ascontiguousarray(clip) for clip, _, _ in items]))
        labels = torch.tensor([label for _, label, _ in items], dtype=torch.int64)
        return frames, labels, torch.from_numpy(np.stack([steps for _, _, steps in items]).astype(np.float32))
