"""Checks records that were not made by this package: from a JSON file, or from a function that the user registered."""

from collections.abc import Sequence
from typing import Any, NoReturn

from imgcls.data.dataset import RawDataset
from imgcls.errors import UserError


def check_records(records: object, source: str, classes: Sequence[str] | None = None) -> RawDataset:
    """Checks a list of records and adds missing image ids in place.

    Args:
        records: should be a list of dicts.
        source: the file or dataset name that starts every error message.
        classes: the class names, if they are known independently of the records; ``"class"`` is then ignored.

    Raises:
        UserError: names the first invalid record (counted from 1) and the reason.
    """
    if not isinstance(records, list):
        raise UserError(f"{source}: expected a list of records, got {_show(records)}")
    check = RecordCheck(source, classes)
    check.add(records)
    return check.raw_dataset(records)


class RecordCheck:
    """Checks records batch by batch and collects their classes; the arguments are those of `check_records`."""

    def __init__(self, source: str, classes: Sequence[str] | None = None):
        self.source = source
        self.given = classes
        self.names = _Names(source)
        self.number = 0
        self.largest = -1
        self.multi_label = False

    def add(self, records: list[Any]) -> None:
        """Checks the next records and adds an ``"image_id"`` to those without one.

        Raises:
            UserError: names the first invalid record (counted from 1) and the reason.
        """
        if not self._add_uniform(records):
            for record in records:
                self._add_one(record)

    def raw_dataset(self, records: Sequence[dict]) -> RawDataset:
        """The checked records with their classes.

        Raises:
            UserError: there was no record, or a label has no class name.
        """
        if not self.number:
            raise UserError(f"{self.source}: has no records")
        if self.given is None:
            names = self.names
            return RawDataset(records, names.classes(self.largest), bool(names.by_label), self.multi_label, self.source)
        if self.largest >= len(self.given):
            raise UserError(
                f"{self.source}: has the label {self.largest}, but only {len(self.given)} class names: "
                f"0 to {len(self.given) - 1}"
            )
        return RawDataset(records, list(self.given), True, self.multi_label, self.source)

    def _add_uniform(self, records: list[Any]) -> bool:
        """Checks valid single-label records several times faster than `_add_one`.

        Returns:
            False, with the state unchanged, if `_add_one` has to look at each record.
        """
        if self.multi_label or not records or set(map(type, records)) != {dict}:
            return False
        file_names = [record.get("file_name") for record in records]
        labels = [record.get("label") for record in records]
        if set(map(type, file_names)) != {str} or set(map(type, labels)) != {int} or min(labels) < 0:
            return False
        if not all(file_names) or any("labels" in record for record in records):
            return False
        image_ids = [record.setdefault("image_id", name) for record, name in zip(records, file_names, strict=True)]
        if not set(map(type, image_ids)) <= {int, str}:
            return False
        names = [record.get("class") for record in records]
        if self.given is None and not self.names.add_uniform(self.number + 1, labels, names):
            return False
        self.number += len(records)
        self.largest = max(self.largest, *labels)
        return True

    def _add_one(self, record: Any) -> None:
        source = self.source
        self.number = number = self.number + 1
        if number == 1 and isinstance(record, dict) and "labels" in record:
            self.multi_label = True
        key, other = ("labels", "label") if self.multi_label else ("label", "labels")
        file_name = record.get("file_name") if type(record) is dict else None
        if type(file_name) is not str or not file_name or key not in record or other in record:
            _refuse(source, number, record, key, other)
        value = record[key]
        if self.multi_label and type(value) is not list:
            raise UserError(f'{source}: record {number}: "labels" must be a list of class indices, got {_show(value)}')
        for label in value if self.multi_label else (value,):
            if type(label) is not int or label < 0:
                raise UserError(f"{source}: record {number}: a label must be an int from 0 on, got {_show(label)}")
            if label > self.largest:
                self.largest = label
        if self.multi_label and len(set(value)) != len(value):
            raise UserError(f'{source}: record {number}: "labels" names a class twice: {value}')
        if self.given is None:
            self.names.add(number, value, record.get("class"))
        image_id = record.setdefault("image_id", file_name)
        if type(image_id) is not int and type(image_id) is not str:
            raise UserError(f'{source}: record {number}: "image_id" must be an int or a string, got {_show(image_id)}')


class _Names:
    """Collects pairs of label and class name; checks that each label has one name, and each name one label."""

    def __init__(self, source: str):
        self.source = source
        self.by_label: dict[int, str] = {}
        self.by_name: dict[str, int] = {}
        self.unnamed: dict[int, int] = {}  # label -> the first record that has it without a name

    def add(self, number: int, value: int | list[int], given: Any) -> None:
        if given is None:
            for label in value if isinstance(value, list) else (value,):
                self.unnamed.setdefault(label, number)
        elif not isinstance(value, list):
            self._pair(number, value, given)
        elif type(given) is not list or len(given) != len(value):
            raise UserError(
                f'{self.source}: record {number}: "class" must be a list of names, one for each of "labels" '
                f"{value}, got {_show(given)}"
            )
        else:
            for label, name in zip(value, given, strict=True):
                self._pair(number, label, name)

    def add_uniform(self, number: int, labels: list[int], given: list[Any]) -> bool:
        """Adds single-label records, of which ``number`` is the first; returns False if `add` must look at each.

        That is so if only some have a ``"class"``, or the names disagree with each other or with earlier ones.
        """
        kinds = set(map(type, given))
        if kinds == {type(None)}:
            for label in set(labels) - self.unnamed.keys():
                self.unnamed[label] = number + labels.index(label)
            return True
        if kinds != {str}:
            return False
        pairs = set(zip(labels, given, strict=True))
        by_label, by_name = dict(pairs), {name: label for label, name in pairs}
        if not len(pairs) == len(by_label) == len(by_name):
            return False
        for label, name in pairs:
            if self.by_label.get(label, name) != name or self.by_name.get(name, label) != label:
                return False
        self.by_label.update(by_label)
        self.by_name.update(by_name)
        return True

    def classes(self, largest: int) -> list[str]:
        if not self.by_label:
            return [str(i) for i in range(largest + 1)]
        for label, number in self.unnamed.items():
            if label not in self.by_label:
                raise UserError(
                    f'{self.source}: record {number}: label {label} has no "class" name, other labels have one; '
                    "name all of them or none"
                )
        # A label without records needs a name too; str(i) may already be the name of another class.
        return [self.by_label.get(i, f"unused {i}") for i in range(largest + 1)]

    def _pair(self, number: int, label: int, name: Any) -> None:
        if type(name) is not str:
            raise UserError(f'{self.source}: record {number}: "class" must be a name, got {_show(name)}')
        known = self.by_label.setdefault(label, name)
        if known != name:
            raise UserError(f"{self.source}: record {number}: label {label} is {name!r} here and {known!r} before")
        index = self.by_name.setdefault(name, label)
        if index != label:
            raise UserError(f"{self.source}: record {number}: {name!r} is label {label} here and {index} before")


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


def _show(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
