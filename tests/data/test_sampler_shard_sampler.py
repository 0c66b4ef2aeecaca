from itertools import islice

import numpy as np
import pytest

from imgcls.data.sampler import WINDOW, ShardSampler, TrainingSampler

SIZES = [3 + i % 5 for i in range(2 * WINDOW + 7)]  # two windows and a part of one
TOTAL = sum(SIZES)


def first(sampler, count):
    return list(islice(iter(sampler), count))


def shard_of(index):
    return int(np.searchsorted(np.cumsum(SIZES), index, side="right"))


def test_every_epoch_holds_every_sample_once_in_an_order_of_its_own():
    stream = first(ShardSampler(SIZES, seed=3), 3 * TOTAL)
    assert [position for position, _ in stream] == list(range(3 * TOTAL))
    epochs = [[index for _, index in stream[e * TOTAL : (e + 1) * TOTAL]] for e in range(3)]
    assert all(sorted(epoch) == list(range(TOTAL)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_window_mixes_its_shards_and_reads_no_others():
    order = [index for _, index in first(ShardSampler(SIZES, seed=3), TOTAL)]
    begin, seen = 0, set()
    for shards in (WINDOW, WINDOW, 7):
        window = []
        while sum(SIZES[s] for s in {shard_of(i) for i in window}) != len(window) or len(window) == 0:
            window.append(order[begin + len(window)])
        begin += len(window)
        assert len({shard_of(i) for i in window}) == shards
        assert len({shard_of(i) for i in window[:shards]}) > shards / 2, "not shard after shard"
        seen |= {shard_of(i) for i in window}
    assert begin == TOTAL and seen == set(range(len(SIZES)))


def test_other_epochs_put_other_shards_together():
    stream = [shard_of(index) for _, index in first(ShardSampler(SIZES, seed=3), 2 * TOTAL)]
    assert set(stream[:50]) != set(stream[TOTAL : TOTAL + 50])


def test_the_seed_decides():
    assert first(ShardSampler(SIZES, 1), TOTAL) == first(ShardSampler(SIZES, 1), TOTAL)
    assert first(ShardSampler(SIZES, 1), TOTAL) != first(ShardSampler(SIZES, 2), TOTAL)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_an_iteration_holds_the_same_samples_on_any_number_of_processes(world_size):
    batch = 12
    share, iterations = batch // world_size, 2 * TOTAL // batch
    single = first(ShardSampler(SIZES, 5), iterations * batch)
    ranks = [first(ShardSampler(SIZES, 5, rank, world_size), iterations * share) for rank in range(world_size)]
    for i in range(iterations):
        together = [s for rank in ranks for s in rank[i * share : (i + 1) * share]]
        assert sorted(together) == single[i * batch : (i + 1) * batch]


def test_a_stream_resumed_anywhere_is_the_rest_of_the_first_one():
    whole = first(ShardSampler(SIZES, 5), 2 * TOTAL + 5)
    for position in range(0, 2 * TOTAL):
        rest = ShardSampler(SIZES, 5)
        rest.first_position = position
        assert first(rest, 5) == whole[position : position + 5]


def test_empty_shards_and_a_single_one():
    sizes = [0, 4, 0, 0, 2] + [0] * (2 * WINDOW)
    assert sorted(index for _, index in first(ShardSampler(sizes, 1), 6)) == list(range(6))
    assert sorted(index for _, index in first(ShardSampler([9], 1), 9)) == list(range(9))


def test_memory_is_that_of_one_window():
    """A set of a billion samples; a permutation of it would be 8 GB."""
    sampler = ShardSampler([10_000] * 100_000, seed=1, rank=1, world_size=8)
    sampler.first_position = 8 * 50_000_000
    order = sampler._order(0)
    order[400_000_000]
    assert len(order.indices) == WINDOW * 10_000
    indices = [index for _, index in first(sampler, 1000)]
    assert len({index // 10_000 for index in indices}) == WINDOW


def test_it_is_a_training_sampler():
    """``ClsLoader.start_at`` looks for one."""
    assert isinstance(ShardSampler([1], 0), TrainingSampler)
