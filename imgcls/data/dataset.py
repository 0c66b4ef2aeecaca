"""What a dataset is, and what a reader hands on."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imgcls.errors import UserError


class StoredRecords(Sequence[dict]):
    """Records that are not kept as dicts but made when they are asked for: sets of millions of images.

    Their image ids are unique and their labels were checked when they were stored.
    """

    @abstractmethod
    def label_counts(self) -> Counter[int]:
        """How many images each label has."""

    @abstractmethod
    def relabelled(self, mapping: Sequence[int | None]) -> "StoredRecords":
        """The same images, with ``mapping[label]`` for every label; None is for labels that none has."""


@dataclass(frozen=True)
class Dataset:
    """A named set of images under the classes of a training.

    Attributes:
        name: as in ``DATASETS.TRAIN`` or ``DATASETS.TEST``.
        records: ``{"file_name", "image_id", "label"}`` each, or ``"labels"`` for a multi-label set; a list or
            ``StoredRecords``.
        classes: the training's class names; index = label.
        multi_label: whether the records have ``"labels"``.
        source: the file or folder that the records were read from.
    """

    name: str
    records: Sequence[dict]
    classes: list[str]
    multi_label: bool
    source: str


@dataclass(frozen=True)
class RawDataset:
    """What a reader hands on: labels are indices into its own ``classes``.

    Attributes:
        records: a list that may be changed by whoever gets it, or ``StoredRecords``.
        classes: in the source's own order.
        named: whether the source knows names, or ``classes`` are just the indices written out.
        multi_label: whether the records have ``"labels"``.
        source: the file or folder that was read.
    """

    records: Sequence[dict]
    classes: list[str]
    named: bool
    multi_label: bool
    source: str


def label_counts(records: Sequence[dict]) -> Counter[int]:
    """How many images each label has."""
    if isinstance(records, StoredRecords):
        return records.label_counts()
    return Counter(label for record in records for label in labels_of(record))


def labels_of(record: dict) -> Sequence[int]:
    """The labels of a record of either kind."""
    return record["labels"] if "labels" in record else (record["label"],)


def to_dataset(name: str, raw: RawDataset, classes: Sequence[str] | None = None) -> Dataset:
    """Gives the raw its name and the training's classes; labels of a list are changed in place.

    Args:
        name: begins every message.
        raw: from a reader.
        classes: the training's classes; None makes the raw's own the training's.

    Raises:
        UserError: an image id comes twice, there is no class, a class name comes twice, or an image has a
            class that the training lacks.
    """
    records = raw.records
    if not isinstance(records, StoredRecords):
        check_unique_ids(name, ((number, record["image_id"]) for number, record in enumerate(records, 1)))
    if classes is None:
        _check_training_classes(name, raw.classes)
        classes = raw.classes
    elif raw.named:
        records = _map_by_name(name, raw, classes)
    else:
        _check_indices(name, raw, classes)
    return Dataset(name, records, list(classes), raw.multi_label, raw.source)


def check_labels(dataset: Dataset, num_classes: int, multi_label: bool) -> None:
    """Checks a set against the model that is to be trained or tested on it.

    Args:
        dataset: a training or test set.
        num_classes: ``MODEL.CLSNET.NUM_CLASSES``.
        multi_label: whether ``MODEL.CLSNET.HEAD`` is "sigmoid".

    Raises:
        UserError: the wrong kind of label for the head, another number of classes, or a label out of range.
    """
    if dataset.multi_label != multi_label:
        came, needed, other = ("labels", "label", "sigmoid") if dataset.multi_label else ("label", "labels", "softmax")
        head = "sigmoid" if multi_label else "softmax"
        raise UserError(
            f'{dataset.name}: has "{came}", but MODEL.CLSNET.HEAD is "{head}", which needs "{needed}"; '
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


def _check_training_classes(name: str, classes: list[str]) -> None:
    if not classes:
        raise UserError(f"{name}: no image has a label, so there is no class to train")
    if len(set(classes)) != len(classes):
        twice = next(c for i, c in enumerate(classes) if c in classes[:i])
        raise UserError(f"{name}: two classes have the name {twice!r}; give each class a name of its own")


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
    for record in records:
        if raw.multi_label:
            record["labels"] = [mapping[label] for label in record["labels"]]
        else:
            record["label"] = mapping[record["label"]]
    return records


def _check_indices(name: str, raw: RawDataset, classes: Sequence[str]) -> None:
    largest = len(raw.classes) - 1
    if largest >= len(classes):
        raise UserError(
            f"{name}: has the label {largest}, which the training set lacks; its {len(classes)} classes are "
            f"0 to {len(classes) - 1}: {_some(classes)}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def check_unique_ids(source: str, numbered: Iterable[tuple[int, int | str]]) -> None:
    """Checks that no image id comes twice.

    Args:
        source: begins the message.
        numbered: record numbers from 1 on, and the ids of these records.

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


@dataclass(frozen=True)
class Datasets:
    train: tuple
    test: tuple

    @property
    def classes(self):
        return self.train[0].classes

    @property
    def num_train_images(self):
        return sum(len(d.records) for d in self.train)
