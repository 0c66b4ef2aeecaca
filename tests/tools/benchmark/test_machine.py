"""What is read about the machine and about processes."""

import mmap
import multiprocessing
import os
import sys

import pytest
import torch
from benchmark.machine import count_open_files, describe_machine, memory, peak_memory, reset_peak

from imgcls.errors import UserError

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")


def _write_50_megabytes():
    pid = os.getpid()
    reset_peak()
    before, low = memory(pid), peak_memory(pid)
    block = mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * 50_000_000)
    after = memory(pid)
    assert 45 < after["uss"] - before["uss"] < 110
    assert after["uss"] <= after["pss"] + 1
    block.close()
    assert peak_memory(pid) - low > 45
    reset_peak()
    assert peak_memory(pid) < low + 45


@linux
def test_memory_grows_by_what_is_written_and_the_peak_stays():
    """In a process without the threads of other tests, which need memory, too."""
    process = multiprocessing.get_context("fork").Process(target=_write_50_megabytes)
    process.start()
    process.join()
    assert process.exitcode == 0


@linux
def test_open_files_are_counted(tmp_path):
    before = count_open_files([os.getpid()])
    with open(tmp_path / "a", "w"), open(tmp_path / "b", "w"):
        assert count_open_files([os.getpid()]) == before + 2
    assert count_open_files([os.getpid(), os.getpid()]) == 2 * before


def test_memory_is_refused_without_proc():
    with pytest.raises(UserError, match="only Linux"):
        memory(2**30)


def test_the_description_has_processor_cores_and_versions():
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["processor"]
    assert machine["torch"].startswith(torch.__version__.split("+")[0])
    assert {"GPU", "Python", "OpenCV", "torchvision", "detectron2", "timm", "Pillow", "load before"} <= set(machine)
