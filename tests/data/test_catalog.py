import json
import os
import uuid
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from imgcls.data import build_test_loader, build_train_loader
from imgcls.data.catalog import BUILTIN, get_dataset, read_datasets, register_builtin
from imgcls.errors import UserError


def make_folder(root, *classes):
    for name in classes:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(b"")
    return f"folder:{root}"


@pytest.fixture
def register():
    """Registers records under a new name, as a user would."""
    names = []

    def put(records, prefix="mine_", **metadata):
        names.append(f"{prefix}{uuid.uuid4().hex}")
        DatasetCatalog.register(names[-1], lambda: records)
        MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-1]

    yield put
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_all_sets_have_the_classes_of_the_first_training_set(tmp_path):
    train = make_folder(tmp_path / "train", "a", "b", "c")
    test = make_folder(tmp_path / "test", "a", "c")
    (tmp_path / "more.csv").write_text("file_name,label\nx.png,c\ny.png,b\n")
    more = f"csv:{tmp_path / 'more.csv'}"
    datasets = read_datasets([train, more], [test])
    assert [dataset.name for dataset in datasets.train] == [train, more]
    assert [dataset.classes for dataset in (*datasets.train, *datasets.test)] == [["a", "b", "c"]] * 3
    assert datasets.classes == ["a", "b", "c"] and datasets.num_train_images == 5
    assert [r["label"] for r in datasets.train[1].records] == [2, 1]
    assert [r["label"] for r in datasets.test_set(test).records] == [0, 2]
    with pytest.raises(UserError, match=f"^other: is not one of the test sets; DATASETS.TEST is {test}$"):
        datasets.test_set("other")


def test_a_registered_name_may_contain_a_colon(register):
    """Only the prefixes of the readers mean a path."""
    name = register([{"file_name": "a.png", "label": 0}], prefix="mine:", classes=["a"])
    assert get_dataset(name).classes == ["a"] and len(get_dataset(name).records) == 1
    with pytest.raises(UserError, match="unknown dataset 'folder'"):
        get_dataset("folder")


def test_each_set_of_a_run_is_scanned_once(tiny_cfg, monkeypatch):
    """Building the datasets, the training loader and the test loaders of two evaluations reads every folder once."""
    train, test = tiny_cfg.DATASETS.TRAIN[0], tiny_cfg.DATASETS.TEST[0]
    scanned = Counter()
    scandir = os.scandir

    def count(path):
        scanned[os.path.relpath(path, os.path.dirname(train.removeprefix("folder:")))] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", count)
    datasets = read_datasets([train], [test, train, test])
    assert datasets.test[1] is datasets.train[0] and datasets.test[2] is datasets.test[0]
    build_train_loader(tiny_cfg, datasets.train)
    for _ in range(2):
        for name in (test, train):
            list(build_test_loader(tiny_cfg, datasets.test_set(name)))
    folders = [name + rest for name in ("train", "test") for rest in ("", "/blue", "/green", "/red")]
    assert scanned == dict.fromkeys(folders, 1)


def test_catalogs_are_told_and_not_asked(tiny_cfg, monkeypatch):
    train, test = tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST
    datasets = read_datasets(train, test)
    assert [MetadataCatalog.get(name).classes for name in (*train, *test)] == [datasets.classes] * 2
    for name in (*train, *test):
        MetadataCatalog.remove(name)
        DatasetCatalog.remove(name)
    next(iter(build_train_loader(tiny_cfg, datasets.train)))
    assert len(list(build_test_loader(tiny_cfg, datasets.test[0]))) == 2
    assert not {*train, *test} & {*MetadataCatalog.list(), *DatasetCatalog.list()}


def test_class_names_in_a_json_take_precedence_over_indices(tmp_path):
    train = make_folder(tmp_path / "train", "cat", "dog")
    records = [{"file_name": "1.png", "label": 0, "class": "dog"}, {"file_name": "2.png", "label": 1, "class": "cat"}]
    (tmp_path / "test.json").write_text(json.dumps(records))
    [test] = read_datasets([train], [f"json:{tmp_path / 'test.json'}"]).test
    assert [r["label"] for r in test.records] == [1, 0]


def test_a_class_that_is_not_a_training_class(tmp_path):
    train = make_folder(tmp_path / "train", "a", "b")
    test = make_folder(tmp_path / "test", "a", "zebra")
    with pytest.raises(UserError, match="test: has the class zebra, which the training set lacks"):
        read_datasets([train], [test])
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN names no set"):
        read_datasets([], [test])


def test_catalogs_have_the_classes_of_the_last_reading(tmp_path):
    name = make_folder(tmp_path / "test", "a", "b")
    get_dataset(name, ["a", "b"])
    MetadataCatalog.get(name).note = "set by the user"
    get_dataset(name, ["b", "c", "a"])
    metadata = MetadataCatalog.get(name)
    assert metadata.classes == ["b", "c", "a"]
    assert (metadata.evaluator_type, metadata.source) == ("imagenet", str(tmp_path / "test"))
    assert metadata.note == "set by the user"
    assert [record["label"] for record in DatasetCatalog.get(name)] == [2, 0]


def test_a_multi_label_set_has_its_own_evaluator_type(tmp_path):
    (tmp_path / "a.csv").write_text("file_name,labels\nx.png,c;b\n")
    get_dataset(f"csv:{tmp_path / 'a.csv'}")
    assert MetadataCatalog.get(f"csv:{tmp_path / 'a.csv'}").evaluator_type == "multilabel"


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_folder(tmp_path / "images", "a")
    assert get_dataset("folder:~/images").classes == ["a"]


def test_a_registered_set_with_names(register):
    records = [{"file_name": "1.png", "label": 0}, {"file_name": "2.png", "label": 1}]
    name = register(records, classes=["dog", "cat"])
    assert get_dataset(name).classes == ["dog", "cat"]
    for _ in range(2):  # the second time, `classes` is the value that we set
        mapped = get_dataset(name, ["cat", "cow", "dog"])
        assert [r["label"] for r in mapped.records] == [2, 0]
        assert MetadataCatalog.get(name).classes == ["cat", "cow", "dog"]
    assert records == [{"file_name": "1.png", "label": 0}, {"file_name": "2.png", "label": 1}]
    assert DatasetCatalog.get(name) is records


def test_a_registered_set_without_names(register):
    name = register([{"file_name": "1.png", "label": 2}])
    assert get_dataset(name).classes == ["0", "1", "2"]
    assert [r["label"] for r in get_dataset(name, ["x", "y", "z"]).records] == [2]
    assert get_dataset(name).classes == ["0", "1", "2"]


def test_bad_records_of_a_registered_set(register):
    with pytest.raises(UserError, match="has the label 2, but only 2 class names"):
        get_dataset(register([{"file_name": "1.png", "label": 2}], classes=["a", "b"]))
    with pytest.raises(UserError, match=r"record 1: a label must be an int from 0 on, got .*\(int64\)"):
        get_dataset(register([{"file_name": "1.png", "label": np.int64(2)}]))
    with pytest.raises(UserError, match="expected a list of records, got None"):
        get_dataset(register(None))


def test_an_unknown_name_lists_the_known_ones(register):
    mine = register([])
    with pytest.raises(UserError) as caught:
        get_dataset("digits_trian")
    message = str(caught.value)
    assert "unknown dataset 'digits_trian': did you mean digits_train?" in message
    for allowed in ("folder:PATH", "json:PATH", "csv:PATH", "coco:ANNOTATIONS.json:IMAGE_ROOT", *BUILTIN, mine):
        assert allowed in message
    assert "coco_2017" not in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["folder:", "json:", "csv:", "coco:"])
def test_a_prefix_without_a_path(name):
    with pytest.raises(UserError, match=f"{name}: the path is missing"):
        get_dataset(name)


def test_registering_reads_nothing(monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", {k: v for k, v in DatasetCatalog.data.items() if k not in BUILTIN})

    def fail():
        raise OSError("read at registration")

    for name in BUILTIN:
        monkeypatch.setitem(BUILTIN, name, fail)
    register_builtin()
    assert set(BUILTIN) <= set(DatasetCatalog.list())
    with pytest.raises(OSError, match="read at registration"):
        DatasetCatalog.get("imagenet_train")


def test_a_registered_set_with_one_of_our_names_is_kept(monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", {"imagenet_val": lambda: [{"file_name": "theirs.png", "label": 0}]})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    register_builtin()
    assert get_dataset("imagenet_val").records[0]["file_name"] == "theirs.png"
