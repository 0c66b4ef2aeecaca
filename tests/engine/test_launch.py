"""Real processes, on the CPU."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from imgcls.engine.launch import launch, usable_device
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
    assert "torchrun decides: 1 processes a machine, 1 machines; the command line's 4 and 1 are not" in caplog.text


def test_mistakes_are_told_before_anything_is_started():
    for options, message in [
        ({"processes": -1}, "--num-gpus is -1; allowed: 0"),
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
