"""Processes that are killed while they save a checkpoint, and full disks."""

import multiprocessing
import os
import random
import resource
import shlex
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from imgcls.checkpoint import RunCheckpointer
from imgcls.errors import UserError

KILLS = 30
fork = multiprocessing.get_context("fork")  # starts quickly, because everything is imported already


def make_checkpointer(folder):
    return RunCheckpointer(nn.Linear(300, 300), str(folder), keep=2)


def save_repeatedly(folder, begun):
    torch.set_num_threads(1)  # a forked process does not have the threads of its parent
    checkpointer = make_checkpointer(folder)
    iteration = checkpointer.resume_or_load("", resume=True)["iteration"]
    while True:
        iteration += 1
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        begun.set()


def test_kills_during_saves(tmp_path, caplog):
    delays = random.Random(0)
    make_checkpointer(tmp_path).save("model_0000000", iteration=0)
    last, killed_in_a_write = 0, 0
    for _ in range(KILLS):
        begun = fork.Event()
        process = fork.Process(target=save_repeatedly, args=(tmp_path, begun))
        process.start()
        assert begun.wait(60)
        time.sleep(delays.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -9
        killed_in_a_write += any(tmp_path.glob("*.tmp"))
        named = tmp_path / (tmp_path / "last_checkpoint").read_text()
        checkpoint = torch.load(named, weights_only=True)
        assert named.name == f"model_{checkpoint['iteration']:07d}.pth" and checkpoint["iteration"] > last
        last = checkpoint["iteration"]
    assert killed_in_a_write > 0
    make_checkpointer(tmp_path).save(f"model_{last + 1:07d}", iteration=last + 1)
    assert len(list(tmp_path.glob("model_*.pth"))) == 2 and list(tmp_path.glob("*.tmp")) == []
    assert caplog.text == ""


def save_below(folder, limit, answer):
    torch.set_num_threads(1)
    checkpointer = make_checkpointer(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        checkpointer.save("model_0000019", iteration=19)
    except UserError as error:
        answer.send(str(error))


# The first limit stops torch.save among the tensors (RuntimeError), the second in the last bytes (OSError).
@pytest.mark.parametrize("missing", [200_000, 1])
def test_a_file_that_cannot_grow(tmp_path, missing):
    make_checkpointer(tmp_path).save("model_0000009", iteration=9)
    size = (tmp_path / "model_0000009.pth").stat().st_size
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=save_below, args=(tmp_path, size - missing, send))
    process.start()
    process.join()
    assert receive.poll(), "the save succeeded"
    check_earlier_checkpoint(tmp_path, receive.recv(), "File too large")


def test_a_full_disk(tmp_path):
    """The disk is a tmpfs in its own mount namespace, with room for one and a half checkpoints."""
    make_checkpointer(tmp_path).save("model_0000009", iteration=9)
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    quoted = {name: shlex.quote(str(value)) for name, value in (("disk", disk), ("run", tmp_path), ("kept", kept))}
    mount = "mount -t tmpfs -o size=600k tmpfs {disk}".format(**quoted)
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    code = f"""
from imgcls.checkpoint import RunCheckpointer
from torch import nn
try:
    RunCheckpointer(nn.Linear(300, 300), {str(disk)!r}, keep=1).save("model_0000019", iteration=19)
except ValueError as error:
    print(error)
"""
    script = " && ".join(
        [mount, "cp {run}/model_0000009.pth {run}/last_checkpoint {disk}", '"$0" -c "$1"', "cp -r {disk} {kept}"]
    ).format(**quoted)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, sys.executable, code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_earlier_checkpoint(kept, done.stdout, "No space left on device")


def check_earlier_checkpoint(folder, message, reason):
    assert f"model_0000019.pth: cannot be written ({reason})" in message
    assert "model_0000009.pth is intact" in message
    assert sorted(os.listdir(folder))[:2] == ["last_checkpoint", "model_0000009.pth"]
    assert make_checkpointer(folder).resume_or_load("", resume=True)["iteration"] == 9
