"""Running it: set-up, what the data decides, and detectron2's trainer for classification."""

from imgcls.engine.build import evaluate
from imgcls.engine.plain import PlainTrainer
from imgcls.engine.setup import resolve_from_data, setup
from imgcls.engine.trainer import Trainer

__all__ = ["PlainTrainer", "Trainer", "evaluate", "resolve_from_data", "setup"]
