"""Datasets: from a name in the config to checked records under the training's classes."""

from imgcls.data.datasets.canvas import register_canvas
from imgcls.data.datasets.classes import check_labels
from imgcls.data.datasets.records import Dataset, StoredRecords, label_counts
from imgcls.data.datasets.resolve import get_dataset, get_datasets, register_builtin

__all__ = ["Dataset", "StoredRecords", "check_labels", "get_dataset", "get_datasets", "label_counts"]

register_builtin()
register_canvas()
