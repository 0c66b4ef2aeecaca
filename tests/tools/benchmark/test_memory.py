"""Memory and open files of this process, against what it is known to hold."""

import mmap
import os
import sys

import pytest
from benchmark.memory import memory, open_files, peak_memory, reset_peak

from imgcls.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")


def test_memory_grows_by_what_is_written_and_the_peak_stays():
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


def test_open_files_are_counted(tmp_path):
    before = open_files([os.getpid()])
    with open(tmp_path / "a", "w"), open(tmp_path / "b", "w"):
        assert open_files([os.getpid()]) == before + 2
    assert open_files([os.getpid(), os.getpid()]) == 2 * before


def test_a_system_without_proc_is_named():
    with pytest.raises(UserError, match="only Linux"):
        memory(2**30)
