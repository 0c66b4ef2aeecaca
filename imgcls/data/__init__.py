"""From dataset names to stacked batches."""

from .build import build_test_loader, build_train_loader
from .dataset_mapper import ClsDatasetMapper
from .datasets import get_dataset
from .loader import ClsLoader

__all__ = ["ClsDatasetMapper", "ClsLoader", "build_test_loader", "build_train_loader", "get_dataset"]
