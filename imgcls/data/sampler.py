"""The order of training samples, on any number of processes."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Protocol, SupportsInt

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler


class Order(Protocol):
    """A permutation of record indices, in memory or computed piece by piece."""

    def __getitem__(self, offset: int, /) -> SupportsInt: ...


class TrainingSampler(Sampler[tuple[int, int]]):
    """An endless stream of ``(position, index)``; every epoch has its own random order.

    The index at a position depends on ``(seed, position)`` only. Rank r of W takes the positions r, r + W, ..., so an
    iteration has the same samples on any number of processes, and a resumed run sets ``first_position`` instead of
    replaying the stream. ``size``, the number of records, is at least 1; ``seed`` is the same on all ranks.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1):
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.first_position = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = -1
        order: Order = ()
        for position in count(self.first_position + self.rank, self.world_size):
            if position // self.size != epoch:
                epoch = position // self.size
                order = self._order(epoch)
            yield position, int(order[position % self.size])

    def _order(self, epoch: int) -> Order:
        """The index of the record at every offset of an epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        return torch.randperm(self.size, generator=generator)


def derive_seed(seed: int, position: int) -> int:
    """A 63-bit seed from two integers; adjacent values of either give unrelated streams (SplitMix64's mixer)."""
    mask = (1 << 64) - 1
    mixed = (seed * 0x9E3779B97F4A7C15 + position * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return (mixed ^ (mixed >> 31)) >> 1


# Shards that are shuffled together. With shards of 256 MB and images of 23 KiB these are 180,000 images.
WINDOW = 16


class ShardSampler(TrainingSampler):
    """An endless stream of ``(position, index)`` like `TrainingSampler`'s, which reads only a few shards at a time.

    Every epoch permutes the shards, groups them into windows of 16, and permutes the samples of each window together.
    Memory grows with the size of a window and the number of shards, not with the number of samples in shards.

    Reads within a window are random. WebDataset reads each shard sequentially through a shuffle buffer, but then the
    next sample depends on what each worker has read: the samples would change with the number of processes, and a
    resumed run would have to replay the epoch.

    Args:
        shard_sizes: samples of each shard, in the order of the dataset; at least one is not 0.
        seed, rank, world_size: as for `TrainingSampler`.
        shuffled: ranges of indices that are not in shards, such as image files. `split_evenly` divides them into
            pseudo-shards, which have entries in ``shard_sizes`` too. Every epoch permutes the indices of such a range
            first, so that a pseudo-shard is a random sample and not, for example, the images of one class.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffled: Sequence[range] = (),
    ):
        super().__init__(int(sum(shard_sizes)), seed, rank, world_size)
        self.shard_sizes = np.asarray(shard_sizes, np.int64)
        self.shuffled = shuffled

    def _order(self, epoch: int) -> "_EpochOrder":
        return _EpochOrder(self.shard_sizes, derive_seed(self.seed, epoch), self.shuffled)


class _EpochOrder:
    """The permutation of one epoch; only the current window is in memory."""

    def __init__(self, shard_sizes: NDArray[np.int64], seed: int, shuffled: Sequence[range]):
        self.seed = seed
        self.sizes = shard_sizes
        self.firsts = np.cumsum(shard_sizes) - shard_sizes
        self.shards = _permutation(len(shard_sizes), seed)
        in_order = shard_sizes[self.shards]
        self.ends = np.add.reduceat(in_order, np.arange(0, len(in_order), WINDOW)).cumsum()
        # Windows use the seeds derived from 0, 1, ...; negative numbers are free.
        self.shuffled = [
            (indices, _permutation(len(indices), derive_seed(seed, -1 - number)))
            for number, indices in enumerate(shuffled)
        ]
        self.begin = self.end = 0
        self.indices = np.empty(0, np.int64)

    def __getitem__(self, offset: int) -> int:
        if not self.begin <= offset < self.end:
            self._enter(int(np.searchsorted(self.ends, offset, side="right")))
        return int(self.indices[offset - self.begin])

    def _enter(self, window: int) -> None:
        shards = self.shards[window * WINDOW : (window + 1) * WINDOW]
        indices = np.concatenate([np.arange(self.firsts[s], self.firsts[s] + self.sizes[s]) for s in shards])
        for chosen, permutation in self.shuffled:
            inside = (indices >= chosen.start) & (indices < chosen.stop)
            indices[inside] = chosen.start + permutation[indices[inside] - chosen.start]
        self.indices = indices[_permutation(len(indices), derive_seed(self.seed, window))]
        self.end = int(self.ends[window])
        self.begin = self.end - len(indices)


def split_evenly(size: int, shard_size: int) -> list[int]:
    """The sizes of pseudo-shards of about ``shard_size`` records, which add up to ``size``."""
    count = max(1, round(size / shard_size))
    return [size * (i + 1) // count - size * i // count for i in range(count)]


def _permutation(size: int, seed: int) -> NDArray[np.int64]:
    # torch's generator, as for all training orders: its stream is the same on every machine and in all versions so far.
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).numpy()
