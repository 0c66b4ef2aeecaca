import logging
import os
import random

import pytest
import torch

from imgcls.checkpoint import find_newest, read_tag
from imgcls.checkpoint.run import find_damage, find_whole, list_numbered, remove_old


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


def spoil(path):
    """Zeros in the middle of the first tensor, as a power failure can leave them."""
    data = bytearray(path.read_bytes())
    start = data.index(torch.load(path)["model"]["a"].numpy().tobytes())
    data[start + 100 : start + 200] = bytes(100)
    path.write_bytes(data)


def test_numbered_newest_first(folder):
    names = [os.path.basename(path) for path in list_numbered(str(folder))]
    assert names == ["model_0000029.pth", "model_0000019.pth", "model_0000009.pth"]
    assert [p[-6:] for p in list_numbered(str(folder), below="model_0000019.pth")] == ["09.pth"]
    assert list_numbered(str(folder / "gone")) == []


def test_by_number_and_not_by_name(tmp_path):
    for name in ("model_9999999.pth", "model_10000000.pth"):
        (tmp_path / name).touch()
    assert [os.path.basename(path) for path in list_numbered(str(tmp_path))] == [
        "model_10000000.pth",
        "model_9999999.pth",
    ]


def test_the_tagged_one_is_the_newest_and_nothing_is_logged(folder, caplog):
    assert find_newest(str(folder)) == str(folder / "model_0000029.pth")
    (folder / "last_checkpoint").write_text("model_0000019.pth\n")
    assert read_tag(str(folder)) == find_newest(str(folder)) == str(folder / "model_0000019.pth")
    assert caplog.records == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_one_is_named_and_the_one_before_it_used(folder, caplog, share):
    truncate(folder / "model_0000029.pth", share)
    assert find_newest(str(folder)) == str(folder / "model_0000019.pth")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "model_0000029.pth is truncated or not a checkpoint" in record.getMessage()
    assert "model_0000019.pth" in record.getMessage()


def test_a_hole_in_a_file_of_full_length_is_seen(folder, caplog):
    """torch reads it without a word, and the run would go on from other weights."""
    spoil(folder / "model_0000029.pth")
    assert (torch.load(folder / "model_0000029.pth")["model"]["a"] == 0).any()
    assert find_newest(str(folder)) == str(folder / "model_0000019.pth")
    assert "model_0000029.pth is damaged (wrong checksum" in caplog.text


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_anywhere_are_damage_and_never_a_traceback(folder, seed):
    path = folder / "model_0000029.pth"
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    start = rng.randrange(len(data) - 1500, len(data) - 8)  # the fields of the zip format
    data[start : start + 8] = rng.randbytes(8)
    path.write_bytes(data)
    damage = find_damage(str(path))
    if damage:
        assert damage.startswith(str(path))
    else:  # fields that nobody reads
        assert torch.equal(torch.load(path)["model"]["a"], torch.full((2000,), 29.0))


def test_damage_after_damage(folder, caplog):
    truncate(folder / "model_0000029.pth", 0.5)
    spoil(folder / "model_0000019.pth")
    assert find_newest(str(folder)) == str(folder / "model_0000009.pth")
    assert len(caplog.records) == 1
    assert "model_0000029.pth is truncated" in caplog.text and "model_0000019.pth is damaged" in caplog.text


def test_an_older_run_of_higher_numbers_is_not_taken_for_newer(folder):
    (folder / "last_checkpoint").write_text("model_0000019.pth")
    truncate(folder / "model_0000019.pth", 0.5)
    assert find_newest(str(folder)) == str(folder / "model_0000009.pth")


def test_a_damaged_final_one_gives_the_newest_number(folder):
    (folder / "last_checkpoint").write_text("model_final.pth")
    assert find_newest(str(folder)) == str(folder / "model_0000029.pth")
    assert find_whole(str(folder / "model_best.pth")) == str(folder / "model_0000029.pth")


def test_none_can_be_read(folder):
    for number in (9, 19, 29):
        truncate(folder / f"model_{number:07d}.pth", 0.5)
    with pytest.raises(ValueError, match="no checkpoint can be read") as raised:
        find_newest(str(folder))
    assert all(f"model_{number:07d}.pth is truncated" in str(raised.value) for number in (9, 19, 29))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tag", [None, "", "\n"])
def test_killed_before_the_first_tag_was_written(folder, caplog, tag):
    (folder / "last_checkpoint").unlink()
    if tag is not None:
        (folder / "last_checkpoint").write_text(tag)
    assert read_tag(str(folder)) == ""
    assert find_newest(str(folder)) == str(folder / "model_0000029.pth")
    assert "last_checkpoint names no checkpoint; going on from" in caplog.text


def test_nothing_at_all(tmp_path):
    assert find_newest(str(tmp_path)) == "" and find_newest(str(tmp_path / "gone")) == ""


def test_a_tag_of_a_file_that_is_not_there(folder):
    (folder / "model_0000029.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"last_checkpoint names .*model_0000029\.pth, which is not there"):
        find_newest(str(folder))


def test_the_format_of_old_torch_can_be_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": {"a": torch.zeros(2000)}}, path, _use_new_zipfile_serialization=False)
    assert find_damage(str(path)) == ""
    truncate(path, 0.9)
    assert "is truncated" in find_damage(str(path))


def left(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.parametrize(("keep", "expected"), [(1, [29]), (2, [19, 29]), (3, [9, 19, 29]), (9, [9, 19, 29])])
def test_the_newest_few_stay(folder, keep, expected):
    remove_old(str(folder / "model_0000029.pth"), keep)
    numbered = [f"model_{number:07d}.pth" for number in expected]
    assert left(folder) == [*numbered, "model_best.pth", "model_final.pth", "model_x.pth"]


def test_the_tagged_one_and_those_of_a_longer_run_before_stay(folder):
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    remove_old(str(folder / "model_0000019.pth"), 1)
    assert left(folder)[:3] == ["model_0000009.pth", "model_0000019.pth", "model_0000029.pth"]


def test_best_and_final_remove_nothing(folder):
    before = left(folder)
    for name in ("model_best.pth", "model_final.pth"):
        remove_old(str(folder / name), 1)
    assert left(folder) == before


def test_one_that_cannot_be_removed_is_a_warning(folder, monkeypatch, caplog):
    monkeypatch.setattr(os, "unlink", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    remove_old(str(folder / "model_0000029.pth"), 1)
    assert "model_0000009.pth: an old checkpoint that cannot be removed (Permission denied)" in caplog.text
