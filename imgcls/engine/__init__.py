"""Running it: set-up, what the data decides, and detectron2's trainer for classification."""

from .evaluate import evaluate
from .plain import PlainTrainer
from .plain_args import parse_args
from .resolve import resolve_from_data
from .setup import setup
from .trainer import Trainer

__all__ = ["PlainTrainer", "Trainer", "evaluate", "parse_args", "resolve_from_data", "setup"]
