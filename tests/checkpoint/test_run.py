import errno
import fcntl
import logging
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from imgcls.checkpoint import ClsCheckpointer, build_info, find_newest, read_tag, saved_seed
from imgcls.checkpoint.run import find_damage, find_readable, list_numbered, lock_run_folder, remove_old
from imgcls.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Checkpoints 9, 19 and 29, the last of which is tagged, among files of other kinds."""
    for number in (9, 19, 29):
        torch.save({"model": {"a": torch.full((2000,), float(number))}}, tmp_path / f"model_{number:07d}.pth")
    for name in ("model_best.pth", "model_final.pth", "model_x.pth", "model_0000039.pth.123.tmp", "metrics.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "last_checkpoint").write_text("model_0000029.pth")
    return tmp_path


def truncate(path, share):
    os.truncate(path, int(path.stat().st_size * share))


def corrupt(path):
    """Writes zeros into the middle of the first tensor, as a power failure can leave them."""
    data = bytearray(path.read_bytes())
    start = data.index(torch.load(path)["model"]["a"].numpy().tobytes())
    data[start + 100 : start + 200] = bytes(100)
    path.write_bytes(data)


def test_numbered_checkpoints_are_listed_newest_first(folder):
    names = [os.path.basename(path) for path in list_numbered(str(folder))]
    assert names == ["model_0000029.pth", "model_0000019.pth", "model_0000009.pth"]
    assert [p[-6:] for p in list_numbered(str(folder), below="model_0000019.pth")] == ["09.pth"]
    assert list_numbered(str(folder / "gone")) == []


def test_checkpoints_are_sorted_by_number_and_not_by_name(tmp_path):
    for name in ("model_9999999.pth", "model_10000000.pth"):
        (tmp_path / name).touch()
    assert [os.path.basename(path) for path in list_numbered(str(tmp_path))] == [
        "model_10000000.pth",
        "model_9999999.pth",
    ]


def test_the_tagged_checkpoint_is_the_newest_and_nothing_is_logged(folder, caplog):
    assert find_newest(str(folder)) == str(folder / "model_0000029.pth")
    (folder / "last_checkpoint").write_text("model_0000019.pth\n")
    assert read_tag(str(folder)) == find_newest(str(folder)) == str(folder / "model_0000019.pth")
    assert caplog.records == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_reported_and_the_one_before_it_used(folder, caplog, share):
    truncate(folder / "model_0000029.pth", share)
    assert find_newest(str(folder)) == str(folder / "model_0000019.pth")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "model_0000029.pth is truncated or not a checkpoint" in record.getMessage()
    assert "model_0000019.pth" in record.getMessage()


def test_zeros_in_a_file_of_full_length_are_detected(folder, caplog):
    """torch reads such a file without an error, and the run would continue with other weights."""
    corrupt(folder / "model_0000029.pth")
    assert (torch.load(folder / "model_0000029.pth")["model"]["a"] == 0).any()
    assert find_newest(str(folder)) == str(folder / "model_0000019.pth")
    assert "model_0000029.pth is damaged (wrong checksum" in caplog.text


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_are_reported_as_damage_and_never_raise(folder, seed):
    path = folder / "model_0000029.pth"
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    start = rng.randrange(len(data) - 1500, len(data) - 8)  # the fields of the zip format
    data[start : start + 8] = rng.randbytes(8)
    path.write_bytes(data)
    damage = find_damage(str(path))
    if damage:
        assert damage.startswith(str(path))
    else:  # the bytes hit fields that are not read
        assert torch.equal(torch.load(path)["model"]["a"], torch.full((2000,), 29.0))


def test_two_damaged_checkpoints(folder, caplog):
    truncate(folder / "model_0000029.pth", 0.5)
    corrupt(folder / "model_0000019.pth")
    assert find_newest(str(folder)) == str(folder / "model_0000009.pth")
    assert len(caplog.records) == 1
    assert "model_0000029.pth is truncated" in caplog.text and "model_0000019.pth is damaged" in caplog.text


def test_higher_numbers_of_an_earlier_run_are_not_newer(folder):
    (folder / "last_checkpoint").write_text("model_0000019.pth")
    truncate(folder / "model_0000019.pth", 0.5)
    assert find_newest(str(folder)) == str(folder / "model_0000009.pth")


def test_a_damaged_final_checkpoint_is_replaced_by_the_newest_numbered_one(folder):
    (folder / "last_checkpoint").write_text("model_final.pth")
    assert find_newest(str(folder)) == str(folder / "model_0000029.pth")
    assert find_readable(str(folder / "model_best.pth")) == str(folder / "model_0000029.pth")


def test_no_readable_checkpoint_is_an_error(folder):
    for number in (9, 19, 29):
        truncate(folder / f"model_{number:07d}.pth", 0.5)
    with pytest.raises(ValueError, match="no checkpoint can be read") as raised:
        find_newest(str(folder))
    assert all(f"model_{number:07d}.pth is truncated" in str(raised.value) for number in (9, 19, 29))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tag", [None, "", "\n"])
def test_a_run_killed_before_its_first_tag(folder, caplog, tag):
    (folder / "last_checkpoint").unlink()
    if tag is not None:
        (folder / "last_checkpoint").write_text(tag)
    assert read_tag(str(folder)) == ""
    assert find_newest(str(folder)) == str(folder / "model_0000029.pth")
    assert "last_checkpoint names no checkpoint; resuming from" in caplog.text


def test_a_folder_without_checkpoints(tmp_path):
    assert find_newest(str(tmp_path)) == "" and find_newest(str(tmp_path / "gone")) == ""


def test_a_tag_that_names_a_missing_file_is_an_error(folder):
    (folder / "model_0000029.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names .*model_0000029\.pth, which does not exist"):
        find_newest(str(folder))


def test_the_file_format_of_old_torch_versions(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": {"a": torch.zeros(2000)}}, path, _use_new_zipfile_serialization=False)
    assert find_damage(str(path)) == ""
    truncate(path, 0.9)
    assert "is truncated" in find_damage(str(path))


def list_pth(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.parametrize(("keep", "expected"), [(1, [29]), (2, [19, 29]), (3, [9, 19, 29]), (9, [9, 19, 29])])
def test_the_newest_checkpoints_are_kept(folder, keep, expected):
    remove_old(str(folder / "model_0000029.pth"), keep)
    numbered = [f"model_{number:07d}.pth" for number in expected]
    assert list_pth(folder) == [*numbered, "model_best.pth", "model_final.pth", "model_x.pth"]


def test_the_tagged_checkpoint_and_those_of_an_earlier_longer_run_are_kept(folder):
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    remove_old(str(folder / "model_0000019.pth"), 1)
    assert list_pth(folder)[:3] == ["model_0000009.pth", "model_0000019.pth", "model_0000029.pth"]


def test_saving_best_or_final_removes_nothing(folder):
    before = list_pth(folder)
    for name in ("model_best.pth", "model_final.pth"):
        remove_old(str(folder / name), 1)
    assert list_pth(folder) == before


def test_a_failed_removal_is_a_warning(folder, monkeypatch, caplog):
    monkeypatch.setattr(os, "unlink", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    remove_old(str(folder / "model_0000029.pth"), 1)
    assert "model_0000009.pth: this old checkpoint cannot be removed (Permission denied)" in caplog.text


def test_the_seed_of_a_run(tiny_cfg, tmp_path):
    tiny_cfg.merge_from_list(["SEED", 41, "OUTPUT_DIR", str(tmp_path)])
    assert saved_seed(str(tmp_path)) == saved_seed(str(tmp_path / "gone")) == -1
    ClsCheckpointer(torch.nn.Linear(2, 2), str(tmp_path), info=build_info(tiny_cfg, ["a", "b", "c"])).save(
        "model_0000001"
    )
    assert saved_seed(str(tmp_path)) == saved_seed(str(tmp_path / "model_0000001.pth")) == 41


def test_a_checkpoint_without_a_seed(tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert saved_seed(str(tmp_path)) == -1
    torch.save({"model": {"a": torch.zeros(1)}, "imgcls": {"cfg": "VERSION: 2"}}, tmp_path / "model_final.pth")
    assert saved_seed(str(tmp_path)) == -1
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint can be read"):
        saved_seed(str(tmp_path))


HOLD = """
import os, sys, time
from imgcls.checkpoint.run import lock_run_folder
lock = lock_run_folder(sys.argv[1])
child = os.fork()  # as a loader worker, which can outlive a killed run
if child == 0:
    os.setsid()
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has locked the folder, and the id of its forked child, which is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        yield process, child
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_killed(tmp_path, holder):
    process, child = holder
    with pytest.raises(UserError) as raised:
        lock_run_folder(str(tmp_path))
    assert f"OUTPUT_DIR {tmp_path} is in use by another run (process {process.pid} on " in str(raised.value)
    assert "\n" not in str(raised.value)
    process.kill()
    process.wait()
    os.kill(child, 0)  # alive
    lock_run_folder(str(tmp_path)).release()


def try_lock(folder):
    """Whether another process can lock the folder."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            lock_run_folder(str(folder))
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_lock_is_released_once_and_not_by_the_children_of_its_process(tmp_path):
    with lock_run_folder(str(tmp_path)) as lock:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert not try_lock(tmp_path)
        lock.release()
        assert try_lock(tmp_path)
    lock_run_folder(str(tmp_path)).release()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        fcntl, "lockf", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available"))
    )
    with lock_run_folder(str(tmp_path)):
        (record,) = caplog.records
    assert record.levelno == logging.WARNING and ".lock cannot be locked (No locks available)" in record.getMessage()


def test_a_lock_needs_a_folder_that_can_be_written(tmp_path):
    with pytest.raises(UserError, match=r"^OUTPUT_DIR .*gone: cannot write .*\.lock \(No such file or directory\)"):
        lock_run_folder(str(tmp_path / "gone"))
