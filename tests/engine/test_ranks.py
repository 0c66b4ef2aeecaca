import socket

import pytest

from imgcls.engine.ranks import ProcessRank, find_rank, first_host, first_local_rank
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


TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node0", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "1000", "SLURM_STEP_ID": "2", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.99",
}  # fmt: skip


def test_torchrun():
    place = find_rank(TORCHRUN)
    assert place == ProcessRank(5, 8, 1, 4, "env://", "torchrun")
    assert place.num_machines == 2


def test_srun_meets_at_the_first_node_of_the_step_at_a_port_of_its_own():
    assert find_rank(SRUN) == ProcessRank(5, 8, 1, 4, f"tcp://gpu07:{16384 + 7002}", "srun")
    assert find_rank(SRUN | {"SLURM_STEP_ID": "3"}).url != find_rank(SRUN).url
    assert find_rank(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4242"}).url == "tcp://10.0.0.1:4242"


def test_srun_without_the_numbers_of_the_step():
    env = {key: value for key, value in SRUN.items() if "STEP" not in key}
    assert find_rank(env | {"SLURM_NTASKS_PER_NODE": "4"}) == ProcessRank(5, 8, 1, 4, "tcp://10.0.0.99:23384", "srun")


@pytest.mark.parametrize("port", [0, 1, 99_999_999])
def test_ports_are_below_those_that_systems_hand_out(port):
    url = find_rank(SRUN | {"SLURM_JOB_ID": str(port)}).url
    assert 16384 <= int(url.rsplit(":", 1)[1]) < 32768


def test_torchrun_in_a_task_of_srun():
    assert find_rank(SRUN | TORCHRUN).launcher == "torchrun"


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"RANK": "1", "WORLD_SIZE": "2"},
        # A batch script, or a shell on a reserved node, that did not call srun.
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_PROCID": "0"},
    ],
)
def test_nothing_has_started_this_process(env):
    assert find_rank(env) is None


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("node1", "node1"),
        ("node[07-09,12],login1", "node07"),
        ("a1,b[2-3]", "a1"),
        ("rack[1-2]n[3,5]", "rack1n3"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_first_host(nodelist, host):
    assert first_host(nodelist) == host


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"LOCAL_RANK": "0", "RANK": "0"}, "not WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start with"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "5,3"}, "srun started 5,3 tasks per node"),
        # --distribution=cyclic: tasks 0, 2, 4 ... are on the first node.
        (SRUN | {"SLURM_LOCALID": "2"}, "rank 5 of 8 is process 2 of 4 on its machine"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "9"}, "every machine needs the same number"),
        ({"SLURM_PROCID": "0", "MASTER_ADDR": "a"}, "not SLURM_STEP_NUM_TASKS or SLURM_NTASKS"),
    ],
)
def test_environments_that_do_not_fit_together(env, message):
    with pytest.raises(UserError, match=message):
        find_rank(env)
