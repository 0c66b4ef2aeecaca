import json
import multiprocessing
import os
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset

from imgcls.data.catalog import get_dataset
from imgcls.data.image import read_bytes
from imgcls.data.shards import pack
from imgcls.data.shards.pack import pack_dataset
from imgcls.data.table_file import read_table
from imgcls.errors import UserError


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_shards_tables_and_index(photographs, tmp_path):
    source, out = photographs(30), tmp_path / "out"
    index = pack_dataset(source, str(out), short_side=20, shard_size=20_000, processes=2)
    numbers = [f"{i:06d}" for i in range(len(index["shards"]))]
    assert len(numbers) > 2
    assert set(files(out)) == {"index.json", *(n + ".tar" for n in numbers), *(n + ".index" for n in numbers)}
    assert json.loads((out / "index.json").read_text()) == json.loads(json.dumps(index))
    assert (index["samples"], index["left_out"], index["label_counts"]) == (30, 0, {0: 15, 1: 15})
    assert index["classes"] == ["cat", "dog"] and index["named"] and not index["multi_label"]
    for shard in index["shards"]:
        assert shard["bytes"] == (out / shard["name"]).stat().st_size
        assert 0.6 < shard["bytes"] / 20_000 < 1.7


def test_the_table_has_the_offsets_of_the_tar_members(photographs, tmp_path):
    pack_dataset(photographs(9), str(tmp_path / "out"))
    table = read_table(tmp_path / "out" / "000000.index").columns
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid) for m in members} == {(0, 0, 0)}
    images = [m for m in members if m.name.endswith(".jpg")]
    assert [(m.offset_data, m.size) for m in images] == list(zip(table["offset"], table["size"], strict=True))
    assert [m.name for m in images] == [f"000000-{i:06d}.jpg" for i in range(9)]


def test_the_webdataset_library_reads_images_and_labels(photographs, tmp_path):
    source = photographs(20)
    pack_dataset(source, str(tmp_path / "out"), short_side=20, shard_size=15_000)
    labels = {record["image_id"]: record["label"] for record in get_dataset(source).records}
    names = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    stream = webdataset.WebDataset(names, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls", "json")
    seen = {}
    for image, label, about in stream:
        assert image.shape == (20, 30, 3) and image.dtype == np.uint8
        seen[about["image_id"]] = label
    assert len(names) > 1 and seen == labels


def test_multi_label_sets(photographs, tmp_path):
    photographs(4)
    folder = tmp_path / "source" / "cat"
    records = [
        {"file_name": "0.jpg", "image_id": 7, "labels": []},
        {"file_name": "2.jpg", "image_id": "7", "labels": [2, 0]},
    ]
    (folder / "a.json").write_text(json.dumps(records))
    index = pack_dataset(f"json:{folder / 'a.json'}", str(tmp_path / "out"))
    assert index["multi_label"] and not index["named"] and index["label_counts"] == {0: 1, 2: 1}
    stream = webdataset.WebDataset(str(tmp_path / "out" / "000000.tar"), shardshuffle=False).decode().to_tuple("json")
    assert sorted((about for (about,) in stream), key=str) == [
        {"image_id": "7", "labels": [2, 0]}, {"image_id": 7, "labels": []}
    ]  # fmt: skip
    packed = get_dataset(f"shards:{tmp_path / 'out'}")
    assert {r["image_id"]: r["labels"] for r in packed.records} == {7: [], "7": [2, 0]}


def test_every_shard_has_all_classes(photographs, tmp_path):
    pack_dataset(photographs(60), str(tmp_path / "out"), shard_size=20_000)
    for table in (tmp_path / "out").glob("*.index"):
        assert set(read_table(table).columns["label"].tolist()) == {0, 1}


def test_packed_data_can_be_packed_again(photographs, tmp_path):
    pack_dataset(photographs(6), str(tmp_path / "out"))
    pack_dataset(f"shards:{tmp_path / 'out'}", str(tmp_path / "small"), short_side=10)
    first, second = (get_dataset(f"shards:{tmp_path / name}").records for name in ("out", "small"))
    assert {r["image_id"]: r["label"] for r in first} == {r["image_id"]: r["label"] for r in second}


def test_the_number_of_processes_changes_nothing(photographs, tmp_path):
    source = photographs(30)
    for processes in (1, 3):
        pack_dataset(source, str(tmp_path / str(processes)), shard_size=15_000, processes=processes)
    assert files(tmp_path / "1") == files(tmp_path / "3")


def test_a_killed_packing_is_resumed_and_gives_the_same_files(photographs, tmp_path):
    arguments = {"short_side": 200, "shard_size": 40_000, "processes": 2}
    source, out = photographs(150, size=(600, 400)), tmp_path / "out"
    packing = multiprocessing.get_context("fork").Process(
        target=pack_dataset, args=(source, str(out)), kwargs=arguments
    )
    packing.start()
    while len(list(out.glob("*.tar"))) < 3:
        assert packing.is_alive()
        time.sleep(0.002)
    workers = Path(f"/proc/{packing.pid}/task/{packing.pid}/children").read_text().split()
    os.kill(packing.pid, signal.SIGKILL)
    packing.join()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    with pytest.raises(UserError, match=r"index\.json: no such file; .* is not a complete output"):
        get_dataset(f"shards:{out}")
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "the workers of a killed packing are still alive"
        time.sleep(0.01)
    pack_dataset(source, str(out), **arguments)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 3 <= len(before) < len(after)
    assert sum(after[name] == written for name, written in before.items()) >= len(before) - 2
    pack_dataset(source, str(tmp_path / "whole"), **arguments)
    assert files(out) == files(tmp_path / "whole")


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_lost_shard_is_written_again(photographs, tmp_path, monkeypatch):
    source, out = photographs(30), tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(pack, "_totals", fail)
        pack_dataset(source, str(out), shard_size=15_000)
    (out / "000001.tar").unlink()
    (out / "000002.index").unlink()
    (out / "000000.tar").write_bytes(b"")
    pack_dataset(source, str(out), shard_size=15_000)
    pack_dataset(source, str(tmp_path / "whole"), shard_size=15_000)
    assert files(out) == files(tmp_path / "whole")


def fail(*_):
    raise RuntimeError


def test_a_complete_or_foreign_folder_is_refused(photographs, tmp_path):
    source, out = photographs(4), tmp_path / "out"
    pack_dataset(source, str(out))
    before = files(out)
    with pytest.raises(UserError, match=r"out: is complete and is not overwritten"):
        pack_dataset(source, str(out))
    assert files(out) == before
    with pytest.raises(UserError, match=r"source: is not empty, and it has no unfinished packing"):
        pack_dataset(source, str(tmp_path / "source"))


def test_resuming_with_other_settings_is_refused(photographs, tmp_path, monkeypatch):
    source, out = photographs(4), tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(pack, "_totals", fail)
        pack_dataset(source, str(out))
    with pytest.raises(UserError, match="was started with quality 90, but now it is quality 80"):
        pack_dataset(source, str(out), quality=80)
    photographs(5)
    with pytest.raises(UserError, match="other images or labels"):
        pack_dataset(source, str(out))


def test_a_second_process_is_refused(photographs, tmp_path):
    source, out = photographs(4), tmp_path / "out"
    with pack._only_writer(str(out)):
        second = multiprocessing.get_context("fork").Process(target=_refused, args=(source, str(out)))
        second.start()
        second.join()
    assert second.exitcode == 0


def _refused(source, out):
    with pytest.raises(UserError, match="another process is packing into it"):
        pack_dataset(source, out)


def test_a_bad_image_stops_packing_and_is_named(photographs, tmp_path):
    source = photographs(30)
    (tmp_path / "source" / "dog" / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"dog/1\.jpg: the file is empty .*--skip-bad-images"):
        pack_dataset(source, str(tmp_path / "out"), shard_size=15_000, processes=2)
    assert not (tmp_path / "out" / "index.json").exists()
    assert list((tmp_path / "out" / ".unfinished").glob("*.tmp")) == []


def test_bad_images_can_be_skipped(photographs, tmp_path, caplog):
    source = photographs(30)
    for name in ("dog/1.jpg", "cat/4.jpg"):
        (tmp_path / "source" / name).write_bytes(b"")
    index = pack_dataset(source, str(tmp_path / "out"), shard_size=15_000, skip_bad_images=True, processes=2)
    assert (index["samples"], index["left_out"], index["label_counts"]) == (28, 2, {0: 14, 1: 14})
    assert sorted(r.getMessage().split("source/")[1][:9] for r in caplog.records) == ["cat/4.jpg", "dog/1.jpg"]
    records = get_dataset(f"shards:{tmp_path / 'out'}").records
    assert len({r["image_id"] for r in records}) == 28 and all(map(read_bytes, records))
    for path in (tmp_path / "source").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 30 sampled images could be read"):
        pack_dataset(source, str(tmp_path / "none"), skip_bad_images=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"short_side": 0}, "--short-side is 0; allowed: 1 to"), ({"quality": 101}, "--quality is 101; allowed: 1 to 100"),
     ({"shard_size": 0}, "--shard-size is 0"), ({"processes": 0}, "-j is 0")],
)  # fmt: skip
def test_values_out_of_range(given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        pack_dataset("folder:nowhere", str(tmp_path / "out"), **given)


def test_a_folder_that_cannot_be_written(photographs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out: cannot be written \(Not a directory\)"):
        pack_dataset(photographs(4), str(tmp_path / "file" / "out"))
