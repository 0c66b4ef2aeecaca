"""Datasets by name: reading them, and registering them with detectron2."""

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog

from imgcls.data.dataset import Dataset, Datasets, RawDataset, SerializedRecords, StoredRecords, to_dataset
from imgcls.data.distributed import read_on_all_ranks
from imgcls.data.readers.coco import read_coco
from imgcls.data.readers.csv_file import read_csv
from imgcls.data.readers.digits import read_digits, read_digits_mosaic
from imgcls.data.readers.fashion_mnist import read_fashion_mnist
from imgcls.data.readers.folder import read_folder
from imgcls.data.readers.imagenet import read_imagenet
from imgcls.data.readers.json_file import read_json
from imgcls.data.readers.record_check import check_records
from imgcls.data.shards.reader import read_shards
from imgcls.data.split import parse_part
from imgcls.errors import UserError

BUILTIN: dict[str, Callable[[], RawDataset]] = {
    **{f"imagenet_{split}": partial(read_imagenet, split) for split in ("train", "val")},
    **{f"digits_{split}": partial(read_digits, split) for split in ("train", "test")},
    **{f"digits_mosaic_{split}": partial(read_digits_mosaic, split) for split in ("train", "test")},
    **{f"fashion_mnist_{split}": partial(read_fashion_mnist, split) for split in ("train", "test")},
}
_FORMS = (
    "folder:PATH", "json:PATH", "csv:PATH", "coco:ANNOTATIONS.json:IMAGE_ROOT", "shards:PATH/{000000..000127}.tar"
)  # fmt: skip
# `publish` sets `classes` to the training classes; a user's own value is kept under this metadata key.
_USER_CLASSES = "registered_classes"


class CatalogReader:
    """The function that we register in ``DatasetCatalog``; any other function there was registered by the user."""

    def __init__(self, name: str, classes: Sequence[str] | None = None):
        self.name = name
        self.classes = classes

    def __call__(self) -> list[dict]:
        """Reads the dataset again and returns its records."""
        return list(get_dataset(self.name, self.classes).records)


def user_function(name: str) -> Callable[[], list[dict]] | None:
    """The function that the user registered under ``name``, or None."""
    function = DatasetCatalog.data.get(name)
    return None if isinstance(function, CatalogReader) else function


def classification_names() -> list[str]:
    """Registered names that may be used for classification; detectron2's own sets have another evaluator type."""
    types = {n: MetadataCatalog.get(n).get("evaluator_type") for n in DatasetCatalog.list() if n in MetadataCatalog}
    return [name for name in DatasetCatalog.list() if types.get(name) in (None, "imagenet", "multilabel")]


def publish(dataset: Dataset) -> None:
    """Writes the classes, evaluator type and source of a dataset into ``MetadataCatalog``.

    ``Metadata`` refuses to change a value, but a set can be read again with other training classes. So the entry is
    replaced by one with all its other values.
    """
    metadata = MetadataCatalog.get(dataset.name).as_dict()
    if user_function(dataset.name) is not None:
        metadata.setdefault(_USER_CLASSES, metadata.get("classes"))
    metadata["classes"] = dataset.classes
    metadata["evaluator_type"] = "multilabel" if dataset.multi_label else "imagenet"
    metadata["source"] = dataset.source
    MetadataCatalog.remove(dataset.name)
    MetadataCatalog.get(dataset.name).set(**metadata)


def register_builtin() -> None:
    """Registers our names in ``DatasetCatalog`` without reading data, except those that the user has registered."""
    for name in BUILTIN:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, CatalogReader(name))


def read_datasets(train: Sequence[str], test: Sequence[str]) -> Datasets:
    """Reads each dataset of a run once; in a distributed run every rank gets the same.

    The names are those of ``DATASETS.TRAIN`` and ``DATASETS.TEST``, as for `get_dataset`. All sets are labelled with
    the classes of the first training set. A dataset of which several parts are named is read once. Records that a
    reader returned as a list are serialised, so that loader workers share them.

    Raises:
        UserError: no training set is named, the ranks see different content, or an error of `get_dataset`.
    """
    if not train:
        raise UserError("DATASETS.TRAIN names no set; name at least one, the classes are taken from the first")
    datasets: dict[str, Dataset] = {}
    wholes: dict[str, RawDataset] = {}
    logged: set[str] = set()
    for name in (*train, *test):
        if name not in datasets:
            classes = datasets[train[0]].classes if datasets else None
            try:
                dataset = read_on_all_ranks(name, partial(_read_serialized, name, classes, wholes))
            except UserError as error:
                key = "DATASETS.TRAIN" if name in train else "DATASETS.TEST"
                raise type(error)(f"{key}: {error}") from error
            datasets[name] = replace(dataset, logged=logged)
            _register(datasets[name], classes)
    return Datasets(tuple(datasets[name] for name in train), tuple(datasets[name] for name in test))


def get_dataset(name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Reads a dataset and registers it in detectron2's catalogs.

    Args:
        name: ``folder:PATH``, ``json:PATH``, ``csv:PATH``, ``coco:ANNOTATIONS.json:IMAGE_ROOT``,
            ``shards:PATH/{000000..000127}.tar`` or a registered name; with ``@0.8`` or ``@-0.2`` at the end, a part of
            it (see `parse_part`).
        classes: None for a training set, which keeps its own classes in their order. For any other set, the training
            classes: its labels are mapped by class name if the source has names; otherwise they are indices.

    Raises:
        UserError: the name is unknown, the source cannot be read, or an image has a class that is not a training class.
    """
    dataset = _read(name, classes)
    _register(dataset, classes)
    return dataset


def read_raw_dataset(name: str, training: bool, wholes: dict[str, RawDataset] | None = None) -> RawDataset:
    """Reads a dataset with its own classes.

    Args:
        name: as for `get_dataset`.
        training: as for `read_folder`.
        wholes: datasets of which a part was read before, by name; if this name is a part of another, it is added.

    Raises:
        UserError: the name is unknown, or the source cannot be read.
    """
    part = parse_part(name) if user_function(name) is None else None
    if part is not None:
        wholes = {} if wholes is None else wholes
        if part.whole not in wholes:
            wholes[part.whole] = read_raw_dataset(part.whole, training)
        return part.take(name, wholes[part.whole])
    prefix, colon, path = name.partition(":")
    readers: dict[str, Callable[[str], RawDataset]] = {
        "folder": partial(read_folder, training=training),
        "json": read_json,
        "csv": read_csv,
        "coco": read_coco,
        "shards": read_shards,
    }
    if colon and prefix in readers:
        if not path:
            raise UserError(f"{name}: the path is missing; expected one of {', '.join(_FORMS)}")
        return readers[prefix](os.path.expanduser(path))
    function = user_function(name)
    if function is not None:
        return _read_user_dataset(name, function)
    if name in BUILTIN:
        return BUILTIN[name]()
    known = classification_names()
    near = difflib.get_close_matches(name, [*known, *_FORMS], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown dataset {name!r}: {hint}allowed are {', '.join(_FORMS)} and {', '.join(sorted(known))}")


def _read(name: str, classes: Sequence[str] | None, wholes: dict[str, RawDataset] | None = None) -> Dataset:
    return to_dataset(name, read_raw_dataset(name, classes is None, wholes), classes)


def _read_serialized(name: str, classes: Sequence[str] | None, wholes: dict[str, RawDataset]) -> Dataset:
    dataset = _read(name, classes, wholes)
    if isinstance(dataset.records, StoredRecords):
        return dataset
    return replace(dataset, records=SerializedRecords(dataset.records))


def _register(dataset: Dataset, classes: Sequence[str] | None) -> None:
    publish(dataset)
    if user_function(dataset.name) is None:
        DatasetCatalog[dataset.name] = CatalogReader(dataset.name, classes)


def _read_user_dataset(name: str, function: Callable[[], list[dict]]) -> RawDataset:
    records = function()
    if isinstance(records, list):  # copies, because ids and labels are changed in place and the user may keep these
        records = [dict(record) if isinstance(record, dict) else record for record in records]
    metadata = MetadataCatalog.get(name)
    return check_records(records, name, classes=metadata.get(_USER_CLASSES, metadata.get("classes")))
