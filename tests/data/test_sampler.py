import hashlib
import json
from itertools import islice

import numpy as np
import pytest

from imgcls.data.sampler import WINDOW, ShardSampler, TrainingSampler, derive_seed, split_evenly

SIZES = [3 + i % 5 for i in range(2 * WINDOW + 7)]  # two windows and part of a third
TOTAL = sum(SIZES)


def first(sampler, count):
    return list(islice(iter(sampler), count))


def test_every_epoch_has_every_record_once_in_a_new_order():
    stream = first(TrainingSampler(7, seed=3), 21)
    assert [position for position, _ in stream] == list(range(21))
    epochs = [[index for _, index in stream[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_depends_on_the_seed():
    assert first(TrainingSampler(50, 1), 50) == first(TrainingSampler(50, 1), 50)
    assert first(TrainingSampler(50, 1), 50) != first(TrainingSampler(50, 2), 50)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_an_iteration_has_the_same_samples_on_any_number_of_processes(world_size):
    batch = 12
    single = first(TrainingSampler(10, 5), 3 * batch)
    ranks = [
        first(TrainingSampler(10, 5, rank=r, world_size=world_size), 3 * batch // world_size) for r in range(world_size)
    ]
    share = batch // world_size
    for iteration in range(3):
        together = [s for rank in ranks for s in rank[iteration * share : (iteration + 1) * share]]
        assert sorted(together) == single[iteration * batch : (iteration + 1) * batch]


def test_a_resumed_stream_continues_the_first_one():
    whole, rest = TrainingSampler(10, 5, rank=1, world_size=2), TrainingSampler(10, 5, rank=1, world_size=2)
    rest.first_position = 2 * 17
    assert first(rest, 20) == first(whole, 37)[17:]


def test_derived_seeds_are_63_bit_and_differ():
    seeds = {derive_seed(seed, position) for seed in range(50) for position in range(200)}
    assert len(seeds) == 10_000 and all(0 <= seed < 2**63 for seed in seeds)


def shard_of(index):
    return int(np.searchsorted(np.cumsum(SIZES), index, side="right"))


def test_every_epoch_of_shards_has_every_sample_once_in_a_new_order():
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


def test_windows_have_different_shards_in_every_epoch():
    stream = [shard_of(index) for _, index in first(ShardSampler(SIZES, seed=3), 2 * TOTAL)]
    assert set(stream[:50]) != set(stream[TOTAL : TOTAL + 50])


def test_the_order_of_shards_depends_on_the_seed():
    assert first(ShardSampler(SIZES, 1), TOTAL) == first(ShardSampler(SIZES, 1), TOTAL)
    assert first(ShardSampler(SIZES, 1), TOTAL) != first(ShardSampler(SIZES, 2), TOTAL)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_an_iteration_of_shards_has_the_same_samples_on_any_number_of_processes(world_size):
    batch = 12
    share, iterations = batch // world_size, 2 * TOTAL // batch
    single = first(ShardSampler(SIZES, 5), iterations * batch)
    ranks = [first(ShardSampler(SIZES, 5, rank, world_size), iterations * share) for rank in range(world_size)]
    for i in range(iterations):
        together = [s for rank in ranks for s in rank[i * share : (i + 1) * share]]
        assert sorted(together) == single[i * batch : (i + 1) * batch]


def test_a_stream_of_shards_can_be_resumed_anywhere():
    whole = first(ShardSampler(SIZES, 5), 2 * TOTAL + 5)
    for position in range(0, 2 * TOTAL):
        rest = ShardSampler(SIZES, 5)
        rest.first_position = position
        assert first(rest, 5) == whole[position : position + 5]


def test_empty_shards_and_a_single_one():
    sizes = [0, 4, 0, 0, 2] + [0] * (2 * WINDOW)
    assert sorted(index for _, index in first(ShardSampler(sizes, 1), 6)) == list(range(6))
    assert sorted(index for _, index in first(ShardSampler([9], 1), 9)) == list(range(9))


def test_memory_is_limited_to_one_window():
    """A permutation of these billion samples would need 8 GB."""
    sampler = ShardSampler([10_000] * 100_000, seed=1, rank=1, world_size=8)
    sampler.first_position = 8 * 50_000_000
    order = sampler._order(0)
    order[400_000_000]
    assert len(order.indices) == WINDOW * 10_000
    indices = [index for _, index in first(sampler, 1000)]
    assert len({index // 10_000 for index in indices}) == WINDOW


@pytest.mark.parametrize(
    ("sampler", "digest"),
    [(TrainingSampler(50, seed=3), "e49751fe98be4afc"), (ShardSampler(SIZES, seed=3), "bdf4ac8a8ec2270f")],
)
def test_the_order_never_changes(sampler, digest):
    """A run that one version has started may be resumed by the next."""
    assert hashlib.sha256(json.dumps(first(sampler, 400)).encode()).hexdigest()[:16] == digest


# Two sets of image files around a set of 40 shards with 5 samples each.
FILES = (range(0, 103), range(303, 320))
MIXED = [*split_evenly(103, 5), *[5] * 40, *split_evenly(17, 5)]


def test_pseudo_shards_have_about_the_given_size():
    assert split_evenly(17, 5) == [5, 6, 6] and split_evenly(2, 5) == [2] and split_evenly(10, 5) == [5, 5]


def test_files_mixed_with_shards_keep_windowed_reading():
    sampler = ShardSampler(MIXED, seed=3, shuffled=FILES)
    epochs = [[index for _, index in first(sampler, 640)][e * 320 : (e + 1) * 320] for e in range(2)]
    assert all(sorted(epoch) == list(range(320)) for epoch in epochs) and epochs[0] != epochs[1]
    for epoch in epochs:
        shards = [(index - 103) // 5 for index in epoch if 103 <= index < 303]
        last = {shard: i for i, shard in enumerate(shards)}
        open_at_once = max(
            sum(shards.index(shard) <= i <= last[shard] for shard in last) for i in range(0, len(shards), 10)
        )
        assert open_at_once <= WINDOW
        # Each window has a random sample of the files, not a range of them, which could be a single class.
        files = [index for index in epoch[:80] if index < 103]
        assert len(files) > 10 and max(files) - min(files) > 80


def test_a_mixed_stream_can_be_resumed_and_divided():
    whole = first(ShardSampler(MIXED, 5, shuffled=FILES), 700)
    for position in (0, 1, 319, 320, 500):
        rest = ShardSampler(MIXED, 5, shuffled=FILES)
        rest.first_position = position
        assert first(rest, 20) == whole[position : position + 20]
    ranks = [first(ShardSampler(MIXED, 5, rank, 2, FILES), 350) for rank in (0, 1)]
    assert sorted(ranks[0] + ranks[1]) == whole
