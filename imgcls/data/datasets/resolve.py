"""From a name in ``DATASETS.TRAIN`` or ``DATASETS.TEST`` to a dataset."""

import difflib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from detectron2.data import DatasetCatalog

from imgcls.data.datasets.builtin import BUILTIN
from imgcls.data.datasets.catalog import CatalogReader, classification_names, publish, user_classes, user_function
from imgcls.data.datasets.classes import to_dataset
from imgcls.data.datasets.coco import read_coco
from imgcls.data.datasets.csv_file import read_csv
from imgcls.data.datasets.folder import read_folder
from imgcls.data.datasets.json_file import read_json
from imgcls.data.datasets.record_check import check_records
from imgcls.data.datasets.records import Dataset, Listing
from imgcls.data.datasets.shards import read_shards
from imgcls.errors import UserError

_FORMS = (
    "folder:PATH", "json:PATH", "csv:PATH", "coco:ANNOTATIONS.json:IMAGE_ROOT", "shards:PATH/{000000..000127}.tar"
)  # fmt: skip


def get_dataset(name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Reads a set and tells detectron2's catalogs about it.

    Args:
        name: ``folder:PATH``, ``json:PATH``, ``csv:PATH``, ``coco:ANNOTATIONS.json:IMAGE_ROOT``,
            ``shards:PATH/{000000..000127}.tar`` or a registered name.
        classes: None for a training set, whose own classes and order are used. For any other set the training's
            classes: labels are mapped by name where the source knows names, and are indices where it does not.

    Raises:
        UserError: no such name, a source that cannot be read, or a class that the training lacks.
    """
    dataset = to_dataset(name, get_listing(name, training=classes is None), classes)
    publish(dataset)
    if user_function(name) is None:
        DatasetCatalog[name] = CatalogReader(get_dataset, name, classes)
    return dataset


def get_listing(name: str, training: bool) -> Listing:
    """Reads a set under its own classes; ``name`` as for `get_dataset`, ``training`` as for `read_folder`.

    Raises:
        UserError: no such name, or a source that cannot be read.
    """
    function = user_function(name)
    prefix, colon, path = name.partition(":")
    readers = _readers(training)
    if colon and prefix in readers:
        if not path:
            raise UserError(f"{name}: the path is missing; expected one of {', '.join(_FORMS)}")
        return readers[prefix](os.path.expanduser(path))
    if function is not None:
        return _read_registered(name, function)
    if name in BUILTIN:
        return BUILTIN[name]()
    _refuse(name)


def get_datasets(train: Sequence[str], test: Sequence[str]) -> tuple[list[Dataset], list[Dataset]]:
    """Reads the sets of a training: the first training set's classes rule, all others must fit.

    Raises:
        UserError: no training set is named, or as `get_dataset`.
    """
    if not train:
        raise UserError("DATASETS.TRAIN names no set; the class list comes from the first one")
    first = get_dataset(train[0])
    rest = [get_dataset(name, first.classes) for name in train[1:]]
    return [first, *rest], [get_dataset(name, first.classes) for name in test]


def register_builtin() -> None:
    """Puts our names into ``DatasetCatalog`` without reading anything; a user's set of the same name stays."""
    for name in BUILTIN:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, CatalogReader(get_dataset, name, None))


def _readers(training: bool) -> dict[str, Callable[[str], Listing]]:
    return {
        "folder": partial(read_folder, training=training),
        "json": read_json,
        "csv": read_csv,
        "coco": read_coco,
        "shards": read_shards,
    }


def _read_registered(name: str, function: Callable[[], list[dict]]) -> Listing:
    records = function()
    if isinstance(records, list):  # they may be kept where they came from, and ours are changed
        records = [dict(record) if isinstance(record, dict) else record for record in records]
    return check_records(records, name, classes=user_classes(name))


def _refuse(name: str) -> NoReturn:
    known = classification_names()
    near = difflib.get_close_matches(name, [*known, *_FORMS], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown dataset {name!r}: {hint}allowed are {', '.join(_FORMS)} and {', '.join(sorted(known))}")
