import socket

import pytest

from imgcls.engine.ranks import ProcessRank, first_local_rank
from imgcls.errors import UserError


def test_the_first_process_of_a_machine():
    assert first_local_rank(4, 3, 2, "tcp://node0:29500") == ProcessRank(8, 12, 0, 4, "tcp://node0:29500", "spawn")


def test_auto_is_a_free_port_of_this_machine():
    host, port = first_local_rank(2, 1, 0, "auto").url.removeprefix("tcp://").split(":")
    with socket.socket() as free:
        free.bind((host, int(port)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((1, 0, 0, "auto"), "number of machines is 0; allowed: 1 or more"),
        ((1, 2, 2, "tcp://a:1"), "rank of this machine is 2; allowed: 0 to 1"),
        ((1, 2, -1, "tcp://a:1"), "rank of this machine is -1; allowed: 0 to 1"),
        ((1, 2, 0, "auto"), "--dist-url is auto for 2 machines; .*--dist-url tcp://HOST:PORT"),
        ((2, 1, 0, "node0:29500"), "--dist-url is node0:29500; allowed: auto, tcp://HOST:PORT"),
    ],
)
def test_numbers_and_addresses_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        first_local_rank(*options)


@pytest.mark.parametrize("place", [(5, 8, 2, 4), (5, 9, 1, 4)])
def test_ranks_that_are_not_in_blocks_of_one_size(place):
    with pytest.raises(UserError, match="every machine needs the same number of processes, with ranks in one block"):
        ProcessRank(*place, "env://", "srun")
