"""Running it: set-up, what the data decides, and detectron2's trainer for classification."""

from .resolve import resolve_from_data
from .setup import setup
from .trainer import Trainer

__all__ = ["Trainer", "resolve_from_data", "setup"]
