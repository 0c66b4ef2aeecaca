"""The check of records that somebody else wrote: in a JSON file, or by a user's function."""

from collections.abc import Sequence
from typing import Any, NoReturn

from imgcls.data.dataset import RawDataset
from imgcls.errors import UserError


def check_records(records: Any, source: str, classes: Sequence[str] | None = None) -> RawDataset:
    """Checks records that somebody else made and completes them in place.

    Args:
        records: should be a list of dicts.
        source: begins every message.
        classes: the class names, where the source gives them apart from the records; ``"class"`` is not
            looked at then.

    Raises:
        UserError: names the first record (counted from 1) that cannot be used, and why.
    """
    if not isinstance(records, list):
        raise UserError(f"{source}: expected a list of records, got {_show(records)}")
    check = RecordCheck(source, classes)
    for record in records:
        check(record)
    return check.raw_dataset(records)


class RecordCheck:
    """Checks record after record; at the end it knows their classes.

    Args:
        source, classes: as of `check_records`.
    """

    def __init__(self, source: str, classes: Sequence[str] | None = None):
        self.source = source
        self.given = classes
        self.names = _Names(source)
        self.number = 0
        self.largest = -1
        self.multi_label = False
        self.keys = ("label", "labels")

    def __call__(self, record: Any) -> None:
        """Checks the next record and gives it an ``"image_id"`` where it has none.

        Raises:
            UserError: names the record (counted from 1) and says why it cannot be used.
        """
        source = self.source
        self.number = number = self.number + 1
        if number == 1 and isinstance(record, dict) and "labels" in record:
            self.multi_label, self.keys = True, ("labels", "label")
        key, other = self.keys
        if type(record) is not dict or key not in record or other in record:
            _refuse(source, number, record, key, other)
        file_name = record.get("file_name")
        if type(file_name) is not str or not file_name:
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

    def raw_dataset(self, records: Sequence[dict]) -> RawDataset:
        """What was checked, as a reader hands it on.

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
