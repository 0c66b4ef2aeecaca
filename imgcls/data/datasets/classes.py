"""From a source's own labels to the training's (labels change nowhere else), and their check against the model."""

from collections.abc import Sequence

from imgcls.data.datasets.record_check import check_unique_ids
from imgcls.data.datasets.records import Dataset, Listing, StoredRecords, label_counts, labels_of
from imgcls.errors import UserError


def to_dataset(name: str, listing: Listing, classes: Sequence[str] | None = None) -> Dataset:
    """Gives the listing its name and the training's classes; labels of a list are changed in place.

    Args:
        name: begins every message.
        listing: from a reader.
        classes: the training's classes; None makes the listing's own the training's.

    Raises:
        UserError: an image id comes twice, there is no class, a class name comes twice, or a picture has a
            class that the training lacks.
    """
    records = listing.records
    if not isinstance(records, StoredRecords):
        check_unique_ids(name, ((number, record["image_id"]) for number, record in enumerate(records, 1)))
    if classes is None:
        _check_training_classes(name, listing.classes)
        classes = listing.classes
    elif listing.named:
        records = _map_by_name(name, listing, classes)
    else:
        _check_indices(name, listing, classes)
    return Dataset(name, records, list(classes), listing.multi_label, listing.source)


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
        raise UserError(f"{name}: no picture has a label, so there is no class to train")
    if len(set(classes)) != len(classes):
        twice = next(c for i, c in enumerate(classes) if c in classes[:i])
        raise UserError(f"{name}: two classes have the name {twice!r}; give each class a name of its own")


def _map_by_name(name: str, listing: Listing, classes: Sequence[str]) -> Sequence[dict]:
    records = listing.records
    if listing.classes == list(classes):
        return records
    index = {c: i for i, c in enumerate(classes)}
    mapping = [index.get(c) for c in listing.classes]
    missing = [listing.classes[i] for i in sorted(label_counts(records)) if mapping[i] is None]
    if missing:
        raise UserError(
            f"{name}: has {'the class' if len(missing) == 1 else 'classes'} {_some(missing)}, which the training set "
            f"lacks; its {len(classes)} classes: {_some(classes)}; remove the pictures or train with them"
        )
    if isinstance(records, StoredRecords):
        return records.relabelled(mapping)
    for record in records:
        if listing.multi_label:
            record["labels"] = [mapping[label] for label in record["labels"]]
        else:
            record["label"] = mapping[record["label"]]
    return records


def _check_indices(name: str, listing: Listing, classes: Sequence[str]) -> None:
    largest = len(listing.classes) - 1
    if largest >= len(classes):
        raise UserError(
            f"{name}: has the label {largest}, which the training set lacks; its {len(classes)} classes are "
            f"0 to {len(classes) - 1}: {_some(classes)}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
