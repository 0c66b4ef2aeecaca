import json
import logging
import multiprocessing
import os
from pathlib import Path

import pytest

from imgcls.data.catalog import get_dataset
from imgcls.data.dataset import RawDataset
from imgcls.data.readers import json_file, table_index
from imgcls.data.readers.json_file import index_json, read_json
from imgcls.data.readers.table_index import index_path, read_cache, read_index, write_index
from imgcls.errors import UserError, UserFileNotFoundError

SINGLE = [
    {"file_name": "é/1.png", "image_id": 1, "label": 1, "class": "dög"},
    {"file_name": "é/2.png", "label": 0, "class": "cat", "height": 4},
]
MULTI_LABEL = [{"file_name": "1.png", "labels": [2, 0]}, {"file_name": "2.png", "labels": []}]


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


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def messages(caplog):
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "imgcls.data.readers.table_index"]


@pytest.mark.parametrize(
    "records", [SINGLE, MULTI_LABEL, [{"file_name": "a", "labels": []}], [{"file_name": "a", "label": 0}]]
)
def test_the_index_equals_the_json(path, records):
    write(path, records)
    plain = read_json(str(path))
    file = index_json(str(path))
    assert file == path.parent / "train.index" == index_path(str(path))
    raw = read_index(str(path))
    assert list(raw.records) == list(plain.records)
    for key in ("classes", "named", "multi_label", "source"):
        assert getattr(raw, key) == getattr(plain, key)


def test_the_index_is_read_instead_of_the_json(path, caplog):
    index_json(str(path))
    path.write_bytes(b" " * path.stat().st_size)
    make_older(path)
    with caplog.at_level(logging.INFO):
        dataset = get_dataset(f"json:{path}", ["cat", "dög", "emu"])
    assert [record["label"] for record in dataset.records] == [1, 0]
    assert messages(caplog) == [("INFO", f"{path}: 2 records from the index {path.parent / 'train.index'}")]


def test_the_index_can_be_moved_with_its_json(path, tmp_path):
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
def test_an_outdated_index_is_not_used(path, caplog, difference):
    index_json(str(path))
    size = path.stat().st_size
    write(path, SINGLE[:1])
    if difference == "time":
        path.write_text(path.read_text().ljust(size))
        make_older(path.parent / "train.index")
    else:
        make_older(path)
    assert len(read_json(str(path)).records) == 1
    [(level, message)] = messages(caplog)
    assert level == "WARNING"
    assert message == (
        f"{path.parent / 'train.index'}: not up to date with its JSON and not used; "
        f"create it again: python tools/make_imagenet_json.py --index '{path}'"
    )


def test_a_new_index_replaces_an_old_one(path):
    index_json(str(path))
    write(path, MULTI_LABEL)
    index_json(str(path))
    assert read_index(str(path)).multi_label
    assert sorted(os.listdir(path.parent)) == ["train.index", "train.json"]


def test_no_index(path, caplog):
    assert read_index(str(path)) is None and not caplog.records
    index_json(str(path))
    path.unlink()
    with pytest.raises(UserFileNotFoundError, match=r"train\.json: no such file"):
        read_json(str(path))


def test_the_index_folder_of_an_older_version(path, caplog):
    (path.parent / "train.index").mkdir()
    assert len(read_json(str(path)).records) == 2
    [(level, message)] = messages(caplog)
    assert level == "WARNING" and "train.index: from an older version and not used; delete it and create it" in message
    with pytest.raises(UserError, match=r"train\.index: cannot be written"):
        index_json(str(path))
    assert sorted(os.listdir(path.parent)) == ["train.index", "train.json"]


@pytest.mark.parametrize("damage", [flip, lambda file: os.truncate(file, 130), lambda file: file.write_bytes(b"")])
def test_a_damaged_index(path, damage):
    file = index_json(str(path))
    damage(file)
    make_older(path)
    with pytest.raises(UserError, match=r"train\.index: unusable \(.*\); delete it, or create it again") as caught:
        read_json(str(path))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(f"python tools/make_imagenet_json.py --index '{path}'")
    index_json(str(path))
    assert len(read_index(str(path)).records) == 2


def test_a_file_without_the_usual_ending(path):
    other = path.with_name("train.v2")
    path.rename(other)
    assert index_json(str(other)).name == "train.v2.index"
    assert len(read_json(str(other)).records) == 2


def test_only_tables_have_an_index(path):
    with pytest.raises(TypeError, match="only a RecordTable can be stored, not list"):
        write_index(str(path), RawDataset([], [], False, False, ""), os.stat(path))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder; files of any size are cached."""
    monkeypatch.setattr(table_index, "_MIN_CACHED_BYTES", 1)
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "json"


@pytest.fixture
def readings(monkeypatch):
    """The paths of the JSON files that were parsed."""
    paths = []
    build = json_file.build_table

    def counted(batches, source):
        paths.append(source)
        return build(batches, source)

    monkeypatch.setattr(json_file, "build_table", counted)
    return paths


@pytest.mark.parametrize("records", [SINGLE, MULTI_LABEL])
def test_the_second_reading_comes_from_the_cache(path, cache, readings, records):
    write(path, records)
    first, second = read_json(str(path)), read_json(str(path))
    assert readings == [str(path)] and len(os.listdir(cache)) == 1
    assert list(second.records) == list(first.records)
    for key in ("classes", "named", "multi_label", "source"):
        assert getattr(second, key) == getattr(first, key)


def test_a_link_and_a_relative_path_use_the_same_cache(path, cache, readings, monkeypatch, tmp_path):
    read_json(str(path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link.json").symlink_to(path)
    monkeypatch.chdir(tmp_path / "other")
    assert read_json("link.json").records[0]["file_name"] == "é/1.png"
    assert len(readings) == 1


@pytest.mark.parametrize("change", ["size", "time", "version", "path"])
def test_an_outdated_cache_is_replaced(path, cache, readings, monkeypatch, change):
    read_json(str(path))
    if change == "size":
        state = os.stat(path)
        write(path, MULTI_LABEL)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        path.write_text(json.dumps(SINGLE[::-1]))
        make_older(path)
    elif change == "version":
        monkeypatch.setattr(table_index, "_VERSION", 99)
    else:
        other = path.with_name("other.json")
        path.rename(other)
        os.rename(cache / os.listdir(cache)[0], table_index._cache_path(str(other), os.stat(other)))
        path = other
    expected = [os.path.join(path.parent, record["file_name"]) for record in json.loads(path.read_text())]
    for _ in range(2):
        assert [record["file_name"] for record in read_json(str(path)).records] == expected
    assert len(readings) == 2 and len(os.listdir(cache)) == 1


@pytest.mark.parametrize("damage", [flip, lambda file: os.truncate(file, 20), lambda file: file.write_bytes(b"[]")])
def test_a_damaged_cache_is_silently_replaced(path, cache, readings, caplog, damage):
    read_json(str(path))
    damage(cache / os.listdir(cache)[0])
    for _ in range(2):
        assert len(read_json(str(path)).records) == 2
    assert len(readings) == 2 and not caplog.records


@pytest.mark.parametrize("obstacle", ["file", "permission"])
def test_an_unwritable_cache_is_no_error(path, cache, caplog, obstacle, monkeypatch):
    cache.parent.mkdir()
    if obstacle == "file":
        cache.write_text("")
    else:

        def refuse(*_):
            raise UserError("no permission")

        monkeypatch.setattr(table_index, "replace_file", refuse)
    with caplog.at_level(logging.INFO):
        assert len(read_json(str(path)).records) == 2
    [(level, message)] = messages(caplog)
    assert level == "INFO" and message.startswith(f"{path}: not cached for the next reading (")


def test_small_files_and_an_empty_variable_are_not_cached(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    read_json(str(path))
    monkeypatch.setattr(table_index, "_MIN_CACHED_BYTES", 1)
    monkeypatch.setenv("IMGCLS_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    read_json(str(path))
    assert os.listdir(tmp_path) == ["my data"]


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_the_usual_cache_folders(path, tmp_path, monkeypatch, variable):
    monkeypatch.setattr(table_index, "_MIN_CACHED_BYTES", 1)
    monkeypatch.delenv("IMGCLS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "x"))
    read_json(str(path))
    folder = tmp_path / "x" / ("" if variable == "XDG_CACHE_HOME" else ".cache") / "imgcls" / "json"
    assert len(os.listdir(folder)) == 1


def test_a_file_that_changes_during_the_reading_is_not_cached(path, cache, monkeypatch):
    build = json_file.build_table

    def build_and_change(*args):
        raw = build(*args)
        write(path, MULTI_LABEL)
        return raw

    monkeypatch.setattr(json_file, "build_table", build_and_change)
    assert len(read_json(str(path)).records) == 2 and not cache.exists()


def test_the_index_is_preferred_to_the_cache(path, cache, caplog):
    read_json(str(path))
    index_json(str(path))
    with caplog.at_level(logging.INFO):
        read_json(str(path))
    assert "from the index" in caplog.text and "from the cache" not in caplog.text


def _read_often(path, barrier):
    barrier.wait()
    for _ in range(20):
        Path(table_index._cache_path(path, os.stat(path))).unlink(missing_ok=True)
        if len(read_json(path).records) != 2:
            os._exit(1)


def test_processes_that_write_the_cache_at_the_same_time(path, cache):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_read_often, args=(str(path), barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    read_json(str(path))
    assert read_cache(str(path)) is not None and len(os.listdir(cache)) == 1
