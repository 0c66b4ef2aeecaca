"""The order of training samples, on any number of processes."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Protocol, SupportsInt

import numpy as np
import torch
from torch.utils.data import Sampler


class Order(Protocol):
    """A permutation, or something that finds its parts when they are asked for."""

    def __getitem__(self, offset: int) -> SupportsInt: ...


class TrainingSampler(Sampler[tuple[int, int]]):
    """An endless stream of ``(position, index)``: epoch after epoch, each in an order of its own.

    The sample at a position depends on ``(seed, position)`` alone. Rank r of W takes the positions r, r + W, ...,
    so that one iteration holds the same samples on any number of processes, and a resumed run sets
    ``first_position`` instead of replaying its past.

    Args:
        size: records in the dataset, at least 1.
        seed: the same on all ranks.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1):
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.first_position = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = -1, None
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
    """A 63-bit seed from two whole numbers: neighbours in either give unrelated streams (SplitMix64's mixer)."""
    mask = (1 << 64) - 1
    mixed = (seed * 0x9E3779B97F4A7C15 + position * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return (mixed ^ (mixed >> 31)) >> 1


# Shards that are mixed with each other at a time: the shuffle buffer. With shards of 256 MB and images of 23 KiB it
# is 180,000 images.
WINDOW = 16


class ShardSampler(TrainingSampler):
    """An endless stream of ``(position, index)`` as of `TrainingSampler`, in an order that is kind to large files.

    Every epoch permutes the shards and cuts their order into windows of 16; the samples of a window are permuted
    together. So only a window's files are read at a time, and memory grows with a window and the number of shards,
    never with the number of samples.

    Inside a window the reads are random. Reading each shard from its beginning through a buffer, as WebDataset does,
    would be sequential, but then what comes next depends on what each worker has read: neither the same samples on any
    number of processes nor a resumed run that begins in the middle of an epoch without replaying it would be possible.

    Args:
        shard_sizes: samples of each shard, in the order of the dataset; one of them is at least 1.
        seed: the same on all ranks.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, rank: int = 0, world_size: int = 1):
        super().__init__(int(sum(shard_sizes)), seed, rank, world_size)
        self.shard_sizes = np.asarray(shard_sizes, np.int64)

    def _order(self, epoch: int) -> "_EpochOrder":
        return _EpochOrder(self.shard_sizes, derive_seed(self.seed, epoch))


class _EpochOrder:
    """The permutation of one epoch; of its windows, the last one used is kept."""

    def __init__(self, shard_sizes: np.ndarray, seed: int):
        self.seed = seed
        self.sizes = shard_sizes
        self.firsts = np.cumsum(shard_sizes) - shard_sizes
        self.shards = _permutation(len(shard_sizes), seed)
        in_order = shard_sizes[self.shards]
        self.ends = np.add.reduceat(in_order, np.arange(0, len(in_order), WINDOW)).cumsum()
        self.begin = self.end = 0
        self.indices = np.empty(0, np.int64)

    def __getitem__(self, offset: int) -> int:
        if not self.begin <= offset < self.end:
            self._enter(int(np.searchsorted(self.ends, offset, side="right")))
        return int(self.indices[offset - self.begin])

    def _enter(self, window: int) -> None:
        shards = self.shards[window * WINDOW : (window + 1) * WINDOW]
        indices = np.concatenate([np.arange(self.firsts[s], self.firsts[s] + self.sizes[s]) for s in shards])
        self.indices = indices[_permutation(len(indices), derive_seed(self.seed, window))]
        self.end = int(self.ends[window])
        self.begin = self.end - len(indices)


def _permutation(size: int, seed: int) -> np.ndarray:
    # torch's, as for all orders of training: its stream is the same on every machine and version up to now.
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).numpy()
