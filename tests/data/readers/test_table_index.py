import json
import logging
import os
import shutil

import numpy as np
import pytest

from imgcls.data.catalog import get_dataset
from imgcls.data.dataset import RawDataset
from imgcls.data.readers.json_file import index_json, read_json
from imgcls.data.readers.table_index import index_folder, read_index, write_index
from imgcls.errors import UserError, UserFileNotFoundError

SINGLE = [
    {"file_name": "é/1.png", "image_id": 1, "label": 1, "class": "dög"},
    {"file_name": "é/2.png", "label": 0, "class": "cat", "height": 4},
]
SEVERAL = [{"file_name": "1.png", "labels": [2, 0]}, {"file_name": "2.png", "labels": []}]


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    return write(folder / "train.json", SINGLE)


def write(path, records):
    path.write_text(json.dumps(records))
    return path


def make_older(path):
    os.utime(path, ns=(0, 0))


def messages(caplog):
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "imgcls.data.readers.table_index"]


@pytest.mark.parametrize(
    "records", [SINGLE, SEVERAL, [{"file_name": "a", "labels": []}], [{"file_name": "a", "label": 0}]]
)
def test_the_index_holds_what_the_json_holds(path, records):
    write(path, records)
    plain = read_json(str(path))
    folder = index_json(str(path))
    assert folder == path.parent / "train.index" == index_folder(str(path))
    raw = read_index(str(path))
    assert list(raw.records) == list(plain.records)
    for key in ("classes", "named", "multi_label", "source"):
        assert getattr(raw, key) == getattr(plain, key)


def test_it_is_used_in_place_of_the_json(path, caplog):
    index_json(str(path))
    stat = os.stat(path)
    path.write_bytes(b" " * stat.st_size)  # same size, and made to look as old as before
    make_older(path)
    with caplog.at_level(logging.INFO):
        dataset = get_dataset(f"json:{path}", ["cat", "dög", "emu"])
    assert [record["label"] for record in dataset.records] == [1, 0]
    assert messages(caplog) == [("INFO", f"{path}: 2 records from the index {path.parent / 'train.index'}")]


def test_nothing_of_it_is_copied_into_memory(path):
    index_json(str(path))
    for column in read_index(str(path)).records.columns.values():
        assert not column.flags.owndata and not column.flags.writeable
        assert isinstance(column.base, np.memmap)


def test_it_moves_with_its_json(path, tmp_path):
    index_json(str(path))
    moved = tmp_path / "moved"
    path.parent.rename(moved)
    raw = read_index(str(moved / "train.json"))
    assert [record["file_name"] for record in raw.records] == [f"{moved}/é/1.png", f"{moved}/é/2.png"]
    assert raw.source == str(moved / "train.json")


def test_a_bare_file_name(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    index_json("train.json")
    assert read_json("train.json").records[0]["file_name"] == "é/1.png"


@pytest.mark.parametrize("difference", ["time", "size"])
def test_an_older_index_is_not_used_and_the_command_is_named(path, caplog, difference):
    index_json(str(path))
    size = path.stat().st_size
    write(path, SINGLE[:1])
    if difference == "time":
        path.write_text(path.read_text().ljust(size))
        make_older(path.parent / "train.index" / "meta.json")
    else:
        make_older(path)
    assert len(read_json(str(path)).records) == 1
    [(level, message)] = messages(caplog)
    assert level == "WARNING"
    assert message == (
        f"{path.parent / 'train.index'}: older than its JSON and not used; "
        f"make it anew with: python tools/make_imagenet_json.py --index '{path}'"
    )


def test_a_new_index_takes_the_place_of_an_old_one(path):
    index_json(str(path))
    (path.parent / "train.index" / "left over").write_text("")
    write(path, SEVERAL)
    index_json(str(path))
    assert read_index(str(path)).multi_label
    assert sorted(os.listdir(path.parent)) == ["train.index", "train.json"]
    assert "left over" not in os.listdir(path.parent / "train.index")


def test_without_an_index(path, caplog):
    assert read_index(str(path)) is None and not caplog.records
    index_json(str(path))
    path.unlink()
    with pytest.raises(UserFileNotFoundError, match=r"train\.json: no such file"):
        read_json(str(path))


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def edit(key, value):
    def change(folder):
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, key: value}))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "label.npy").unlink(), r"No such file .*label\.npy"),
        (lambda folder: (folder / "meta.json").unlink(), r"No such file .*meta\.json"),
        (lambda folder: (folder / "file.npy").write_bytes(b""), "EOFError"),
        (lambda folder: os.truncate(folder / "file.npy", 130), "mmap length"),
        (lambda folder: (folder / "file.npy").write_bytes(b"text"), "ValueError"),
        (lambda folder: flip(folder / "file.npy"), r"file\.npy is not what was written"),
        (lambda folder: np.save(folder / "id.npy", np.zeros(3)), r"id\.npy is not what was written"),
        (lambda folder: np.save(folder / "id.npy", np.load(folder / "id.npy").view(np.uint8)), r"id\.npy is not what"),
        (lambda folder: np.save(folder / "id.npy", np.array([None])), "Python objects"),
        (lambda folder: (folder / "meta.json").write_text("{"), "JSONDecodeError"),
        (lambda folder: (folder / "meta.json").write_text("[]"), "TypeError"),
        (edit("version", 2), "version 2, but this package reads version 1"),
        (edit("records", 3), r"2 records, but 3 in meta\.json"),
        (edit("checksums", {}), "KeyError: 'flags'"),
    ],
)
def test_a_damaged_index_is_named(path, damage, reason):
    folder = index_json(str(path))
    damage(folder)
    make_older(path)
    with pytest.raises(UserError, match=rf"train\.index: cannot be used \(.*{reason}.*\); delete the folder") as caught:
        read_json(str(path))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(f"python tools/make_imagenet_json.py --index '{path}'")
    shutil.rmtree(folder)
    assert len(read_json(str(path)).records) == 2
    index_json(str(path))
    assert len(read_json(str(path)).records) == 2


def test_it_is_made_anew_over_a_damaged_one(path):
    flip(index_json(str(path)) / "file.npy")
    index_json(str(path))
    assert len(read_index(str(path)).records) == 2


def test_a_file_without_the_usual_ending(path):
    other = path.with_name("train.v2")
    path.rename(other)
    assert index_json(str(other)).name == "train.v2.index"
    assert len(read_json(str(other)).records) == 2


def test_only_tables_have_an_index(path):
    with pytest.raises(TypeError, match="only a RecordTable has an index, not list"):
        write_index(str(path), RawDataset([], [], False, False, ""), 0)


def test_a_folder_that_cannot_be_written(path):
    (path.parent / "train.index").write_text("a file is in the way")
    with pytest.raises(UserError, match=r"train\.index: cannot be written .*lies beside its JSON"):
        index_json(str(path))
    assert sorted(os.listdir(path.parent)) == ["train.index", "train.json"]
