"""The optimizer, the length of training, and averaged weights."""

from imgcls.solver.optimizer import build_optimizer
from imgcls.solver.schedule import EmaModel, apply_schedule, build_ema, iterations, read_options

__all__ = ["EmaModel", "apply_schedule", "build_ema", "build_optimizer", "iterations", "read_options"]
