"""What a dataset is, what a reader hands on, and the check of records that somebody else wrote."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import join
from typing import Any, NoReturn

from imgcls.errors import UserError


class StoredRecords(Sequence[dict]):
    """Records that are not kept as dicts but made when they are asked for: sets of millions of pictures.

    Their image ids are unique and their labels were checked when they were stored.
    """

    @abstractmethod
    def label_counts(self) -> Counter[int]:
        """How many pictures each label has."""

    @abstractmethod
    def relabelled(self, mapping: Sequence[int | None]) -> "StoredRecords":
        """The same pictures, with ``mapping[label]`` for every label; None is for labels that none has."""


@dataclass(frozen=True)
class Dataset:
    """A named set of pictures under the classes of a training.

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
class Listing:
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


def check_records(
    records: Any, source: str, folder: str | None = None, classes: Sequence[str] | None = None
) -> Listing:
    """Checks records from a JSON file or a user's function and completes them in place.

    Args:
        records: should be a list of dicts.
        source: begins every message.
        folder: what ``file_name`` is relative to; None leaves ``file_name`` as it is.
        classes: the class names, where the source gives them apart from the records; ``"class"`` is not
            looked at then.

    Raises:
        UserError: names the first record (counted from 1) that cannot be used, and why.
    """
    if not isinstance(records, list):
        raise UserError(f"{source}: expected a list of records, got {_show(records)}")
    if not records:
        raise UserError(f"{source}: has no records")
    multi_label = isinstance(records[0], dict) and "labels" in records[0]
    key, other = ("labels", "label") if multi_label else ("label", "labels")
    names = _Names(source)
    largest = -1
    for number, record in enumerate(records, 1):
        if type(record) is not dict or key not in record or other in record:
            _refuse(source, number, record, key, other)
        file_name = record.get("file_name")
        if type(file_name) is not str or not file_name:
            _refuse(source, number, record, key, other)
        value = record[key]
        if multi_label and type(value) is not list:
            raise UserError(f'{source}: record {number}: "labels" must be a list of class indices, got {_show(value)}')
        for label in value if multi_label else (value,):
            if type(label) is not int or label < 0:
                raise UserError(f"{source}: record {number}: a label must be an int from 0 on, got {_show(label)}")
            if label > largest:
                largest = label
        if multi_label and len(set(value)) != len(value):
            raise UserError(f'{source}: record {number}: "labels" names a class twice: {value}')
        if classes is None:
            names.add(number, value, record.get("class"))
        image_id = record.setdefault("image_id", file_name)
        if type(image_id) is not int and type(image_id) is not str:
            raise UserError(f'{source}: record {number}: "image_id" must be an int or a string, got {_show(image_id)}')
        if folder is not None:
            record["file_name"] = join(folder, file_name)
    if classes is None:
        return Listing(records, names.classes(largest), bool(names.by_label), multi_label, source)
    if largest >= len(classes):
        raise UserError(
            f"{source}: has the label {largest}, but only {len(classes)} class names: 0 to {len(classes) - 1}"
        )
    return Listing(records, list(classes), True, multi_label, source)


def label_counts(records: Sequence[dict]) -> Counter[int]:
    """How many pictures each label has."""
    if isinstance(records, StoredRecords):
        return records.label_counts()
    return Counter(label for record in records for label in labels_of(record))


def labels_of(record: dict) -> Sequence[int]:
    """The labels of a record of either kind."""
    return record["labels"] if "labels" in record else (record["label"],)


class _Names:
    """Collects label <-> name pairs and refuses the second meaning of either."""

    def __init__(self, source: str):
        self.source = source
        self.by_label: dict[int, str] = {}
        self.by_name: dict[str, int] = {}
        self.without: dict[int, int] = {}  # label -> the first record that gives it no name

    def add(self, number: int, value: int | list[int], given: Any) -> None:
        if given is None:
            for label in value if type(value) is list else (value,):
                self.without.setdefault(label, number)
        elif type(value) is not list:
            self._pair(number, value, given)
        elif type(given) is not list or len(given) != len(value):
            raise UserError(
                f'{self.source}: record {number}: "class" must be a list of names, one for each of "labels" '
                f"{value}, got {_show(given)}"
            )
        else:
            for label, name in zip(value, given, strict=True):
                self._pair(number, label, name)

    def _pair(self, number: int, label: int, name: Any) -> None:
        if type(name) is not str:
            raise UserError(f'{self.source}: record {number}: "class" must be a name, got {_show(name)}')
        known = self.by_label.setdefault(label, name)
        if known != name:
            raise UserError(f"{self.source}: record {number}: label {label} is {name!r} here and {known!r} before")
        index = self.by_name.setdefault(name, label)
        if index != label:
            raise UserError(f"{self.source}: record {number}: {name!r} is label {label} here and {index} before")

    def classes(self, largest: int) -> list[str]:
        if not self.by_label:
            return [str(i) for i in range(largest + 1)]
        for label, number in self.without.items():
            if label not in self.by_label:
                raise UserError(
                    f'{self.source}: record {number}: label {label} has no "class" name, other labels have one; '
                    "name all of them or none"
                )
        # A label that no record has still needs a name, and str(i) may be taken: class names can be digits.
        return [self.by_label.get(i, f"unused {i}") for i in range(largest + 1)]


def _refuse(source: str, number: int, record: Any, key: str, other: str) -> NoReturn:
    where = f"{source}: record {number}"
    if type(record) is not dict:
        raise UserError(f"{where}: expected an object with file_name and label or labels, got {_show(record)}")
    if key in record and other in record:
        raise UserError(f'{where}: has both "label" and "labels"; keep one')
    if type(record.get("file_name")) is not str or not record["file_name"]:
        raise UserError(f'{where}: needs a "file_name", got {_show(record.get("file_name"))}')
    if other in record:
        raise UserError(f'{where}: has "{other}", but the records before it have "{key}"; use one kind in one set')
    raise UserError(f'{where}: has neither "label" nor "labels"; its keys: {", ".join(map(str, record))}')


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
