"""The names that are there without being registered by the user."""

import difflib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from detectron2.data import DatasetCatalog, MetadataCatalog

from imgcls.data.dataset import Dataset, RawDataset, to_dataset
from imgcls.data.readers.coco import read_coco
from imgcls.data.readers.csv_file import read_csv
from imgcls.data.readers.digits import read_digits, read_digits_mosaic
from imgcls.data.readers.fashion_mnist import read_fashion_mnist
from imgcls.data.readers.folder import read_folder
from imgcls.data.readers.imagenet import read_imagenet
from imgcls.data.readers.json_file import read_json
from imgcls.data.readers.record_check import check_records
from imgcls.data.shards.reader import read_shards
from imgcls.errors import UserError

BUILTIN: dict[str, Callable[[], RawDataset]] = {
    **{f"imagenet_{split}": partial(read_imagenet, split) for split in ("train", "val")},
    **{f"digits_{split}": partial(read_digits, split) for split in ("train", "test")},
    **{f"digits_mosaic_{split}": partial(read_digits_mosaic, split) for split in ("train", "test")},
    **{f"fashion_mnist_{split}": partial(read_fashion_mnist, split) for split in ("train", "test")},
}


# What the user registered as `classes`, kept because `classes` follows the training from then on.
_OWN = "registered_classes"


class CatalogReader:
    """Our entry in ``DatasetCatalog``; anything else there is the user's own function."""

    def __init__(self, load: Callable[[str, Sequence[str] | None], Dataset], name: str, classes: Sequence[str] | None):
        self.load, self.name, self.classes = load, name, classes

    def __call__(self) -> list[dict]:
        return list(self.load(self.name, self.classes).records)


def user_function(name: str) -> Callable[[], list[dict]] | None:
    """The function that the user registered under ``name``, or None."""
    function = DatasetCatalog.data.get(name)
    return None if isinstance(function, CatalogReader) else function


def user_classes(name: str) -> list[str] | None:
    """The class names that the user registered with his own set, or None."""
    metadata = MetadataCatalog.get(name)
    return metadata.get(_OWN, metadata.get("classes"))


def classification_names() -> list[str]:
    """Ours and the user's; detectron2's own sets declare another evaluator."""
    return [name for name in DatasetCatalog.list() if _evaluator(name) in (None, "imagenet", "multilabel")]


def publish(dataset: Dataset) -> None:
    """Writes classes, evaluator and source into ``MetadataCatalog``.

    Metadata refuses a second value, and the same set may be loaded under another training's classes: the entry is
    replaced, with everything else that the user put there.
    """
    known = MetadataCatalog.get(dataset.name).as_dict()
    known.setdefault(_OWN, known.get("classes"))
    known["classes"] = dataset.classes
    known["evaluator_type"] = "multilabel" if dataset.multi_label else "imagenet"
    known["source"] = dataset.source
    MetadataCatalog.remove(dataset.name)
    MetadataCatalog.get(dataset.name).set(**known)


def _evaluator(name: str) -> str | None:
    return MetadataCatalog.get(name).get("evaluator_type") if name in MetadataCatalog else None


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
    dataset = to_dataset(name, read_raw_dataset(name, training=classes is None), classes)
    publish(dataset)
    if user_function(name) is None:
        DatasetCatalog[name] = CatalogReader(get_dataset, name, classes)
    return dataset


def read_raw_dataset(name: str, training: bool) -> RawDataset:
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
    _refuse_name(name)


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


def _readers(training: bool) -> dict[str, Callable[[str], RawDataset]]:
    return {
        "folder": partial(read_folder, training=training),
        "json": read_json,
        "csv": read_csv,
        "coco": read_coco,
        "shards": read_shards,
    }


def _read_registered(name: str, function: Callable[[], list[dict]]) -> RawDataset:
    records = function()
    if isinstance(records, list):  # they may be kept where they came from, and ours are changed
        records = [dict(record) if isinstance(record, dict) else record for record in records]
    return check_records(records, name, classes=user_classes(name))


def _refuse_name(name: str) -> NoReturn:
    known = classification_names()
    near = difflib.get_close_matches(name, [*known, *_FORMS], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"unknown dataset {name!r}: {hint}allowed are {', '.join(_FORMS)} and {', '.join(sorted(known))}")


def read_datasets(train, test):
    from imgcls.data.dataset import Datasets
    a, b = get_datasets(train, test)
    return Datasets(tuple(a), tuple(b))
