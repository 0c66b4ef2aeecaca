import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest

from imgcls import disk
from imgcls.disk import (
    datasets_root,
    file_digest,
    open_text,
    read_text,
    replace_file,
    replace_files,
    write_folder,
    write_once,
    write_text,
)
from imgcls.errors import UserError, UserFileNotFoundError


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order: ``fsync`` of a file or folder, ``replace``."""
    log = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor):
        log.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def logged_replace(source, target):
        log.append(("replace", os.path.basename(source), os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    return log


def write_new(path, data=b"new", advice="mend it"):
    with replace_file(path, advice) as file:
        file.write(data)


@pytest.mark.parametrize("write", [write_new, disk.write_file, lambda path, data: write_text(path, data.decode())])
def test_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path, calls, write):
    (tmp_path / "a.pth").write_bytes(b"old")
    write(str(tmp_path / "a.pth"), b"new")
    (_, temporary), *rest = calls
    assert rest == [("replace", temporary, "a.pth"), ("fsync", tmp_path.name)]
    assert temporary.startswith(f".a.pth.{os.getpid()}-")
    assert (tmp_path / "a.pth").read_bytes() == b"new" and os.listdir(tmp_path) == ["a.pth"]


def test_a_new_file_is_written_in_another_folder_first(tmp_path, calls):
    (tmp_path / "unfinished").mkdir()
    with disk.new_file(str(tmp_path / "a"), str(tmp_path / "unfinished")) as file:
        file.write(b"abc")
        assert len(os.listdir(tmp_path / "unfinished")) == 1 and not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"abc" and os.listdir(tmp_path / "unfinished") == []
    assert calls[-1] == ("fsync", tmp_path.name)


def test_a_name_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_new("a.pth")
    write_text("b.txt", "new")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.txt").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), UserError, r"a\.pth: cannot be written \(No space.*mend"),
        (OSError("odd"), UserError, r"\(odd\); mend"),
        (RuntimeError("a bug of ours"), RuntimeError, "a bug of ours"),
        (UserFileNotFoundError("no source"), UserFileNotFoundError, "^no source$"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, raised, expected, message):
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")
    with pytest.raises(expected, match=message) as caught, replace_file(path, "mend it") as file:
        file.write(b"half")
        raise raised
    assert caught.type is expected
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_folders_is_accepted(tmp_path, monkeypatch, number, fails):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    if fails:
        with pytest.raises(UserError, match="Input/output error"):
            write_new(tmp_path / "a.pth")
    else:
        write_new(tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == b"new"


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path):
    with subprocess.Popen(["true"]) as process:
        dead = process.pid
    gone = [f".{name}-0123abcd.tmp" for name in (f"model_9.pth.{dead}", f"a.json.{dead}", f"b.pth.{os.getpid()}")]
    stays = [
        f".backbone.pth.{os.getppid()}-0123abcd.tmp",  # this process is alive and may still be writing
        f"notes.txt.{dead}.tmp",
        f".notes.txt.{dead}.tmp",
        f"model_0000009.pth.{dead}-0123abcd.tmp",
        "model_0000009.pth",
    ]
    for name in gone + stays:
        (tmp_path / name).write_bytes(b"x")
    disk.remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(stays)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data sets é"))
    return tmp_path / "data sets é"


def test_root_is_read_at_call_time(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert datasets_root() == tmp_path
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert str(datasets_root()) == "datasets"


def test_read_text_accepts_a_byte_order_mark_and_refuses_other_encodings(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text(str(tmp_path / "a")) == "café"
    (tmp_path / "b").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(UserError, match=r"b: not UTF-8 text \(byte 3\)"):
        read_text(str(tmp_path / "b"))
    with pytest.raises(UserFileNotFoundError, match="nothing: no such file"):
        read_text(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="cannot be read"):
        read_text(str(tmp_path))


def test_open_text_counts_bytes_from_the_beginning_of_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + "é".encode() * 50_000 + b"\xff" + b"x" * 50_000)
    with pytest.raises(UserError, match=r"a: not UTF-8 text \(byte 100003\)"), open_text(str(tmp_path / "a")) as file:
        while file.read(1000):
            pass
    with pytest.raises(UserFileNotFoundError, match="nothing: no such file"), open_text(str(tmp_path / "nothing")):
        pass


def test_write_text_replaces_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "new" / "a.json", "1\n")
    write_text(tmp_path / "new" / "a.json", "2\n")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"2\n"
    assert os.listdir(tmp_path / "new") == ["a.json"]


def test_write_text_keeps_the_bytes_of_an_undecodable_file_name(tmp_path):
    write_text(tmp_path / "a.csv", "é,\udcff\r\n")
    assert (tmp_path / "a.csv").read_bytes() == b"\xc3\xa9,\xff\r\n"


def test_write_text_says_what_to_do_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*name a folder that you can write"):
        write_text(tmp_path / "file" / "a.json", "1")


def test_a_failed_write_text_leaves_nothing(tmp_path):
    (tmp_path / "a.json" / "in the way").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a\.json: cannot be written"):
        write_text(tmp_path / "a.json", "1")
    assert os.listdir(tmp_path) == ["a.json"]


def test_write_once_writes_once(root):
    calls = []

    def write(folder):
        calls.append(folder)
        (folder / "a").write_text("1")

    assert write_once("set", write) == write_once("set", write) == root / "imgcls" / "set"
    assert len(calls) == 1
    assert (root / "imgcls" / "set" / "a").read_text() == "1"
    assert os.listdir(root / "imgcls") == ["set"]


def test_two_writers_at_the_same_time_both_succeed(root):
    together = threading.Barrier(2)
    results = []

    def write(folder):
        together.wait(timeout=10)  # each is in the middle of its own write
        (folder / "a").write_text("1")

    threads = [threading.Thread(target=lambda: results.append(write_once("set", write))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [root / "imgcls" / "set"] * 2
    assert os.listdir(root / "imgcls") == ["set"]
    assert os.listdir(root / "imgcls" / "set") == ["a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_write_leaves_no_folder_of_that_name(root):
    def die(folder):
        (folder / "half").write_text("")
        os._exit(9)

    child = os.fork()
    if child == 0:
        write_once("set", die)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (root / "imgcls" / "set").exists()
    write_once("set", lambda folder: (folder / "whole").write_text(""))
    assert os.listdir(root / "imgcls" / "set") == ["whole"]


def test_a_failed_write_is_removed_and_keeps_its_message(root):
    def fail(folder):
        (folder / "half").write_text("")
        raise UserFileNotFoundError("no source")

    with pytest.raises(UserFileNotFoundError, match=r"^no source$"):
        write_once("set", fail)
    assert os.listdir(root / "imgcls") == []


def test_write_once_names_the_variable_where_it_cannot_write(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written .*set DETECTRON2_DATASETS"):
        write_once("set", lambda folder: None)


def test_a_failed_rename_of_a_folder_is_an_error(tmp_path, monkeypatch):
    """An empty folder on another disk: the rename fails, and no other process has written it."""

    def fail(self, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "rename", fail)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out: cannot be written \(.*\); name another"):
        write_folder(tmp_path / "out", lambda folder: (folder / "a").write_text(""), "name another")
    assert os.listdir(tmp_path) == ["out"]


def test_a_filled_folder_is_replaced_once_the_new_one_is_complete(tmp_path):
    target = tmp_path / "out"

    def write(folder):
        assert not target.exists() or os.listdir(target) == ["1"]
        (folder / str(len(os.listdir(tmp_path)))).write_text("")

    for number in "12":
        write_folder(target, write, "", replace=True)
        assert (os.listdir(tmp_path), os.listdir(target)) == (["out"], [number])

    def fail(folder):
        raise UserError("no source")

    with pytest.raises(UserError, match="no source"):
        write_folder(target, fail, "", replace=True)
    assert (os.listdir(tmp_path), os.listdir(target)) == (["out"], ["2"])


def test_a_folder_is_flushed_before_its_rename(tmp_path, monkeypatch, calls):
    rename = os.rename
    monkeypatch.setattr(os, "sync", lambda: calls.append("sync"))
    monkeypatch.setattr(os, "rename", lambda source, target: (calls.append("rename"), rename(source, target)))
    write_folder(tmp_path / "out", lambda folder: (folder / "a").write_text(""))
    assert calls == ["sync", "rename", ("fsync", tmp_path.name)]


def test_several_files_are_replaced_together_or_not_at_all(tmp_path):
    (tmp_path / "a.xml").write_text("old")
    with replace_files(tmp_path / "a.xml") as path:
        assert path.name == "a.xml" and path.parent.parent == tmp_path
        path.write_text("new")
        path.with_suffix(".bin").write_text("weights")
        assert (tmp_path / "a.xml").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.xml"] and (tmp_path / "a.xml").read_text() == "new"
    with pytest.raises(KeyError), replace_files(tmp_path / "a.xml") as path:
        path.write_text("broken")
        raise KeyError
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.xml"] and (tmp_path / "a.xml").read_text() == "new"
    with pytest.raises(
        UserError, match=r"nowhere/a\.xml: cannot be written \(No such file or directory\); name a folder"
    ):
        replace_files(tmp_path / "nowhere" / "a.xml").__enter__()


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(str(tmp_path / "x")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
