"""Training and evaluation: set-up, the loop of iterations, and the two trainers around it."""

from imgcls.engine.evaluate import evaluate
from imgcls.engine.plain import PlainTrainer
from imgcls.engine.resolve import resolve_from_data
from imgcls.engine.setup import RunSetup, setup
from imgcls.engine.summary import log_summary
from imgcls.engine.trainer import Trainer

__all__ = ["PlainTrainer", "RunSetup", "Trainer", "evaluate", "log_summary", "resolve_from_data", "setup"]
