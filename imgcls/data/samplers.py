"""The order of training samples, on any number of processes."""

from collections.abc import Iterator
from itertools import count
from typing import Protocol, SupportsInt

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
