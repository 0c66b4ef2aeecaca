"""Datasets: from a name in the config to checked records under the training's classes."""

from imgcls.data.datasets.canvas import register_canvas
from imgcls.data.datasets.classes import check_labels
from imgcls.data.datasets.records import Dataset
from imgcls.data.datasets.resolve import get_dataset, get_datasets, register_builtin

__all__ = ["Dataset", "check_labels", "get_dataset", "get_datasets"]

register_builtin()
register_canvas()
