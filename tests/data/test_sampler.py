from itertools import islice

import pytest

from imgcls.data.sampler import TrainingSampler, derive_seed


def first(sampler, count):
    return list(islice(iter(sampler), count))


def test_every_epoch_holds_every_record_once_in_an_order_of_its_own():
    stream = first(TrainingSampler(7, seed=3), 21)
    assert [position for position, _ in stream] == list(range(21))
    epochs = [[index for _, index in stream[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_seed_decides():
    assert first(TrainingSampler(50, 1), 50) == first(TrainingSampler(50, 1), 50)
    assert first(TrainingSampler(50, 1), 50) != first(TrainingSampler(50, 2), 50)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_an_iteration_holds_the_same_samples_on_any_number_of_processes(world_size):
    batch = 12
    single = first(TrainingSampler(10, 5), 3 * batch)
    ranks = [
        first(TrainingSampler(10, 5, rank=r, world_size=world_size), 3 * batch // world_size) for r in range(world_size)
    ]
    share = batch // world_size
    for iteration in range(3):
        together = [s for rank in ranks for s in rank[iteration * share : (iteration + 1) * share]]
        assert sorted(together) == single[iteration * batch : (iteration + 1) * batch]


def test_a_resumed_stream_is_the_rest_of_the_first_one():
    whole, rest = TrainingSampler(10, 5, rank=1, world_size=2), TrainingSampler(10, 5, rank=1, world_size=2)
    rest.first_position = 2 * 17
    assert first(rest, 20) == first(whole, 37)[17:]


def test_derived_seeds_are_63_bit_and_differ():
    seeds = {derive_seed(seed, position) for seed in range(50) for position in range(200)}
    assert len(seeds) == 10_000 and all(0 <= seed < 2**63 for seed in seeds)
