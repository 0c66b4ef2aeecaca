"""Registers ``synthetic_train`` and ``synthetic_test`` for detectron2's detectors."""

from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets import load_coco_json

from imgcls.disk import datasets_root
from imgcls.errors import UserFileNotFoundError

NAMES = {f"synthetic_{split}": split for split in ("train", "test")}
# What load_coco_json writes into the metadata.
_LOADED = ("thing_classes", "thing_dataset_id_to_contiguous_id")


class SyntheticMetadata(Metadata):
    """Metadata whose paths follow ``DETECTRON2_DATASETS``, instead of its value when the set was registered."""

    @property
    def json_file(self) -> str:
        """Path of the COCO annotations, whether or not they exist."""
        return str(default_folder() / f"{NAMES[self.name]}.json")

    @property
    def image_root(self) -> str:
        """Folder of the images."""
        return str(default_folder() / NAMES[self.name])


def default_folder() -> Path:
    """Returns the folder in which the registered set lies."""
    return datasets_root() / "synthetic"


def register_synthetic_set() -> None:
    """Adds both names to detectron2's catalogs without reading files; a user's set of the same name is kept."""
    for name in NAMES:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(load_synthetic_set, name))
            MetadataCatalog[name] = SyntheticMetadata(name=name, evaluator_type="coco")


def load_synthetic_set(name: str) -> list[dict]:
    """Returns the records of ``synthetic_train`` or ``synthetic_test`` in detectron2's format for detection.

    Raises:
        UserError: the set does not exist; the message has the command that makes it.
    """
    metadata = MetadataCatalog.get(name)
    path = Path(metadata.json_file)
    if not path.is_file():
        raise UserFileNotFoundError(
            f"{path}: no such file; make it with python tools/make_synthetic_detection_set.py, or set "
            "DETECTRON2_DATASETS"
        )
    for key in _LOADED:  # metadata refuses a second, different value, as of another DETECTRON2_DATASETS
        metadata.__dict__.pop(key, None)
    return load_coco_json(str(path), metadata.image_root, name)
