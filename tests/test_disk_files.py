import errno
import os
import threading
from pathlib import Path

import pytest

from imgcls.disk import datasets_root, open_text, read_text, write_folder, write_once, write_text
from imgcls.errors import UserError, UserFileNotFoundError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data sets é"))
    return tmp_path / "data sets é"


def test_root_is_read_at_call_time(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert datasets_root() == tmp_path
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert str(datasets_root()) == "datasets"


def test_read_text_takes_a_byte_order_mark_and_refuses_what_is_no_text(tmp_path):
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


def test_two_writers_at_once_both_end_well(root):
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
def test_a_killed_write_leaves_nothing_that_looks_complete(root):
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


def test_a_failed_write_is_cleared_away_and_keeps_its_message(root):
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


def test_a_folder_that_did_not_take_its_name_is_no_success(tmp_path, monkeypatch):
    """An empty folder on another disk: the rename fails, and nobody else has written it either."""

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
