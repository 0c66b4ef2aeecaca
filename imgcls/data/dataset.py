"""What a dataset is, and what a reader returns."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.data import DatasetFromList
from numpy.typing import NDArray

from imgcls.errors import UserError


class StoredRecords(Sequence[dict]):
    """Records that are built on access instead of being kept as dicts, for sets of millions of images.

    Image ids are unique and labels valid: both were checked when the records were stored.

    Attributes:
        shard_sizes: for records that are read shard by shard, the samples of each shard in the order of the records.
    """

    shard_sizes: NDArray[np.int64] | None = None

    def __getitem__(self, index: int | slice) -> Any:
        """The record at ``index``, a new dict each time; a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._record(range(len(self))[index])

    @abstractmethod
    def _record(self, index: int) -> dict[str, Any]:
        """The record at ``index``, which is in range."""

    @abstractmethod
    def label_counts(self) -> Counter[int]:
        """How many images have each label."""

    @abstractmethod
    def relabelled(self, mapping: Sequence[int | None]) -> "StoredRecords":
        """The same images, where each label becomes ``mapping[label]``; None is allowed for unused labels."""


class SerializedRecords(StoredRecords):
    """A list of picklable records in one array, which forked loader workers share instead of copying it."""

    def __init__(self, records: Sequence[dict]):
        self._counts = label_counts(records)
        self._records = DatasetFromList(records, copy=False)

    def __len__(self) -> int:
        return len(self._records)

    def _record(self, index: int) -> dict[str, Any]:
        return self._records[index]

    def label_counts(self) -> Counter[int]:
        """How many images have each label."""
        return self._counts.copy()

    def relabelled(self, mapping: Sequence[int | None]) -> "SerializedRecords":
        """A copy with new labels."""
        return SerializedRecords(_relabel(list(self), mapping))


class SubsetRecords(StoredRecords):
    """Some of the stored records.

    Args:
        records: all of them.
        indices: of the chosen ones, ascending.
    """

    def __init__(self, records: StoredRecords, indices: Sequence[int]):
        self.records = records
        self.indices = np.asarray(indices, np.int64)
        if records.shard_sizes is not None:
            ends = np.cumsum(records.shard_sizes)
            shards = np.searchsorted(ends, self.indices, side="right")
            self.shard_sizes = np.bincount(shards, minlength=len(ends)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def _record(self, index: int) -> dict[str, Any]:
        record: dict[str, Any] = self.records[int(self.indices[index])]
        return record

    def label_counts(self) -> Counter[int]:
        """How many images have each label."""
        return Counter(label for record in self for label in labels_of(record))

    def relabelled(self, mapping: Sequence[int | None]) -> "SubsetRecords":
        """The same images with new labels."""
        return SubsetRecords(self.records.relabelled(mapping), self.indices.tolist())


@dataclass(frozen=True)
class Dataset:
    """A named set of images, labelled with the training classes.

    Attributes:
        name: as in ``DATASETS.TRAIN`` or ``DATASETS.TEST``.
        records: a list or ``StoredRecords``; each record has ``"file_name"``, ``"image_id"``, and ``"label"``, or
            ``"labels"`` in a multi-label set.
        classes: the names of the training classes; index = label.
        multi_label: whether the records have ``"labels"``.
        source: the file or folder that the records were read from.
        logged: messages about unreadable images that have been logged. All sets of a run share it, and loaders add to
            it, so that each message is logged once per run.
    """

    name: str
    records: Sequence[dict]
    classes: list[str]
    multi_label: bool
    source: str
    logged: set[str] = field(default_factory=set, repr=False, compare=False)


@dataclass(frozen=True)
class Datasets:
    """The sets of ``DATASETS.TRAIN``, at least one, and of ``DATASETS.TEST``."""

    train: tuple[Dataset, ...]
    test: tuple[Dataset, ...]

    @property
    def classes(self) -> list[str]:
        """The class names of the first training set; index = label."""
        return self.train[0].classes

    @property
    def num_train_images(self) -> int:
        """The number of images in all training sets."""
        return sum(len(dataset.records) for dataset in self.train)

    def test_set(self, name: str) -> Dataset:
        """The test set of this name; a ``UserError`` if there is none."""
        for dataset in self.test:
            if dataset.name == name:
                return dataset
        known = ", ".join(dataset.name for dataset in self.test) or "empty"
        raise UserError(f"{name}: is not one of the test sets; DATASETS.TEST is {known}")


@dataclass(frozen=True)
class RawDataset:
    """What a reader returns: labels are indices into its own ``classes``.

    Attributes:
        records: a list that the caller may change, or ``StoredRecords``.
        classes: in the order of the source.
        named: whether the source has class names; otherwise ``classes`` are the indices as text.
        multi_label: whether the records have ``"labels"``.
        source: the file or folder that was read.
    """

    records: Sequence[dict]
    classes: list[str]
    named: bool
    multi_label: bool
    source: str


def label_counts(records: Sequence[dict]) -> Counter[int]:
    """How many images have each label."""
    if isinstance(records, StoredRecords):
        return records.label_counts()
    return Counter(label for record in records for label in labels_of(record))


def labels_of(record: dict) -> Sequence[int]:
    """The labels of a single-label or multi-label record."""
    return record["labels"] if "labels" in record else (record["label"],)


def to_dataset(name: str, raw: RawDataset, classes: Sequence[str] | None = None) -> Dataset:
    """Names a raw dataset and maps its labels to the training classes, in place if its records are a list.

    Args:
        name: of the dataset; starts every error message.
        raw: what a reader returned.
        classes: the names of the training classes; None for a training set, which keeps its own.

    Raises:
        UserError: two images have the same id, there is no class, two classes have the same name, or an image has
            a class that is not a training class.
    """
    records = raw.records
    if not isinstance(records, StoredRecords):
        check_unique_ids(name, ((number, record["image_id"]) for number, record in enumerate(records, 1)))
    if classes is None:
        classes = raw.classes
        if not classes:
            raise UserError(f"{name}: no image has a label, so there is no class to train on")
        twice = [c for c, count in Counter(classes).items() if count > 1]
        if twice:
            raise UserError(f"{name}: two classes have the name {twice[0]!r}; class names must be unique")
    elif raw.named:
        records = _map_by_name(name, raw, classes)
    elif len(raw.classes) > len(classes):
        raise UserError(
            f"{name}: has the label {len(raw.classes) - 1}, which the training set lacks; its {len(classes)} classes "
            f"are 0 to {len(classes) - 1}: {_some(classes)}"
        )
    return Dataset(name, records, list(classes), raw.multi_label, raw.source)


def check_labels(dataset: Dataset, num_classes: int, multi_label: bool) -> None:
    """Checks that a dataset fits a model with ``num_classes`` and, if ``multi_label``, a sigmoid head.

    Raises:
        UserError: the head needs another kind of label, the number of classes differs, or a label is out of range.
    """
    if dataset.multi_label != multi_label:
        found, needed, other = ("labels", "label", "sigmoid") if dataset.multi_label else ("label", "labels", "softmax")
        head = "sigmoid" if multi_label else "softmax"
        raise UserError(
            f'{dataset.name}: has "{found}", but MODEL.CLSNET.HEAD is "{head}", which needs "{needed}"; '
            f'set MODEL.CLSNET.HEAD "{other}", or name a set with "{needed}"'
        )
    if len(dataset.classes) != num_classes:
        raise UserError(
            f"MODEL.CLSNET.NUM_CLASSES is {num_classes}, but {dataset.name} has {len(dataset.classes)} classes "
            f"({_some(dataset.classes)}); set it to {len(dataset.classes)}, or to -1 to take it from the data"
        )
    if all(0 <= label < num_classes for label in label_counts(dataset.records)):
        return
    for number, record in enumerate(dataset.records, 1):
        for label in labels_of(record):
            if not 0 <= label < num_classes:
                raise UserError(
                    f"{dataset.name}: record {number} ({record['file_name']}): the label {label} is out of range; "
                    f"{num_classes} classes have the labels 0 to {num_classes - 1}"
                )


def _map_by_name(name: str, raw: RawDataset, classes: Sequence[str]) -> Sequence[dict]:
    records = raw.records
    if raw.classes == list(classes):
        return records
    index = {c: i for i, c in enumerate(classes)}
    mapping = [index.get(c) for c in raw.classes]
    missing = [raw.classes[i] for i in sorted(label_counts(records)) if mapping[i] is None]
    if missing:
        raise UserError(
            f"{name}: has {'the class' if len(missing) == 1 else 'classes'} {_some(missing)}, which the training set "
            f"lacks; its {len(classes)} classes: {_some(classes)}; remove the images or train with them"
        )
    if isinstance(records, StoredRecords):
        return records.relabelled(mapping)
    return _relabel(records, mapping)


def _relabel(records: Sequence[dict], mapping: Sequence[int | None]) -> Sequence[dict]:
    """Changes the labels of a list of records in place."""
    for record in records:
        if "labels" in record:
            record["labels"] = [mapping[label] for label in record["labels"]]
        else:
            record["label"] = mapping[record["label"]]
    return records


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def check_unique_ids(source: str, numbered: Iterable[tuple[int, int | str]]) -> None:
    """Checks that image ids are unique, from pairs of record number (counted from 1) and image id.

    Raises:
        UserError: names the first two records with the same id.
    """
    first: dict[int | str, int] = {}
    for number, image_id in numbered:
        before = first.setdefault(image_id, number)
        if before != number:
            raise UserError(
                f"{source}: records {before} and {number} have the same image_id {image_id!r}; "
                "each image of a set needs an id of its own"
            )
