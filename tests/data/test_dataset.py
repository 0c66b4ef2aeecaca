import copy
import pickle

import pytest

from imgcls.data.dataset import Dataset, RawDataset, SerializedRecords, check_labels, label_counts, to_dataset
from imgcls.errors import UserError


def raw(labels, classes, named=True):
    multi_label = isinstance(labels[0], list)
    key = "labels" if multi_label else "label"
    records = [{"file_name": f"{i}.png", "image_id": i, key: copy.copy(label)} for i, label in enumerate(labels)]
    return RawDataset(records, classes, named, multi_label, "somewhere")


def labels(dataset):
    return [record["labels" if dataset.multi_label else "label"] for record in dataset.records]


def test_a_training_set_keeps_its_own_classes():
    dataset = to_dataset("train", raw([1, 0], ["b", "a"]))
    assert dataset.classes == ["b", "a"]
    assert labels(dataset) == [1, 0]
    assert (dataset.name, dataset.source, dataset.multi_label) == ("train", "somewhere", False)


def test_a_missing_class_shifts_no_label():
    dataset = to_dataset("test", raw([0, 1], ["a", "c"]), ["a", "b", "c"])
    assert labels(dataset) == [0, 2]
    assert dataset.classes == ["a", "b", "c"]


def test_several_labels_are_mapped_by_name():
    assert labels(to_dataset("test", raw([[0, 1], [], [1]], ["a", "b"]), ["b", "a"])) == [[1, 0], [], [0]]


def test_without_names_labels_stay_indices():
    assert labels(to_dataset("test", raw([2, 0], ["0", "1", "2"], named=False), ["x", "y", "z"])) == [2, 0]


def test_a_class_that_is_not_a_training_class_is_named():
    with pytest.raises(
        UserError, match=r"test: has the class zebra, which the training set lacks; its 2 classes: a, b"
    ):
        to_dataset("test", raw([0, 1], ["a", "zebra"]), ["a", "b"])
    with pytest.raises(
        UserError, match=r"test: has the label 2, which the training set lacks; its 2 classes are 0 to 1"
    ):
        to_dataset("test", raw([0, 2], ["0", "1", "2"], named=False), ["a", "b"])


def test_an_unknown_class_without_images_is_allowed():
    assert labels(to_dataset("test", raw([1], ["zebra", "a"]), ["a", "b"])) == [0]


def test_duplicate_image_ids_are_named():
    source = raw([0, 0, 0], ["a"])
    source.records[2]["image_id"] = 1
    with pytest.raises(UserError, match="train: records 2 and 3 have the same image_id 1"):
        to_dataset("train", source)


def test_class_names_must_exist_and_be_unique():
    with pytest.raises(UserError, match="two classes have the name 'a'"):
        to_dataset("train", raw([0], ["a", "b", "a"]))
    with pytest.raises(UserError, match="no image has a label"):
        to_dataset("train", raw([[], []], []))


def test_valid_labels_pass():
    check_labels(to_dataset("s", raw([0, 1], ["a", "b"])), 2, multi_label=False)
    check_labels(to_dataset("s", raw([[], [1]], ["a", "b"])), 2, multi_label=True)


def test_the_kind_of_label_must_fit_the_head():
    single = to_dataset("s", raw([0], ["a"]))
    several = to_dataset("s", raw([[0]], ["a"]))
    message = (
        's: has "label", but MODEL.CLSNET.HEAD is "sigmoid", which needs "labels"; set MODEL.CLSNET.HEAD "softmax"'
    )
    with pytest.raises(UserError, match=message):
        check_labels(single, 1, multi_label=True)
    message = (
        's: has "labels", but MODEL.CLSNET.HEAD is "softmax", which needs "label"; set MODEL.CLSNET.HEAD "sigmoid"'
    )
    with pytest.raises(UserError, match=message):
        check_labels(several, 1, multi_label=False)


def test_the_number_of_classes_must_fit():
    message = r"NUM_CLASSES is 1000, but s has 2 classes \(a, b\); set it to 2, or to -1"
    with pytest.raises(UserError, match=message):
        check_labels(to_dataset("s", raw([0], ["a", "b"])), 1000, multi_label=False)


@pytest.mark.parametrize(("label", "multi_label"), [(2, False), (-1, False), ([0, 2], True), ([-1], True)])
def test_a_label_out_of_range_is_named(label, multi_label):
    source = raw([[0] if multi_label else 0, label], ["a", "b"])
    dataset = Dataset("s", source.records, ["a", "b"], multi_label, "")
    with pytest.raises(UserError, match=r"s: record 2 \(1\.png\): the label -?\d is out of range; .* 0 to 1"):
        check_labels(dataset, 2, multi_label)


@pytest.mark.parametrize("values", [[2, 0, 0], [[0, 2], [], [2]]])
def test_serialized_records_equal_the_list(values):
    plain = raw(values, ["a", "b", "c"]).records
    records = SerializedRecords(plain)
    assert list(records) == plain and len(records) == 3
    assert records[-1] == plain[-1] and records[::2] == plain[::2]
    with pytest.raises(IndexError):
        records[3]
    assert label_counts(records) == label_counts(plain)
    assert list(pickle.loads(pickle.dumps(records))) == plain
    changed = records.relabelled([1, None, 0])
    expected = [0, 1, 1] if values[0] == 2 else [[1, 0], [], [0]]
    assert [record.get("labels", record.get("label")) for record in changed] == expected
    assert list(records) == plain
