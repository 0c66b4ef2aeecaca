"""Real processes, on the CPU."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch import distributed
from torch.multiprocessing import ProcessExitedException, start_processes

from imgcls.engine.launch import check_gpus, choose_backend, choose_gpu, join_group, launch, usable_device
from imgcls.engine.ranks import ProcessRank
from imgcls.errors import UserError

MAINS = Path(__file__).with_name("launch_mains.py")


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_PROCID", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def told(folder: Path) -> list:
    return [json.loads((folder / name).read_text()) for name in sorted(os.listdir(folder))]


def test_torchrun(tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*run, MAINS, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [said[:4] for said in told(tmp_path)] == [[2, 0, 2, 11], [2, 1, 2, 11]]


def test_spawned_processes_and_what_is_said_when_one_is_killed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(MAINS.parent)
    lose_one = importlib.import_module(MAINS.stem).lose_one
    start = time.monotonic()
    with pytest.raises(ProcessExitedException, match=r"rank 1 \(process \d+\) was ended by SIGKILL"):
        launch(lose_one, str(tmp_path), device="cpu", processes=2)
    assert time.monotonic() - start < 120
    assert [said[:4] for said in told(tmp_path)] == [[2, 0, 2, 11], [2, 1, 2, 11]]
    for *_, threads in told(tmp_path):
        assert threads == 1 or 2 * threads <= os.cpu_count()


@pytest.mark.parametrize("processes", [0, 1])
def test_one_process_is_this_one(processes):
    launched = launch(lambda args: (args, os.getpid()), "args", device="cpu", processes=processes)
    assert launched == ("args", os.getpid())


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_several_gpus_on_a_machine_without_one_are_one_cpu_process():
    assert launch(lambda _: os.getpid(), None, device="cuda", processes=8) == os.getpid()
    assert usable_device("cuda", 8) == usable_device("cuda:1", 1) == "cpu"


def test_usable_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_device("cuda", 8) == "cuda" and usable_device("cuda", 0) == "cpu" and usable_device("cpu", 8) == "cpu"


def test_the_environment_counts_more_than_the_command_line(monkeypatch, caplog):
    env = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a"}
    for name, value in (env | {"MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    assert launch(lambda _: os.getpid(), None, device="cpu") == os.getpid()
    assert not caplog.records
    assert launch(lambda _: os.getpid(), None, device="cpu", processes=4) == os.getpid()
    assert (
        "torchrun started 1 processes per machine on 1 machines; the 4 and 1 of the command line are ignored"
        in caplog.text
    )


def test_mistakes_are_told_before_anything_is_started():
    for options, message in [
        ({"processes": -1}, "the number of GPUs is -1; allowed: 0"),
        ({"num_machines": 2}, "--dist-url is auto for 2 machines"),
        ({"backend": "nccl"}, "--dist-backend is nccl, which needs GPUs"),
    ]:
        with pytest.raises(UserError, match=message):
            launch(pytest.fail, "started", device="cpu", **options)


def test_gpus_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"4 processes on this machine .* it has 2"):
        launch(pytest.fail, "started", device="cuda", processes=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"MODEL.DEVICE is cuda and this machine has no GPU"):
        launch(pytest.fail, "started", device="cuda", processes=2, num_machines=2, dist_url="tcp://a:1")


TIMEOUT = timedelta(seconds=30)


def test_backend_by_device():
    assert [choose_backend("cuda"), choose_backend("cuda:1"), choose_backend("cpu")] == ["nccl", "nccl", "gloo"]
    assert choose_backend("cuda", "gloo") == "gloo"


@pytest.mark.parametrize(("asked", "message"), [("nccl", "nccl, which needs GPUs"), ("mpi", "allowed: nccl, gloo")])
def test_backend_that_does_not_fit(asked, message):
    with pytest.raises(UserError, match=message):
        choose_backend("cpu", asked)


def place(launcher="spawn", local_rank=2):
    return ProcessRank(4 + local_rank, 8, local_rank, 4, "env://", launcher)


def test_every_process_has_its_own_gpu():
    assert [choose_gpu(place(local_rank=index), 4) for index in range(4)] == [0, 1, 2, 3]
    assert choose_gpu(place("srun"), 8) == 2
    assert choose_gpu(place("srun"), 1) == 0


@pytest.mark.parametrize(("launcher", "here"), [("srun", 3), ("srun", 0), ("torchrun", 1), ("spawn", 1), ("spawn", 3)])
def test_too_few_gpus(launcher, here):
    with pytest.raises(UserError, match=f"4 processes on this machine .* it has {here}"):
        choose_gpu(place(launcher), here)


@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [
        ("cuda", 3, "3 processes on this machine .* it has 2"),
        ("cuda:1", 2, "MODEL.DEVICE is cuda:1 for 2 processes; write cuda"),
        ("cuda:2", 1, "MODEL.DEVICE is cuda:2; this machine has 2 GPUs, counted from 0"),
    ],
)
def test_gpus_are_looked_for_before_anything_is_started(monkeypatch, device, processes, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=message):
        check_gpus(device, ProcessRank(0, processes, 0, processes, "env://", "spawn"))
    for fitting, count in (("cuda", 2), ("cuda:1", 1), ("cpu", 8)):
        check_gpus(fitting, ProcessRank(0, count, 0, count, "env://", "spawn"))


def work(index, url, folder):
    """One of two machines with two processes each."""
    join_group(ProcessRank(index, 4, index % 2, 2, url, "spawn"), "cpu", "gloo", TIMEOUT)
    total = torch.tensor([10**index])
    distributed.all_reduce(total, group=comm._LOCAL_PROCESS_GROUP)
    said = [comm.get_rank(), comm.get_world_size(), comm.get_local_rank(), comm.get_local_size(), total.item()]
    (folder / str(index)).write_text(json.dumps([distributed.get_backend(), *said]))


def test_two_machines_with_two_processes(tmp_path):
    start_processes(work, (f"file://{tmp_path}/meet", tmp_path), 4, start_method="fork")
    assert [json.loads((tmp_path / str(index)).read_text()) for index in range(4)] == [
        ["gloo", 0, 4, 0, 2, 11],
        ["gloo", 1, 4, 1, 2, 11],
        ["gloo", 2, 4, 0, 2, 1100],
        ["gloo", 3, 4, 1, 2, 1100],
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_are_not_there(rank):
    """The port is taken (rank 0 opens it), or nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if rank == 0:
            taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            UserError, match=f"rank {rank} of 2 did not meet the others at {url}: .*; --dist-url"
        ) as error:
            join_group(ProcessRank(rank, 2, rank, 2, url, "spawn"), "cpu", "gloo", timedelta(seconds=1))
    assert "\n" not in str(error.value)
    assert not distributed.is_initialized()
