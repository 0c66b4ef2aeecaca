"""What a dataset is, and what a reader hands on."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


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


def label_counts(records: Sequence[dict]) -> Counter[int]:
    """How many pictures each label has."""
    if isinstance(records, StoredRecords):
        return records.label_counts()
    return Counter(label for record in records for label in labels_of(record))


def labels_of(record: dict) -> Sequence[int]:
    """The labels of a record of either kind."""
    return record["labels"] if "labels" in record else (record["label"],)
