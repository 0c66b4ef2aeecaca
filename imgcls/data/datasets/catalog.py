"""detectron2's two catalogs: the names in one, what is known about a set in the other."""

from collections.abc import Callable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from imgcls.data.datasets.records import Dataset

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
