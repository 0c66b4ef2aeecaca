import errno
import os
import subprocess

import pytest

from imgcls.disk import remove_temporary, replace_file
from imgcls.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order: ``fsync`` of a file or folder, ``replace``."""
    log = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor):
        log.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def logged_replace(source, target):
        log.append(f"replace {os.path.basename(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    return log


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_it_returns(tmp_path, calls):
    replace_file(str(tmp_path / "a.pth"), lambda file: file.write(b"new"), "")
    assert calls == [f"fsync a.pth.{os.getpid()}.tmp", "replace a.pth", f"fsync {tmp_path.name}"]
    assert (tmp_path / "a.pth").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_a_name_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace_file("a.pth", lambda file: file.write(b"new"), "")
    assert (tmp_path / "a.pth").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            UserError,
            r"a\.pth: cannot be written \(No space left.*mend",
        ),
        (OSError("odd"), UserError, r"\(odd\); mend"),
        (RuntimeError("a bug of ours"), RuntimeError, "a bug of ours"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, raised, expected, message):
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise raised

    with pytest.raises(expected, match=message) as caught:
        replace_file(str(path), write, "mend it")
    assert caught.type is expected
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_folders_is_good_enough(tmp_path, monkeypatch, number, fails):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    if fails:
        with pytest.raises(UserError, match="Input/output error"):
            replace_file(str(tmp_path / "a.pth"), lambda file: file.write(b"new"), "")
    else:
        replace_file(str(tmp_path / "a.pth"), lambda file: file.write(b"new"), "")
    assert (tmp_path / "a.pth").read_bytes() == b"new"


def test_only_what_dead_processes_left_is_removed(tmp_path):
    with subprocess.Popen(["true"]) as process:
        dead = process.pid
    gone = [f"model_0000009.pth.{dead}.tmp", f"last_checkpoint.{dead}.tmp", f"model_final.pth.{os.getpid()}.tmp"]
    stays = [
        f"backbone.pth.{os.getppid()}.tmp",  # alive, and perhaps writing
        f"notes.txt.{dead}.tmp",
        f"model_0000009.pth.{dead}",
        "model.pth.tmp",
        "model_0000009.pth",
    ]
    for name in gone + stays:
        (tmp_path / name).write_bytes(b"x")
    remove_temporary(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stays)
