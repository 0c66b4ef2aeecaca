import os
import pickle

import pytest
import torch

from imgcls.checkpoint import read_checkpoint, write_checkpoint


class Evil:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (open, (self.mark, "w"))


class Settings:
    """An object such as old projects save in their checkpoints."""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"model": t},
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {"model_state": t, "epoch": 3},
    ],
)
def test_reads_the_layouts_of_other_projects(tmp_path, wrap):
    tensors = {"a": torch.arange(3.0)}
    torch.save(wrap(tensors), tmp_path / "a.pth")
    checkpoint = read_checkpoint(str(tmp_path / "a.pth"))
    assert torch.equal(checkpoint["model"]["a"], tensors["a"])
    assert checkpoint.get("epoch", 3) == 3


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pth: no such checkpoint"):
        read_checkpoint(str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
def test_a_pickle_is_refused_and_its_code_does_not_run(tmp_path, name):
    path, mark = tmp_path / name, tmp_path / "ran"
    content = {"model": {"a": torch.zeros(1)}, "extra": Evil(mark)}
    torch.save(content, path) if name.endswith("pth") else path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"can run code.*--allow-pickle") as raised:
        read_checkpoint(str(path))
    assert not mark.exists() and "\n" not in str(raised.value)


def test_the_flag_reads_objects_and_arrays(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "args": Settings()}, tmp_path / "old.pth")
    assert torch.equal(read_checkpoint(str(tmp_path / "old.pth"), allow_pickle=True)["model"]["a"], torch.ones(2))
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": {"a": torch.ones(2).numpy()}, "__author__": "someone"}))
    assert torch.equal(read_checkpoint(str(tmp_path / "zoo.pkl"), allow_pickle=True)["model"]["a"], torch.ones(2))


@pytest.mark.parametrize("content", [{"model": {"a": 3}}, {"a": torch.ones(1), "b": "text"}, {"model": [1]}])
def test_other_content_than_a_dict_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth.*not a dict of tensors"):
        read_checkpoint(str(tmp_path / "odd.pth"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    write_checkpoint(str(path), {"model": {"a": torch.zeros(1)}})
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match=r"a\.pth: cannot be written \(No space left on device\)"):
        write_checkpoint(str(path), {"model": {"a": torch.ones(1)}})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="cannot be written"):
        write_checkpoint(str(tmp_path / "gone" / "a.pth"), {"model": {}})


def test_the_advice_of_the_caller_ends_the_message(tmp_path):
    with pytest.raises(ValueError, match=r"\(No such file or directory\); make the folder$"):
        write_checkpoint(str(tmp_path / "gone" / "a.pth"), {"model": {}}, advice="make the folder")


@pytest.mark.parametrize("new_format", [True, False])
def test_mapped_tensors_have_the_same_values(tmp_path, new_format):
    path = str(tmp_path / "a.pth")
    content = {"model": {"a": torch.arange(5000.0)}, "optimizer": {"state": {0: torch.ones(3)}}, "iteration": 7}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    mapped = read_checkpoint(path, mapped=True)
    assert mapped["iteration"] == 7 and torch.equal(mapped["model"]["a"], content["model"]["a"])
    assert torch.equal(mapped["optimizer"]["state"][0], torch.ones(3))


def test_an_unreadable_checkpoint_is_not_written(tmp_path):
    path = tmp_path / "a.pth"
    write_checkpoint(str(path), {"model": {"a": torch.zeros(1)}})
    before = path.read_bytes()
    for content in ({"model": {"a": torch.ones(1)}, "args": Settings()}, {"model": [1]}):
        with pytest.raises(TypeError, match=r"a\.pth could not be read again: "):
            write_checkpoint(str(path), content)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
