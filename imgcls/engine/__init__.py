"""Running it: set-up, what the data decides, and detectron2's trainer for classification."""

from .evaluate import evaluate
from .resolve import resolve_from_data
from .setup import setup
from .trainer import Trainer

__all__ = ["Trainer", "evaluate", "resolve_from_data", "setup"]
