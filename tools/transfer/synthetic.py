"""``canvas_train`` and ``canvas_test``: what ``tools/make_detection_canvas.py`` makes, for any detectron2 detector."""

from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets import load_coco_json

from imgcls.disk import datasets_root
from imgcls.errors import UserFileNotFoundError

NAMES = {f"canvas_{split}": split for split in ("train", "test")}
# What load_coco_json writes into the metadata.
_LOADED = ("thing_classes", "thing_dataset_id_to_contiguous_id")


class CanvasMetadata(Metadata):
    """Follows ``DETECTRON2_DATASETS``: detectron2's own metadata would keep the paths of the import."""

    @property
    def json_file(self) -> str:
        """The COCO annotations, whether or not they are there."""
        return str(datasets_root() / "canvas" / f"{NAMES[self.name]}.json")

    @property
    def image_root(self) -> str:
        """The folder of the images."""
        return str(datasets_root() / "canvas" / NAMES[self.name])


def register_canvas() -> None:
    """Puts both names into detectron2's catalogs without reading anything; a user's set of the same name stays."""
    for name in NAMES:
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(load_canvas, name))
            MetadataCatalog[name] = CanvasMetadata(name=name, evaluator_type="coco")


def load_canvas(name: str) -> list[dict]:
    """The records of ``canvas_train`` or ``canvas_test`` in detectron2's format for detection.

    Raises:
        UserError: the set is not there; the message has the command that makes it.
    """
    metadata = MetadataCatalog.get(name)
    path = datasets_root() / "canvas" / f"{NAMES[name]}.json"
    if not path.is_file():
        raise UserFileNotFoundError(
            f"{path}: no such file; make it with: python tools/make_detection_canvas.py, or set DETECTRON2_DATASETS"
        )
    for key in _LOADED:  # another canvas was read before: metadata refuses a second, different value
        metadata.__dict__.pop(key, None)
    return load_coco_json(str(path), metadata.image_root, name)
