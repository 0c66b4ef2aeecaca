"""Datasets, the mapper and the data loaders of image classification."""

from imgcls.data.catalog import get_dataset, read_datasets, register_builtin
from imgcls.data.dataset import Dataset, Datasets
from imgcls.data.loader import ClsLoader, build_test_loader, build_train_loader
from imgcls.data.mapper import ClsDatasetMapper

__all__ = [
    "ClsDatasetMapper",
    "ClsLoader",
    "Dataset",
    "Datasets",
    "build_test_loader",
    "build_train_loader",
    "get_dataset",
    "read_datasets",
]

register_builtin()
