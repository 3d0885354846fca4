"""Which samples a process sees, in which order: seeded, sharded, resumable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from cloverleaf.data.policy import PURPOSE_SHUFFLE, generator

Key = tuple[int, int]


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index) keys of one process in the seeded order of the epoch.

    The order is padded by wrapping so that all processes take equally many steps; process r takes every
    ``world_size``-th key from r on, so the union of the processes' n-th batches is the n-th batch of a single process.

    Args:
        num_images: size of the dataset.
        seed: of the run.
        rank, world_size: this process among all.
        shuffle: draw a new order each epoch, from (seed, epoch).
    """

    def __init__(self, num_images: int, *, seed: int, rank: int = 0, world_size: int = 1, shuffle: bool = True) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size}), got {rank}")
        self.num_images, self.seed, self.rank, self.world_size = num_images, seed, rank, world_size
        self.shuffle, self.epoch, self.start = shuffle, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields; another epoch starts at its beginning."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume(self, epoch: int, start: int) -> None:
        """Go on in the middle of an epoch: ``start`` keys of this process are done already."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie in [0, {len(self)}], got {start}")
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Keys of this process in a whole epoch, wherever it starts."""
        return -(-self.num_images // self.world_size)

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.num_images)
        if self.shuffle:
            order = generator(self.seed, self.epoch, 0, PURPOSE_SHUFFLE).permutation(self.num_images)
        order = np.resize(order, len(self) * self.world_size)[self.rank :: self.world_size]
        epoch = self.epoch
        yield from ((epoch, int(i)) for i in order[self.start :])


class TrainBatchSampler(Sampler[list[Key]]):
    """Groups the keys of an `EpochSampler` into batches.

    The last, smaller batch is kept; only a single left-over image joins the batch before it, because batch
    normalisation has nothing to normalise over in a batch of one. Images are counted over all processes, so that the
    number of batches does not depend on how many processes share them.

    Args:
        sampler: the keys.
        batch_size: samples per step of this process.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it starts."""
        return self._count(0)

    def _count(self, start: int) -> int:
        """Batches from the ``start``-th key of each process on."""
        world_size = self.sampler.world_size
        full, left = divmod(max(self.sampler.num_images - start * world_size, 0), self.batch_size * world_size)
        alone = left == 1 and full > 0
        return full + (left > 0 and not alone)

    def __iter__(self) -> Iterator[list[Key]]:
        keys = iter(self.sampler)
        for _ in range(self._count(self.sampler.start) - 1):
            yield list(itertools.islice(keys, self.batch_size))
        if last := list(keys):
            yield last


class EvalBatchSampler(Sampler[list[int]]):
    """Fixed batches of positions; process r takes every ``world_size``-th batch, so nothing is judged twice.

    Args:
        batches: positions of every batch.
        rank, world_size: this process among all.
    """

    def __init__(self, batches: Sequence[Sequence[int]], *, rank: int = 0, world_size: int = 1) -> None:
        self.batches = [list(batch) for batch in batches[rank::world_size]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches
